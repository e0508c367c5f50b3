//! Embeds the SDK's sources, so that `tussah new` can put them beside a new job.
//!
//! In: `guest-sdk/`, `guest-macros/` and the workspace's root `Cargo.toml`. Out:
//! `vendored_sdk.rs`, a list of paths and contents. What the crates inherit from the
//! workspace is written out, since the copies stand alone.

use std::{
    error::Error,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

/// Folder in the repository, folder below a new job's `vendor/`.
const CRATES: [(&str, &str); 2] = [
    ("guest-sdk", "tussah-sdk"),
    ("guest-macros", "tussah-sdk-macros"),
];
/// Folders of a crate that its users need.
const FOLDERS: [&str; 2] = ["src", "wit"];

fn main() -> Result<(), Box<dyn Error>> {
    let repository = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("..");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let root_path = repository.join("Cargo.toml");
    watch(&root_path);
    let root: Table = fs::read_to_string(&root_path)?.parse()?;
    let mut list = String::from("&[\n");
    for (folder, name) in CRATES {
        let source = repository.join(folder);
        let manifest_path = source.join("Cargo.toml");
        watch(&manifest_path);
        let manifest: Table = fs::read_to_string(&manifest_path)?.parse()?;
        let copy = out.join(format!("{name}.toml"));
        fs::write(&copy, toml::to_string(&stand_alone(manifest, &root)?)?)?;
        writeln!(
            list,
            "({:?}, include_str!({copy:?})),",
            format!("{name}/Cargo.toml")
        )?;
        for below in FOLDERS {
            let mut files = Vec::new();
            collect(&source.join(below), &mut files)?;
            for file in files {
                let relative = file
                    .strip_prefix(&source)?
                    .to_string_lossy()
                    .replace('\\', "/");
                let file = fs::canonicalize(&file)?;
                writeln!(
                    list,
                    "({:?}, include_str!({file:?})),",
                    format!("{name}/{relative}")
                )?;
            }
        }
    }
    list.push(']');
    fs::write(out.join("vendored_sdk.rs"), list)?;
    Ok(())
}

fn watch(path: &Path) {
    println!("cargo:rerun-if-changed={}", path.display());
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    if !folder.is_dir() {
        return Ok(());
    }
    watch(folder);
    let mut entries: Vec<_> = fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// The crate's manifest with nothing left that only the workspace knows.
fn stand_alone(mut manifest: Table, root: &Table) -> Result<Table, Box<dyn Error>> {
    let workspace = table(root, "workspace")?;
    let inherited = table(workspace, "package")?;
    if let Some(Value::Table(package)) = manifest.get_mut("package") {
        for (key, value) in package.iter_mut() {
            if is_inherited(value) {
                *value = inherited
                    .get(key)
                    .ok_or(format!("no workspace.package.{key}"))?
                    .clone();
            }
        }
    }
    let versions = table(workspace, "dependencies")?;
    let mut lists: Vec<&mut Table> = Vec::new();
    for (key, value) in &mut manifest {
        match (key.as_str(), value) {
            ("dependencies", Value::Table(list)) => lists.push(list),
            ("target", Value::Table(targets)) => {
                let targets = targets.iter_mut().map(|(_, target)| target);
                let found = targets.filter_map(|target| target.get_mut("dependencies"));
                lists.extend(found.filter_map(Value::as_table_mut));
            }
            _ => {}
        }
    }
    for list in lists {
        for (name, value) in list.iter_mut() {
            *value = dependency(name, value, versions)?;
        }
    }
    for unneeded in ["lints", "dev-dependencies"] {
        manifest.remove(unneeded);
    }
    Ok(manifest)
}

fn dependency(name: &str, value: &Value, versions: &Table) -> Result<Value, Box<dyn Error>> {
    if !is_inherited(value) {
        return Ok(value.clone());
    }
    let mut found = match versions
        .get(name)
        .ok_or(format!("no workspace.dependencies.{name}"))?
    {
        Value::Table(table) => table.clone(),
        version => Table::from_iter([("version".to_owned(), version.clone())]),
    };
    if found.contains_key("path") {
        found.insert("path".to_owned(), Value::String(format!("../{name}")));
    }
    if let Some(Value::Array(more)) = value.get("features") {
        let features = found.entry("features").or_insert(Value::Array(Vec::new()));
        if let Value::Array(features) = features {
            features.extend(more.iter().cloned());
        }
    }
    Ok(Value::Table(found))
}

fn is_inherited(value: &Value) -> bool {
    value.get("workspace").and_then(Value::as_bool) == Some(true)
}

fn table<'a>(parent: &'a Table, key: &str) -> Result<&'a Table, Box<dyn Error>> {
    parent
        .get(key)
        .and_then(Value::as_table)
        .ok_or_else(|| format!("no table `{key}`").into())
}
