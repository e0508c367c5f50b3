//! `tussah model random`: a model file with random weights, of any size.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use clap::{Args, ValueEnum};
use serde::Serialize;
use tussah_inference::QuantType;
use tussah_inference::generate::{
    GenerateError, RandomArchitecture, RandomModel, RandomShape, WeightMix,
};
use tussah_manifest::{Hasher, ModelName};

use super::{Store, model_name};
use crate::{
    exit_code::Exit,
    failure::{Failure, file_failure},
    interrupt::Interrupt,
    models::ModelRecord,
    partial::Partial,
    ui::{self, Ui},
};

const EXAMPLES: &str = "\
Examples:
  tussah model random tiny --parameters 1M
  tussah model random big --architecture qwen3 --parameters 1.7B --quant Q4_K_M
  tussah model random odd --layers 3 --embedding 512 --heads 8 --kv-heads 2 --quant Q8_0
  tussah model random --out random.gguf --parameters 8B --seed 7

Such a model writes noise at the speed, and with the memory, of a real one of its sizes. The
same options give the same bytes everywhere. With a NAME it goes to the store, and jobs use
it by the digest printed; with --out it is a file.";

/// Make a model of random weights, to test speed and memory without a download.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The name in the store.
    #[arg(value_parser = model_name, required_unless_present = "out", conflicts_with = "out")]
    name: Option<ModelName>,
    /// A file to write, in place of the store.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The plan that its layers follow.
    #[arg(long, value_enum, default_value_t)]
    architecture: Architecture,
    /// About so many weights, such as 500K, 135M or 1.5B; the other sizes follow from it.
    #[arg(long, value_name = "N", value_parser = parameters, default_value = "1M")]
    parameters: u64,
    /// The storage type of weights, or a mix of them: F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0
    /// Q4_K Q5_K Q6_K, Q4_K_S Q4_K_M Q5_K_S Q5_K_M.
    #[arg(long, value_name = "TYPE", value_parser = mix, default_value = "Q4_0")]
    quant: Mix,
    /// Which weights.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    sizes: Sizes,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// Each stands in place of what `--parameters` gives.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sizes, each in place of what follows from --parameters")]
struct Sizes {
    /// Transformer layers.
    #[arg(long, value_name = "N")]
    layers: Option<u32>,
    /// Length of a token's vector.
    #[arg(long, value_name = "N")]
    embedding: Option<u32>,
    /// Length of the feed-forward part's vectors.
    #[arg(long, value_name = "N")]
    feed_forward: Option<u32>,
    /// Query heads.
    #[arg(long, value_name = "N")]
    heads: Option<u32>,
    /// Key and value heads; divides the heads.
    #[arg(long, value_name = "N")]
    kv_heads: Option<u32>,
    /// Length of a head's vectors.
    #[arg(long, value_name = "N")]
    head_size: Option<u32>,
    /// Tokens in the vocabulary.
    #[arg(long, value_name = "N")]
    vocabulary: Option<u32>,
    /// The longest sequence, in tokens.
    #[arg(long, value_name = "N")]
    context: Option<u32>,
    /// Whether the head is the embedding's matrix.
    #[arg(long, value_name = "BOOL")]
    tied_head: Option<bool>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Architecture {
    #[default]
    Llama,
    Gemma3,
    Qwen2,
    Qwen3,
}

impl From<Architecture> for RandomArchitecture {
    fn from(architecture: Architecture) -> Self {
        match architecture {
            Architecture::Llama => Self::Llama,
            Architecture::Gemma3 => Self::Gemma3,
            Architecture::Qwen2 => Self::Qwen2,
            Architecture::Qwen3 => Self::Qwen3,
        }
    }
}

/// A mix and the name it was given by.
#[derive(Clone, Debug)]
struct Mix(String, WeightMix);

#[derive(Serialize)]
struct View<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a Path>,
    digest: String,
    size_bytes: u64,
    parameters: u64,
    layers: u32,
    embedding_length: u32,
    feed_forward_length: u32,
    heads: u32,
    kv_heads: u32,
    head_size: u32,
    vocabulary_size: u32,
    context_tokens_max: u32,
}

impl From<GenerateError> for Failure {
    fn from(error: GenerateError) -> Self {
        match error {
            GenerateError::Io(source) => Self::host(source),
            other => Self::usage(other).help("`tussah model random --help` explains the sizes"),
        }
    }
}

impl Arguments {
    pub(super) fn run(self, store: &Store, ui: &Ui) -> Result<Exit, Failure> {
        let interrupt = Interrupt::install()?;
        let model = self.model()?;
        let measured = model.measure()?;
        let started = Instant::now();
        let digest = match (&self.name, &self.out) {
            (Some(name), _) => self.to_store(store, name, &model, &interrupt, ui)?,
            (None, Some(path)) => to_file(path, &model, &interrupt, ui)?,
            // clap asks for one of the two.
            (None, None) => return Err(Failure::usage("NAME or --out is missing")),
        };
        let took = started.elapsed();
        let shape = &model.shape;
        let view = View {
            name: self.name.as_ref().map(ModelName::as_str),
            path: self.out.as_deref(),
            digest,
            size_bytes: measured.file_bytes,
            parameters: measured.parameters,
            layers: shape.layers,
            embedding_length: shape.embedding_length,
            feed_forward_length: shape.feed_forward_length,
            heads: shape.heads,
            kv_heads: shape.kv_heads,
            head_size: shape.head_size,
            vocabulary_size: shape.vocabulary,
            context_tokens_max: shape.context_tokens_max,
        };
        if ui.json() {
            ui.document(&view)?;
            return Ok(Exit::DONE);
        }
        let place = match (&self.name, &self.out) {
            (Some(name), _) => name.to_string(),
            (None, Some(path)) => path.display().to_string(),
            (None, None) => String::new(),
        };
        let size = ui::size(view.size_bytes);
        ui.line(&format!("{place}  {}  {size}", view.digest))?;
        ui.note(&format!(
            "{} parameters: {} layers of {} columns, {} heads ({} of keys) of {}, feed-forward {}, \
             vocabulary {}, context {}; made in {}",
            ui::count(view.parameters),
            view.layers,
            view.embedding_length,
            view.heads,
            view.kv_heads,
            view.head_size,
            view.feed_forward_length,
            ui::count(u64::from(view.vocabulary_size)),
            ui::count(u64::from(view.context_tokens_max)),
            ui::duration(took),
        ));
        Ok(Exit::DONE)
    }

    fn model(&self) -> Result<RandomModel, Failure> {
        let architecture = self.architecture.into();
        let found = RandomShape::for_parameters(architecture, self.parameters)?;
        let sizes = &self.sizes;
        let embedding_length = sizes.embedding.unwrap_or(found.embedding_length);
        let heads = sizes.heads.unwrap_or(found.heads);
        // Of a head's size and number, the one that was not given follows from the other.
        let head_size = match (sizes.head_size, sizes.heads) {
            (Some(size), _) => size,
            (None, Some(heads)) => embedding_length.checked_div(heads).unwrap_or(0),
            (None, None) => found.head_size,
        };
        let heads = match (sizes.heads, sizes.embedding) {
            (None, Some(width)) => (width / head_size.max(1)).max(1),
            _ => heads,
        };
        let kv_heads = sizes.kv_heads.unwrap_or_else(|| {
            if heads.is_multiple_of(found.kv_heads) {
                found.kv_heads
            } else {
                1
            }
        });
        let shape = RandomShape {
            vocabulary: sizes.vocabulary.unwrap_or(found.vocabulary),
            layers: sizes.layers.unwrap_or(found.layers),
            embedding_length,
            feed_forward_length: sizes.feed_forward.unwrap_or(found.feed_forward_length),
            heads,
            kv_heads,
            head_size,
            context_tokens_max: sizes.context.unwrap_or(found.context_tokens_max),
            tied_head: sizes.tied_head.unwrap_or(found.tied_head),
        };
        Ok(RandomModel {
            name: format!("random {} {}", architecture.name(), self.quant.0),
            architecture,
            shape,
            weights: self.quant.1,
            seed: self.seed,
        })
    }

    fn to_store(
        &self,
        store: &Store,
        name: &ModelName,
        model: &RandomModel,
        interrupt: &Interrupt,
        ui: &Ui,
    ) -> Result<String, Failure> {
        let size = model.measure()?.file_bytes;
        let partial = Partial::fresh(&store.home, size)?;
        write(model, &mut BufWriter::new(partial.file()), interrupt, ui)?;
        let added = partial.into_store(&store.blobs, interrupt, ui, |added, path| {
            store.models.check_free(name, &added.digest)?;
            crate::engine::inspect(path)?;
            Ok(())
        })?;
        let record = ModelRecord {
            digest: added.digest,
            format: "gguf".to_owned(),
            chat: Some(true),
            size_bytes: added.size_bytes,
            sha256: added.sha256,
            source: Some(format!("random weights, seed {}", self.seed)),
            added_from: model.name.clone(),
        };
        store.models.put(name, &record)?;
        Ok(record.digest.to_string())
    }
}

fn to_file(
    path: &Path,
    model: &RandomModel,
    interrupt: &Interrupt,
    ui: &Ui,
) -> Result<String, Failure> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let failed = |error| file_failure("write", path, error);
    let file = tempfile::Builder::new()
        .prefix(".tussah-")
        .tempfile_in(folder.unwrap_or(Path::new(".")))
        .map_err(failed)?;
    let mut out = Hashed {
        out: file.as_file(),
        hasher: Hasher::new(),
    };
    write(model, &mut out, interrupt, ui)?;
    let digest = out.hasher.finish();
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(digest.to_string())
}

/// Hashes what goes through.
struct Hashed<'a> {
    out: &'a File,
    hasher: Hasher,
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn write(
    model: &RandomModel,
    out: &mut dyn Write,
    interrupt: &Interrupt,
    ui: &Ui,
) -> Result<(), Failure> {
    let bar = ui.bytes_bar("making", model.measure()?.file_bytes);
    let written = model.write(out, &mut |progress| {
        bar.set(progress.done_bytes);
        if interrupt.requested() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok(())
    });
    match written {
        Err(_) if interrupt.requested() => Err(Failure::interrupted()),
        other => Ok(other.map(|_| ())?),
    }
}

/// `1M` and the like: a number, and K, M, B or T for its thousands.
fn parameters(text: &str) -> Result<u64, String> {
    let wanted = || "wanted a number such as 500K, 135M or 1.5B".to_owned();
    let (digits, unit) = match text.char_indices().next_back() {
        Some((at, letter)) if letter.is_ascii_alphabetic() => {
            let unit = match letter.to_ascii_uppercase() {
                'K' => 1_000,
                'M' => 1_000_000,
                'B' => 1_000_000_000,
                'T' => 1_000_000_000_000,
                _ => return Err(wanted()),
            };
            (&text[..at], unit)
        }
        _ => (text, 1u64),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let number = |digits: &str| digits.parse::<u64>().map_err(|_| wanted());
    if part.len() > 9 || (part.is_empty() && digits.contains('.')) {
        return Err(wanted());
    }
    let whole = number(whole)?.checked_mul(unit).ok_or_else(wanted)?;
    let part = match part {
        "" => 0,
        part => number(part)? * unit / 10u64.pow(u32::try_from(part.len()).unwrap_or(9)),
    };
    whole.checked_add(part).ok_or_else(wanted)
}

fn mix(text: &str) -> Result<Mix, String> {
    let found = WeightMix::from_name(text);
    found
        .map(|mix| Mix(text.to_ascii_uppercase(), mix))
        .ok_or_else(|| {
            let types = QuantType::ALL.map(QuantType::name).join(" ");
            format!("wanted one of {types} {}", WeightMix::PRESETS.join(" "))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_parameters() {
        for (text, expected) in [
            ("1M", 1_000_000),
            ("1.5B", 1_500_000_000),
            ("135m", 135_000_000),
            ("500000", 500_000),
            ("0.5K", 500),
        ] {
            assert_eq!(parameters(text), Ok(expected), "{text}");
        }
        for bad in [
            "",
            "M",
            "1X",
            "-1M",
            "1.M",
            ".5M",
            "1.5.5M",
            "99999999T",
            "1,5B",
            "é",
        ] {
            parameters(bad).unwrap_err();
        }
    }
}
