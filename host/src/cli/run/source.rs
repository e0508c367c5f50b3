//! What `tussah run` is given: a manifest, a folder or a module, and where models are.
//!
//! In: the arguments. Out: a manifest and its module's bytes, not yet verified, and models
//! in the store. Every place that was looked at is named when nothing was found there.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use tussah_manifest::{Digest, JobDescription, JobName, Manifest, ModelName, ModelRef, ModuleRef};

use crate::{
    blobs::{BlobError, Blobs},
    build::{self, MANIFEST_FILE_BYTES_MAX},
    cli::model::{format_of, import},
    failure::Failure,
    home::Home,
    input,
    interrupt::Interrupt,
    models::Models,
    ui::Ui,
};

/// `--model NAME=SOURCE`.
#[derive(Clone, Debug)]
pub(crate) struct ModelArgument {
    pub(crate) name: ModelName,
    pub(crate) source: String,
}

/// For clap.
pub(crate) fn model_argument(text: &str) -> Result<ModelArgument, String> {
    let (name, source) = text.split_once('=').ok_or("write NAME=SOURCE")?;
    let name = name
        .parse::<ModelName>()
        .map_err(|error| error.to_string())?;
    if source.is_empty() {
        return Err("SOURCE is empty; write a model's name, a digest or a file".to_owned());
    }
    Ok(ModelArgument {
        name,
        source: source.to_owned(),
    })
}

/// Where documents, modules and models are looked for.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) home: Home,
    pub(crate) blobs: Blobs,
    pub(crate) models: Models,
    pub(crate) interrupt: Interrupt,
    /// The files that the last job was made of, for who waits for a change.
    pub(crate) seen: Mutex<Vec<PathBuf>>,
}

impl Sources {
    /// The manifest and the module of a job.
    ///
    /// # Errors
    /// A failure that says what was wrong with which file.
    pub(in crate::cli) fn job(
        &self,
        path: &Path,
        models: &[ModelArgument],
        ui: &Ui,
    ) -> Result<(Manifest, Vec<u8>), Failure> {
        if path.is_dir() {
            let built = build::build(&self.home, path, None, ui, &self.interrupt)?;
            self.saw(&built.sources);
            let module = input::bytes(&built.module_path, ModuleRef::SIZE_BYTES_MAX)?;
            return Ok((self.with_models(built.manifest, models, ui)?, module));
        }
        // The name decides, not the content: `run x.wasm` of something else says so.
        if path
            .extension()
            .is_some_and(|extension| extension == "wasm")
        {
            let module = input::bytes(path, ModuleRef::SIZE_BYTES_MAX)?;
            let abi = build::abi_of(&module)
                .map_err(|failure| failure.context(format!("{} is no job", path.display())))?;
            let mut manifest = self.bare(path, &module, models, ui)?;
            manifest.job.abi = abi;
            return Ok((manifest, module));
        }
        let text = input::bytes(path, MANIFEST_FILE_BYTES_MAX)?;
        if text.starts_with(b"\0asm") {
            let message = format!("{} is a module, not a manifest", path.display());
            return Err(Failure::usage(message).help("give it a name that ends with .wasm"));
        }
        let manifest = Manifest::parse_bytes(&text).map_err(|error| {
            Failure::usage(error).context(format!("{} is no manifest", path.display()))
        })?;
        let module = self.module(&manifest, path)?;
        Ok((self.with_models(manifest, models, ui)?, module))
    }

    fn saw(&self, files: &[PathBuf]) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.extend_from_slice(files);
    }

    /// The module of a manifest: the one beside it, which must be the right one, else from
    /// the store, else from where `build` puts it.
    fn module(&self, manifest: &Manifest, manifest_path: &Path) -> Result<Vec<u8>, Failure> {
        let digest = manifest.module.digest;
        let help = format!(
            "build the job with `tussah build DIR`, or run its folder; its name is `{}`",
            manifest.job.name
        );
        let places = module_places(manifest, manifest_path);
        self.saw(&places);
        let (beside, built) = places.split_at(1);
        if let [place] = beside
            && place.is_file()
        {
            let module = input::bytes(place, ModuleRef::SIZE_BYTES_MAX)?;
            let found = Digest::of(&module);
            if found == digest {
                return Ok(module);
            }
            let message = format!(
                "the module {} has the digest {found}, the manifest names {digest}",
                place.display()
            );
            return Err(Failure::not_verified(message).help(help));
        }
        match self.blobs.read(&digest, ModuleRef::SIZE_BYTES_MAX) {
            Err(BlobError::Missing { .. }) => {}
            module => return Ok(module?),
        }
        for place in built.iter().filter(|place| place.is_file()) {
            let module = input::bytes(place, ModuleRef::SIZE_BYTES_MAX)?;
            if Digest::of(&module) == digest {
                return Ok(module);
            }
        }
        let looked: Vec<String> = places
            .iter()
            .map(|place| place.display().to_string())
            .collect();
        let message = format!(
            "the module {digest} was not found; looked in the blob store and for {}",
            looked.join(", ")
        );
        Err(Failure::usage(message).help(help))
    }

    /// A manifest for a module alone: the defaults, and the models that were named.
    fn bare(
        &self,
        path: &Path,
        module: &[u8],
        models: &[ModelArgument],
        ui: &Ui,
    ) -> Result<Manifest, Failure> {
        let stem = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or("");
        let name = stem.to_lowercase().replace(['_', '.', ' '], "-");
        let name = name
            .parse()
            .or_else(|_| "job".parse::<JobName>())
            .map_err(Failure::usage)?;
        let mut manifest = JobDescription::new(name).with_module(ModuleRef::of(module));
        for model in models {
            let digest = self.model(&model.source, ui)?;
            let format = format_of(&self.blobs.path(&digest))?;
            let reference = ModelRef { digest, format };
            manifest.job.models.insert(model.name.clone(), reference);
        }
        Ok(manifest)
    }

    /// The manifest with the models that the command line names in place of its own.
    fn with_models(
        &self,
        mut manifest: Manifest,
        models: &[ModelArgument],
        ui: &Ui,
    ) -> Result<Manifest, Failure> {
        for model in models {
            let digest = self.model(&model.source, ui)?;
            let Some(reference) = manifest.job.models.get_mut(&model.name) else {
                let message = format!("the manifest names no model `{}`", model.name);
                let names: Vec<_> = manifest
                    .job
                    .models
                    .keys()
                    .map(ToString::to_string)
                    .collect();
                let help = format!("its models are: {}", names.join(", "));
                return Err(Failure::usage(message).help(help));
            };
            if reference.digest != digest {
                reference.digest = digest;
                reference.format = format_of(&self.blobs.path(&digest))?;
                ui.warn(&format!(
                    "the model `{}` is not the manifest's; this run has a manifest of its own, {}",
                    model.name,
                    manifest.digest()
                ));
            }
        }
        Ok(manifest)
    }

    /// The digest of a model, which is in the store afterwards.
    ///
    /// # Errors
    /// A failure if the source names nothing, or a file that is no model.
    pub(crate) fn model(&self, source: &str, ui: &Ui) -> Result<Digest, Failure> {
        if source.starts_with("blake3:") {
            let digest = source.parse::<Digest>().map_err(Failure::usage)?;
            if !self.blobs.contains(&digest) {
                return Err(self.blobs.missing(&digest).into());
            }
            return Ok(digest);
        }
        if let Ok(name) = source.parse::<ModelName>()
            && let Some(record) = self.models.find(&name)?
        {
            return Ok(record.digest);
        }
        let path = PathBuf::from(source);
        if !path.is_file() {
            let message = format!("`{source}` is no model of `tussah model list`, and no file");
            return Err(
                Failure::usage(message).help("add it with `tussah model add NAME FILE.gguf`")
            );
        }
        Ok(import(&self.blobs, &path, &self.interrupt, ui, |_| Ok(()))?.digest)
    }
}

/// Beside the manifest, and in the target folders of the manifest's project and of here.
fn module_places(manifest: &Manifest, manifest_path: &Path) -> Vec<PathBuf> {
    let folder = match manifest_path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let below = Path::new("tussah")
        .join(manifest.job.name.as_str())
        .join("module.wasm");
    let mut places = vec![folder.join("module.wasm")];
    if let Some(target) = std::env::var_os("CARGO_TARGET_DIR") {
        places.push(Path::new(&target).join(&below));
    }
    for root in [
        folder.join("target"),
        folder.join("../target"),
        PathBuf::from("target"),
    ] {
        let place = root.join(&below);
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_arguments() {
        let argument = model_argument("smollm2=a=b.gguf").unwrap();
        assert_eq!(
            (argument.name.as_str(), argument.source.as_str()),
            ("smollm2", "a=b.gguf")
        );
        for bad in ["smollm2", "=x", "smollm2=", "Smol=x", ""] {
            model_argument(bad).unwrap_err();
        }
    }

    #[test]
    fn a_module_is_looked_for_beside_its_manifest_first() {
        let job = JobDescription::new("hello".parse().unwrap());
        let manifest = job.with_module(ModuleRef::of(b"12345678"));
        let places = module_places(&manifest, Path::new("manifests/hello.toml"));
        assert_eq!(places[0], Path::new("manifests/module.wasm"));
        assert!(places.contains(&PathBuf::from(
            "manifests/../target/tussah/hello/module.wasm"
        )));
        assert!(places.contains(&PathBuf::from("target/tussah/hello/module.wasm")));
        assert_eq!(
            module_places(&manifest, Path::new("m.toml"))[0],
            Path::new("./module.wasm")
        );
    }
}
