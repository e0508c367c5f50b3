//! The reference manifests beside this crate: each is good, and is of a job in `jobs/`.

use std::{fs, path::Path};

use tussah_manifest::{JobDescription, Manifest};

#[test]
fn every_reference_manifest_is_of_its_job() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.extension().is_none_or(|extension| extension != "toml") || stem == "Cargo" {
            continue;
        }
        let manifest = Manifest::parse(&fs::read_to_string(&path).unwrap()).unwrap();
        let source = folder.join("../jobs").join(&stem).join("tussah.toml");
        let job = JobDescription::parse(&fs::read_to_string(&source).unwrap()).unwrap();
        assert_eq!(
            manifest.job,
            job,
            "{} and {} differ",
            path.display(),
            source.display()
        );
        assert_eq!(manifest.job.name.as_str(), stem);
        seen += 1;
    }
    assert!(
        seen > 0,
        "there is no reference manifest in {}",
        folder.display()
    );
}
