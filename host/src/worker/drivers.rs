//! Where drivers of GPUs are, besides the system's folders.
//!
//! In: the environment and the manifests that Vulkan's loader and the dynamic linker go by. Out:
//! files and folders that the worker has to read before it can open a device. Nothing of the
//! daemon's home and no folder with the user's home in it is among them, whatever a variable says.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

/// Lists of manifests, or folders of them; `VK_LAYER_PATH` has folders of layers.
const MANIFEST_VARIABLES: [&str; 3] = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES", "VK_LAYER_PATH"];
/// Folders of libraries.
const LIBRARY_VARIABLE: &str = "LD_LIBRARY_PATH";
/// Where Vulkan's loader looks of its own accord, and can find manifests of libraries elsewhere.
const MANIFEST_FOLDERS: [&str; 4] = [
    "/etc/vulkan/icd.d",
    "/etc/vulkan/implicit_layer.d",
    "/usr/share/vulkan/icd.d",
    "/usr/local/share/vulkan/icd.d",
];
/// Files with the dynamic linker's own folders, one a line.
const LINKER_FOLDERS: &str = "/etc/ld.so.conf.d";
/// Files that are looked at in one folder, and paths in one variable.
const ENTRIES_MAX: usize = 64;
/// More than any manifest or list of folders has.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Files and folders to read, which exist; `variable` says what is in the environment, and `home` is
/// the daemon's.
pub(super) fn reach(variable: impl Fn(&str) -> Option<OsString>, home: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let listed = |name: &str| -> Vec<PathBuf> {
        let value = variable(name).unwrap_or_default();
        let paths = std::env::split_paths(&value).filter(|path| path.is_absolute());
        paths.take(ENTRIES_MAX).collect()
    };
    let named = MANIFEST_VARIABLES.iter().flat_map(|name| listed(name));
    for path in named.chain(MANIFEST_FOLDERS.map(PathBuf::from)) {
        for manifest in files(&path, "json") {
            found.extend(library_folder(&manifest));
            found.insert(manifest);
        }
    }
    found.extend(listed(LIBRARY_VARIABLE));
    for list in files(Path::new(LINKER_FOLDERS), "conf") {
        let text = text(&list).unwrap_or_default();
        let folders = text.lines().map(|line| PathBuf::from(line.trim()));
        found.extend(folders.filter(|folder| folder.is_absolute()));
    }
    let home = real(home);
    let user = variable("HOME").and_then(|folder| real(Path::new(&folder)));
    let is_above = |path: &Path, folder: &Option<PathBuf>| {
        (folder.as_ref()).is_some_and(|folder| folder.starts_with(path))
    };
    let is_private = |path: &PathBuf| {
        let is_within = home.as_ref().is_some_and(|home| path.starts_with(home));
        is_within || is_above(path, &home) || is_above(path, &user) || path.parent().is_none()
    };
    let found = found.iter().filter_map(|path| real(path));
    found.filter(|path| !is_private(path)).collect()
}

/// The file itself, or those of a folder with this extension.
fn files(path: &Path, extension: &str) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path());
    files
        .filter(|file| file.extension() == Some(OsStr::new(extension)))
        .take(ENTRIES_MAX)
        .collect()
}

/// Where the library of a manifest is, if it is not left to the linker: its neighbours belong to it.
fn library_folder(manifest: &Path) -> Option<PathBuf> {
    let found: serde_json::Value = serde_json::from_str(&text(manifest)?).ok()?;
    let of = |part: &str| found[part]["library_path"].as_str();
    let library = Path::new(of("ICD").or_else(|| of("layer"))?);
    // A name without a folder is the linker's to find; any other is relative to the manifest.
    library
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())?;
    let library = manifest.parent()?.join(library);
    Some(real(&library)?.parent()?.to_owned())
}

fn text(path: &Path) -> Option<String> {
    let mut text = String::new();
    let file = fs::File::open(path).ok()?;
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The path without links; `None` of what is not there.
fn real(path: &Path) -> Option<PathBuf> {
    fs::canonicalize(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_outside_the_system_is_reached_with_its_library_and_nothing_of_the_home() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for inside in ["opt/driver/lib", "opt/icd", "user/lib", "user/tussah/keys"] {
            fs::create_dir_all(root.join(inside)).unwrap();
        }
        let library = root.join("opt/driver/lib/libvulkan_some.so");
        fs::write(&library, "").unwrap();
        let manifest = |name: &str, library: &str| {
            let text = format!(r#"{{"ICD": {{"library_path": {library:?}}}}}"#);
            fs::write(root.join(name), text).unwrap();
            root.join(name)
        };
        let named = manifest("named.json", library.to_str().unwrap());
        let relative = manifest("opt/icd/a.json", "../driver/lib/libvulkan_some.so");
        let by_linker = manifest("opt/icd/b.json", "libvulkan_other.so");
        let broken = root.join("broken.json");
        fs::write(&broken, "{").unwrap();
        let join = |paths: &[&Path]| Some(std::env::join_paths(paths).unwrap());
        let relative_path = Path::new("relative");
        let variable = |name: &str| match name {
            "VK_DRIVER_FILES" => join(&[&root.join("opt/icd"), &broken, &root.join("none.json")]),
            "VK_ICD_FILENAMES" => join(&[&named]),
            "LD_LIBRARY_PATH" => join(&[
                &root.join("user/lib"),
                &root,
                &root.join("user"),
                &root.join("user/tussah"),
                &root.join("user/tussah/keys"),
                relative_path,
                Path::new("/"),
            ]),
            "HOME" => Some(root.join("user").into()),
            _ => None,
        };
        let home = root.join("user/tussah");
        let mut expected = vec![
            root.join("opt/driver/lib"),
            root.join("user/lib"),
            named.clone(),
            relative,
            by_linker,
            broken.clone(),
        ];
        expected.sort();
        let system = reach(|_| None, &home);
        let found = reach(variable, &home);
        assert_eq!(
            found.difference(&system).cloned().collect::<Vec<_>>(),
            expected
        );
    }
}
