//! From a file that is whole to a model with a name: what `add` and `pull` have in common.
//!
//! In: a file, and what it must be. Out: a blob and a record. Digests are compared before anything
//! looks inside, and a file that is refused leaves nothing.

use std::{io::Read, path::Path};

use tussah_inference::{OnnxFile, archive::Archive};
use tussah_manifest::{ModelFormat, ModelName};

use super::Store;
use crate::{
    blobs::{Added, Blobs},
    engine::{self, Inspected},
    failure::Failure,
    interrupt::Interrupt,
    models::ModelRecord,
    pull::{Content, Context, Fetched, Pins},
    ui::Ui,
};

/// More than the largest models have; a larger file is a mistake.
const MODEL_BYTES_MAX: u64 = 2 << 40;

/// Refuses a file that is not the one its user means.
///
/// # Errors
/// Exit code 3, with both digests.
pub(super) fn check_pins(added: &Added, pins: &Pins, what: &str) -> Result<(), Failure> {
    let refuse = |kind: &str, found: &str, expected: &str| {
        Err(
            Failure::not_verified(format!("{what} has the {kind} {found}, not {expected}"))
                .help("fetch it again, from where the digest is from; nothing was kept"),
        )
    };
    match (&pins.digest, &pins.sha256) {
        (Some(expected), _) if *expected != added.digest => {
            refuse("digest", &added.digest.to_string(), &expected.to_string())
        }
        (_, Some(expected)) if *expected != added.sha256 => {
            refuse("SHA-256", &added.sha256, expected)
        }
        _ => Ok(()),
    }
}

/// Puts a file into the store under a name, if digests and engine take it.
///
/// # Errors
/// Whatever is wrong with the file, the name or the disk.
pub(super) fn take(
    store: &Store,
    name: &ModelName,
    fetched: Fetched,
    pins: &Pins,
    context: Context<'_>,
) -> Result<ModelRecord, Failure> {
    let Fetched {
        content,
        label,
        source,
        file_name,
        sha256,
    } = fetched;
    let stated = Pins {
        digest: None,
        sha256,
    };
    let accept = |added: &Added| -> Result<(), Failure> {
        check_pins(added, pins, &label)?;
        check_pins(added, &stated, &label)?;
        Ok(store.models.check_free(name, &added.digest)?)
    };
    let Context { interrupt, ui, .. } = context;
    let mut chat = None;
    let check = |added: &Added, file: &Path| {
        accept(added)?;
        chat = Some(look_inside(file, &label)?);
        Ok(())
    };
    let added = match content {
        Content::File(file) => copy(&store.blobs, &file, interrupt, ui, check)?,
        Content::Partial(partial) => partial.into_store(&store.blobs, interrupt, ui, check)?,
    };
    let record = ModelRecord {
        digest: added.digest,
        format: format_of(&store.blobs.path(&added.digest))?
            .name()
            .to_owned(),
        chat,
        size_bytes: added.size_bytes,
        sha256: added.sha256,
        source,
        added_from: file_name,
    };
    store.models.put(name, &record)?;
    Ok(record)
}

/// The format of a model in the store, by its first bytes.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn format_of(blob: &Path) -> Result<ModelFormat, Failure> {
    let mut first = Vec::new();
    std::fs::File::open(blob)
        .and_then(|file| file.take(512).read_to_end(&mut first))
        .map_err(Failure::host)?;
    Ok(if Archive::is_archive(&first) {
        ModelFormat::Safetensors
    } else if OnnxFile::may_be(&first) {
        // No other file of the store begins so.
        ModelFormat::Onnx
    } else {
        ModelFormat::Gguf
    })
}

/// Copies a model file into the store; it is kept only if `accept` and the engine take it.
///
/// # Errors
/// Whatever is wrong with the file or the disk.
pub(crate) fn import(
    blobs: &Blobs,
    file: &Path,
    interrupt: &Interrupt,
    ui: &Ui,
    accept: impl FnOnce(&Added) -> Result<(), Failure>,
) -> Result<Added, Failure> {
    let label = file.display().to_string();
    copy(blobs, file, interrupt, ui, |added, copy| {
        accept(added)?;
        look_inside(copy, &label).map(|_| ())
    })
}

fn copy(
    blobs: &Blobs,
    file: &Path,
    interrupt: &Interrupt,
    ui: &Ui,
    check: impl FnOnce(&Added, &Path) -> Result<(), Failure>,
) -> Result<Added, Failure> {
    let size = std::fs::metadata(file).map_or(0, |metadata| metadata.len());
    let bar = ui.bytes_bar("copying", size);
    let mut progress = |read| bar.add(read);
    blobs.put_file(file, MODEL_BYTES_MAX, interrupt, &mut progress, check)
}

/// Refuses what is no model; whether it takes chats.
fn look_inside(file: &Path, label: &str) -> Result<bool, Failure> {
    match engine::inspect_any(file) {
        Ok(Inspected::Text(model)) => Ok(model.info().has_chat_template),
        Ok(Inspected::Graph(_)) => Ok(false),
        Err(error) => Err(Failure::from(error).context(format!("{label} was not added"))),
    }
}

/// The record of a model in the store that is the one meant, its file hashed again.
///
/// # Errors
/// The store's; a file that is damaged counts as not there.
pub(super) fn present(
    store: &Store,
    pins: &Pins,
    interrupt: &Interrupt,
    ui: &Ui,
) -> Result<Option<ModelRecord>, Failure> {
    if !pins.any() {
        return Ok(None);
    }
    let fits = |record: &ModelRecord| {
        pins.digest.is_none_or(|digest| digest == record.digest)
            && pins
                .sha256
                .as_ref()
                .is_none_or(|sha256| *sha256 == record.sha256)
    };
    let records = store.models.list()?.into_iter().map(|(_, record)| record);
    let Some(record) = records.into_iter().find(fits) else {
        return Ok(None);
    };
    let bar = ui.bytes_bar("checking", record.size_bytes);
    let whole = store
        .blobs
        .verify(&record.digest, &mut |read| bar.add(read));
    if interrupt.requested() {
        return Err(Failure::interrupted());
    }
    Ok(whole.is_ok().then_some(record))
}

/// Gives a model of the store another name, or the one it has.
///
/// # Errors
/// The name has another model.
pub(super) fn name_again(
    store: &Store,
    name: &ModelName,
    record: ModelRecord,
) -> Result<ModelRecord, Failure> {
    store.models.put(name, &record)?;
    Ok(record)
}

/// The model's block for a job's `tussah.toml`.
pub(super) fn block(name: &str, record: &ModelRecord) -> String {
    // A dot in a name would be a path of tables.
    let key = if name.contains('.') {
        format!("\"{name}\"")
    } else {
        name.to_owned()
    };
    let ModelRecord { digest, format, .. } = record;
    format!("[models.{key}]\ndigest = \"{digest}\"\nformat = \"{format}\"")
}
