//! `tussah new`: a job that builds and runs at once.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use clap::Args;
use serde::Serialize;
use tussah_manifest::{JobDescription, JobName, ModelFormat, ModelName, ModelRef};

use super::model::model_name;
use crate::{
    exit_code::Exit,
    failure::{Failure, file_failure},
    home::Home,
    models::Models,
    ui::Ui,
};

/// The SDK's sources: path below `vendor/`, content. Written by the build script.
const VENDORED_SDK: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/vendored_sdk.rs"));

const EXAMPLES: &str = "\
Examples:
  tussah new hello                    A job in ./hello
  tussah new hello --path jobs/hello  The same somewhere else
  tussah new hello --model smollm2    It uses that model
  cd hello && tussah run . --input input.txt

The folder stands alone: the SDK's source is in vendor/. The job uses the model that you
name, or the first that `tussah model list` shows, or, where there is none, no model.";

/// Start a job that builds and runs at once.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The job's name: lowercase letters, digits and `-`.
    #[arg(value_parser = job_name)]
    name: JobName,
    /// The folder; its name if not given.
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// A model of `tussah model list` that the job uses.
    #[arg(long, value_name = "NAME", value_parser = model_name)]
    model: Option<ModelName>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Serialize)]
struct View<'a> {
    name: &'a str,
    path: &'a Path,
    model: Option<&'a str>,
}

impl Arguments {
    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        let folder = self
            .path
            .clone()
            .unwrap_or_else(|| PathBuf::from(self.name.as_str()));
        let model = self.choose_model()?;
        let files = files(&self.name, model.as_ref());
        let made = make_folder(&folder)?;
        if let Err(failure) = write_all(&folder, &files) {
            if made {
                // The error that matters is the first one.
                let _ = fs::remove_dir_all(&folder);
            }
            return Err(failure);
        }
        let model = model.as_ref().map(|(name, _)| name.as_str());
        if ui.json() {
            ui.document(&View {
                name: self.name.as_str(),
                path: &folder,
                model,
            })?;
            return Ok(Exit::DONE);
        }
        let shown = folder.display();
        ui.line(&format!("made the job `{}` in {shown}", self.name))?;
        match model {
            Some(model) => ui.note(&format!("it uses your model `{model}`")),
            None => ui.note(
                "it uses no model, as none was added yet: `tussah model add NAME FILE.gguf`, \
                 then start another job",
            ),
        }
        ui.note(&format!(
            "run it: tussah run {shown} --input {shown}/input.txt"
        ));
        Ok(Exit::DONE)
    }

    fn choose_model(&self) -> Result<Option<(ModelName, ModelRef)>, Failure> {
        let models = Models::open(&Home::open()?)?;
        let chosen = match &self.model {
            Some(name) => Some((name.clone(), models.get(name)?)),
            None => models.list()?.into_iter().next(),
        };
        Ok(chosen.map(|(name, record)| {
            (
                name,
                ModelRef {
                    digest: record.digest,
                    format: ModelFormat::Gguf,
                },
            )
        }))
    }
}

type Files = Vec<(String, String)>;

fn files(name: &JobName, model: Option<&(ModelName, ModelRef)>) -> Files {
    let mut description = JobDescription::new(name.clone());
    let (source, input) = match model {
        Some((model, reference)) => {
            description.models.insert(model.clone(), *reference);
            let source = include_str!("new/chat.rs.txt").replace("{model}", model.as_str());
            (source, include_str!("new/chat-input.txt"))
        }
        None => (
            include_str!("new/plain.rs.txt").to_owned(),
            include_str!("new/plain-input.txt"),
        ),
    };
    let fill = |template: &str| template.replace("{name}", name.as_str());
    let mut files = vec![
        (
            "Cargo.toml".to_owned(),
            fill(include_str!("new/Cargo.toml.txt")),
        ),
        ("tussah.toml".to_owned(), description.to_toml()),
        ("src/lib.rs".to_owned(), fill(&source)),
        (
            "README.md".to_owned(),
            fill(include_str!("new/README.md.txt")),
        ),
        (".gitignore".to_owned(), "/target\n".to_owned()),
        ("input.txt".to_owned(), input.to_owned()),
    ];
    files.extend(
        VENDORED_SDK
            .iter()
            .map(|(path, text)| (format!("vendor/{path}"), (*text).to_owned())),
    );
    files
}

/// Whether the folder had to be made. One that is there must be empty.
fn make_folder(folder: &Path) -> Result<bool, Failure> {
    let failed = |error| file_failure("make the folder", folder, error);
    match fs::read_dir(folder) {
        Ok(mut entries) => match entries.next() {
            None => Ok(false),
            Some(_) => Err(
                Failure::usage(format!("the folder {} is not empty", folder.display()))
                    .help("name another one with --path; nothing was changed"),
            ),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            fs::create_dir_all(folder).map_err(failed)?;
            Ok(true)
        }
        Err(error) => Err(failed(error)),
    }
}

fn write_all(folder: &Path, files: &Files) -> Result<(), Failure> {
    for (name, text) in files {
        let path = folder.join(name);
        let write = || {
            fs::create_dir_all(path.parent().unwrap_or(folder))?;
            fs::File::create_new(&path)?.write_all(text.as_bytes())
        };
        write().map_err(|error| file_failure("write", &path, error))?;
    }
    Ok(())
}

fn job_name(text: &str) -> Result<JobName, String> {
    text.parse::<JobName>().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use tussah_manifest::Digest;

    use super::*;

    fn check(model: Option<(ModelName, ModelRef)>) {
        let files = files(&"hello".parse().unwrap(), model.as_ref());
        let text = |name: &str| {
            let found = files.iter().find(|(path, _)| path == name);
            found.unwrap_or_else(|| panic!("no {name}")).1.as_str()
        };
        let description = JobDescription::parse(text("tussah.toml")).unwrap();
        assert_eq!(description.name.as_str(), "hello");
        assert_eq!(description.models.len(), usize::from(model.is_some()));
        for manifest in [
            "Cargo.toml",
            "vendor/tussah-sdk/Cargo.toml",
            "vendor/tussah-sdk-macros/Cargo.toml",
        ] {
            let manifest: toml::Table = text(manifest).parse().unwrap();
            let inherits = manifest["package"]
                .as_table()
                .unwrap()
                .values()
                .any(|value| value.get("workspace").is_some());
            assert!(!inherits, "{manifest}");
        }
        assert!(text("src/lib.rs").contains("#[job]"));
        // The SDK's own source has braces of its own.
        let ours = files
            .iter()
            .filter(|(path, _)| !path.starts_with("vendor/"));
        for (path, text) in ours {
            assert!(
                !text.contains("{name}") && !text.contains("{model}"),
                "{path}"
            );
        }
    }

    #[test]
    fn every_file_is_there_and_filled_in() {
        check(None);
        let reference = ModelRef {
            digest: Digest::of(b"model"),
            format: ModelFormat::Gguf,
        };
        check(Some(("tiny".parse().unwrap(), reference)));
    }

    #[test]
    fn a_folder_with_files_is_left_alone() {
        let temporary = tempfile::tempdir().unwrap();
        assert!(!make_folder(temporary.path()).unwrap());
        assert!(make_folder(&temporary.path().join("a/b")).unwrap());
        let failure = make_folder(temporary.path()).unwrap_err();
        assert_eq!(failure.exit, Exit::USAGE);
    }
}
