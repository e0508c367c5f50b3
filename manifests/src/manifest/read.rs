//! TOML → manifest. Walks the parsed tree by hand, table by table, so that every error can name
//! its field and place: a derived reader would know one of them at best.

use std::collections::BTreeMap;

use toml::de::DeValue;

use super::error::ManifestError;
use super::table::{Table, check_length, integer, kind, position};
use super::{
    DeterminismRequest, JobDescription, MODELS_MAX, Manifest, ModelFormat, ModelRef, ModuleRef,
};
use crate::build_info::{BuildInfo, BuildRecord};
use crate::encoding::{Document as _, Version};
use crate::limits::{Limits, Unit};
use crate::names::{JobName, ModelName};
use crate::nanograms::Nanograms;

/// The text of bytes, if they are UTF-8.
pub(super) fn text_of(bytes: &[u8]) -> Result<&str, ManifestError> {
    check_length(bytes.len())?;
    std::str::from_utf8(bytes).map_err(|error| {
        let (good, rest) = bytes.split_at(error.valid_up_to());
        ManifestError::NotUtf8 {
            line: 1 + good.iter().filter(|byte| **byte == b'\n').count(),
            byte: rest.first().copied().unwrap_or_default(),
        }
    })
}

pub(super) fn job_description(text: &str) -> Result<JobDescription, ManifestError> {
    let mut root = Table::root(text, ROOT_FIELDS)?;
    if let Some((at, _)) = root.take("module") {
        return Err(ManifestError::ModuleInSource {
            at,
            field: "module",
        });
    }
    if let Some((at, _)) = root.take("build") {
        return Err(ManifestError::ModuleInSource { at, field: "build" });
    }
    read_job(&mut root)
}

pub(super) fn manifest(text: &str) -> Result<Manifest, ManifestError> {
    let mut root = Table::root(text, ROOT_FIELDS)?;
    let module = root.table("module", MODULE_FIELDS)?;
    let build = root.table("build", BUILD_FIELDS)?;
    let job = read_job(&mut root)?;
    let Some(mut module) = module else {
        return Err(ManifestError::ModuleMissing);
    };
    let digest = module.required_digest()?;
    let (min, max) = (ModuleRef::SIZE_BYTES_MIN, ModuleRef::SIZE_BYTES_MAX);
    let size_bytes = module
        .number("size_bytes", Unit::Bytes, min, max)?
        .ok_or_else(|| module.missing("size_bytes", "size_bytes = <the module's length>"))?;
    let mut manifest = job.with_module(ModuleRef { digest, size_bytes });
    manifest.build = build.map(|mut table| read_build(&mut table)).transpose()?;
    Ok(manifest)
}

fn read_build(table: &mut Table<'_>) -> Result<BuildRecord, ManifestError> {
    let code_digest = table.digest("code_digest")?;
    let std_digest = table.digest("std_digest")?;
    let required = |table: &mut Table<'_>, field, example| {
        (table.label(field)?).ok_or_else(|| table.missing(field, example))
    };
    let info = BuildInfo {
        version: Version::V1,
        rustc: required(table, "rustc", "rustc = \"1.95.0\"")?,
        rustc_commit: required(table, "rustc_commit", "rustc_commit = \"<its hash>\"")?,
        std_digest,
        sdk: table.label("sdk")?,
        bldarg: table.labels("bldarg")?,
        bldopt: table.labels("bldopt")?,
        bldimg: table.label("bldimg")?,
        source_sha256: table.label("source_sha256")?,
        source_uri: table.label("source_uri")?,
    };
    let build = BuildRecord { code_digest, info };
    match build.info.check() {
        Ok(()) => Ok(build),
        Err(problem) => Err(ManifestError::Build {
            at: table.at(),
            problem,
        }),
    }
}

const ROOT_FIELDS: &[&str] = &[
    "version",
    "name",
    "price_nanograms_max",
    "device",
    "determinism",
    "abi",
    "module",
    "build",
    "models",
    "limits",
];
const MODULE_FIELDS: &[&str] = &["digest", "size_bytes"];
const BUILD_FIELDS: &[&str] = &[
    "code_digest",
    "rustc",
    "rustc_commit",
    "std_digest",
    "bldarg",
    "bldopt",
    "sdk",
    "bldimg",
    "source_sha256",
    "source_uri",
];
const MODEL_FIELDS: &[&str] = &["digest", "format"];

fn read_job(root: &mut Table<'_>) -> Result<JobDescription, ManifestError> {
    let Some((at, version)) = root.take("version") else {
        return Err(root.missing("version", "version = 1"));
    };
    match integer(&version) {
        Some(1) => {}
        Some(other) => {
            return Err(ManifestError::Version {
                at,
                found: other.to_string(),
            });
        }
        None => return Err(root.wrong_type(at, "version", "the number 1", &version)),
    }
    let Some((at, name)) = root.text("name")? else {
        return Err(root.missing("name", "name = \"my-job\""));
    };
    let name = JobName::new(&name).map_err(|problem| ManifestError::Name {
        at,
        field: root.path("name"),
        problem,
    })?;

    let mut job = JobDescription::new(name);
    job.version = Version::V1;
    if let Some(price) = root.number(
        "price_nanograms_max",
        Unit::Nanograms,
        0,
        Nanograms::MAX.get(),
    )? {
        job.price_nanograms_max = Nanograms::new(price).unwrap_or(Nanograms::MAX);
    }
    if let Some(device) = root.word("device")? {
        job.device = device;
    }
    if let Some(class) = root.word("determinism")? {
        job.determinism = class;
    }
    if let Some(abi) = root.word("abi")? {
        job.abi = abi;
    }
    job.models = read_models(root, job.determinism)?;
    let names: Vec<&'static str> = Limits::FIELDS.iter().map(|field| field.name).collect();
    if let Some(mut limits) = root.table("limits", &names)? {
        for field in &Limits::FIELDS {
            if let Some(value) = limits.number(field.name, field.unit, field.min, field.max)? {
                *(field.get_mut)(&mut job.limits) = value;
            }
        }
    }
    Ok(job)
}

fn read_models(
    root: &mut Table<'_>,
    class: DeterminismRequest,
) -> Result<BTreeMap<ModelName, ModelRef>, ManifestError> {
    let mut models = BTreeMap::new();
    let Some((at, value)) = root.take("models") else {
        return Ok(models);
    };
    let entries = match value {
        DeValue::Table(entries) => entries,
        other => {
            return Err(root.wrong_type(at, "models", "a table [models.<name>] for each", &other));
        }
    };
    if entries.len() > MODELS_MAX {
        let count = entries.len();
        return Err(ManifestError::TooManyModels {
            at,
            count,
            max: MODELS_MAX,
        });
    }
    for (key, value) in entries {
        let at = position(root.text, &key.span());
        let key = key.into_inner();
        let field = format!("models.{key}");
        let name = ModelName::new(&key).map_err(|problem| ManifestError::Name {
            at,
            field: field.clone(),
            problem,
        })?;
        let value = value.into_inner();
        let DeValue::Table(entries) = value else {
            let expected = "a table with digest and format";
            return Err(ManifestError::WrongType {
                at,
                field,
                expected,
                found: kind(&value),
            });
        };
        let mut model = Table::new(root.text, field, at, entries, MODEL_FIELDS)?;
        let digest = model.required_digest()?;
        let format = model
            .word::<ModelFormat>("format")?
            .ok_or_else(|| model.missing("format", "format = \"gguf\""))?;
        if !format.allows(class) {
            let field = model.path("format");
            return Err(ManifestError::NotExact { at, field });
        }
        models.insert(name, ModelRef { digest, format });
    }
    Ok(models)
}
