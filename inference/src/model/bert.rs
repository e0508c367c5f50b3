//! The folder of a BERT sentence encoder → its plan.
//! In: a checked archive: configurations, weights and vocabulary, untrusted. Out: the plan and the
//! tokenizer. What the plan cannot express, such as relative positions or another pooling, is refused by name.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::ModelError;
use super::plan::{COLUMNS_MAX, HEAD_SIZE_MAX, LAYERS_MAX, Rows};
use crate::archive::Archive;
use crate::quant::QuantType;
use crate::safetensors::{self, SafeTensor};
use crate::tokenizer::{Casing, Tokenizer, WordPieceSpecials};

/// Rule 11 of the exact arithmetic: sums fit 64 bits up to this many values.
const LENGTH_MAX: usize = 1 << 16;
/// The longest text, in tokens, of a model in the field is 8192.
const TOKENS_MAX: usize = 1 << 14;

/// A matrix in the archive.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    name: String,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    quant: QuantType,
    /// In `model.safetensors`.
    range: Range<usize>,
}

/// A matrix and what is added to its product.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    pub(crate) matrix: Stored,
    pub(crate) bias: Vec<f32>,
}

/// The weights and biases of a LayerNorm.
#[derive(Debug, Clone)]
pub(crate) struct LayerNorm {
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

/// One layer; its norms come after what they norm has been added.
#[derive(Debug, Clone)]
pub(crate) struct EncoderLayer {
    /// Query, key and value.
    pub(crate) heads: [Linear; 3],
    pub(crate) attention_output: Linear,
    pub(crate) attention_norm: LayerNorm,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
    pub(crate) output_norm: LayerNorm,
}

/// How tokens' vectors become the text's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pooling {
    Mean,
    /// The vector of the first token, `[CLS]`.
    First,
}

/// A whole encoder.
#[derive(Debug)]
pub(crate) struct EncoderPlan {
    archive: Arc<Archive>,
    /// With the tokens around a text.
    pub(crate) tokens_max: usize,
    pub(crate) length: usize,
    pub(crate) feed_forward_length: usize,
    pub(crate) heads: usize,
    pub(crate) head_size: usize,
    pub(crate) epsilon: f32,
    pub(crate) pooling: Pooling,
    pub(crate) words: Stored,
    pub(crate) positions: Stored,
    /// The vector of token type 0, which all tokens of a single text have.
    pub(crate) token_type: Vec<f32>,
    pub(crate) norm: LayerNorm,
    pub(crate) layers: Vec<EncoderLayer>,
    pub(crate) parameters: u64,
}

impl EncoderPlan {
    /// A matrix with its bytes.
    pub(crate) fn rows<'a>(&'a self, stored: &'a Stored) -> Rows<'a> {
        let file = self.archive.get("model.safetensors").unwrap_or_default();
        Rows {
            name: &stored.name,
            rows: stored.rows,
            columns: stored.columns,
            quant: stored.quant,
            bytes: &file[stored.range.clone()],
        }
    }

    /// Every matrix that is multiplied with.
    pub(crate) fn matrices(&self) -> impl Iterator<Item = &Stored> {
        let layers = self.layers.iter().flat_map(|layer| {
            let [query, key, value] = &layer.heads;
            let others = [&layer.attention_output, &layer.up, &layer.down];
            [query, key, value].into_iter().chain(others)
        });
        layers.map(|linear| &linear.matrix)
    }

    /// The storage type of the first matrix.
    pub(crate) fn quant(&self) -> QuantType {
        self.words.quant
    }

    /// Multiply-accumulates of a text of so many tokens: n · (all matrices) + 2 · layers · length · n².
    pub(crate) fn units(&self, tokens: u64) -> u64 {
        let matrices = self.matrices().map(|it| it.rows as u64 * it.columns as u64);
        let a_token: u64 = matrices.sum();
        let attention = 2 * (self.layers.len() * self.length) as u64 * tokens;
        tokens.saturating_mul(a_token.saturating_add(attention))
    }
}

#[derive(Deserialize)]
struct Config {
    model_type: String,
    hidden_act: String,
    hidden_size: usize,
    intermediate_size: usize,
    layer_norm_eps: f32,
    max_position_embeddings: usize,
    num_attention_heads: usize,
    num_hidden_layers: usize,
    position_embedding_type: Option<String>,
    type_vocab_size: usize,
    vocab_size: usize,
    #[serde(default)]
    is_decoder: bool,
}

#[derive(Deserialize)]
struct PoolingConfig {
    word_embedding_dimension: Option<usize>,
    #[serde(flatten)]
    others: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct ModuleConfig {
    r#type: String,
}

#[derive(Deserialize, Default)]
struct SentenceConfig {
    max_seq_length: Option<usize>,
    #[serde(default)]
    do_lower_case: bool,
}

#[derive(Deserialize, Default)]
struct TokenizerConfig {
    do_lower_case: Option<bool>,
    strip_accents: Option<bool>,
    tokenize_chinese_chars: Option<bool>,
    unk_token: Option<Special>,
    cls_token: Option<Special>,
    sep_token: Option<Special>,
}

/// A special token: its text, or a record that has it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Special {
    Text(String),
    Record { content: String },
}

fn wrong(file: &'static str, reason: impl Into<String>) -> ModelError {
    let reason = reason.into();
    ModelError::Config { file, reason }
}

/// A JSON file of the archive; `None` if it is not there.
fn json<T: DeserializeOwned>(
    archive: &Archive,
    file: &'static str,
) -> Result<Option<T>, ModelError> {
    let parse =
        |bytes| serde_json::from_slice(bytes).map_err(|error| wrong(file, error.to_string()));
    archive.get(file).map(parse).transpose()
}

fn config(archive: &Archive) -> Result<Config, ModelError> {
    const FILE: &str = "config.json";
    let config: Config = json(archive, FILE)?.ok_or_else(|| wrong(FILE, "is missing"))?;
    if config.model_type != "bert" {
        let architecture = config.model_type;
        return Err(ModelError::UnsupportedArchitecture { architecture });
    }
    let positions = config.position_embedding_type.as_deref();
    for (key, found, wanted) in [
        ("hidden_act", config.hidden_act.as_str(), "gelu"),
        (
            "position_embedding_type",
            positions.unwrap_or("absolute"),
            "absolute",
        ),
    ] {
        if found != wanted {
            let reason = format!("`{key}` is `{found}`, only `{wanted}` is supported");
            return Err(wrong(FILE, reason));
        }
    }
    if config.is_decoder {
        return Err(wrong(
            FILE,
            "`is_decoder` is true, only encoders are supported",
        ));
    }
    for (key, value, max) in [
        ("hidden_size", config.hidden_size, LENGTH_MAX),
        (
            "intermediate_size",
            config.intermediate_size,
            COLUMNS_MAX as usize,
        ),
        (
            "max_position_embeddings",
            config.max_position_embeddings,
            TOKENS_MAX,
        ),
        (
            "num_attention_heads",
            config.num_attention_heads,
            LENGTH_MAX,
        ),
        (
            "num_hidden_layers",
            config.num_hidden_layers,
            LAYERS_MAX as usize,
        ),
        ("type_vocab_size", config.type_vocab_size, LENGTH_MAX),
        (
            "vocab_size",
            config.vocab_size,
            crate::tokenizer::VOCABULARY_MAX,
        ),
    ] {
        if !(1..=max).contains(&value) {
            return Err(wrong(
                FILE,
                format!("`{key}` is {value}, wanted 1 to {max}"),
            ));
        }
    }
    let (length, heads) = (config.hidden_size, config.num_attention_heads);
    if !length.is_multiple_of(heads) || length / heads > HEAD_SIZE_MAX as usize {
        let reason = format!("`hidden_size` {length} does not make {heads} heads");
        return Err(wrong(FILE, reason));
    }
    if !(config.layer_norm_eps.is_normal() && config.layer_norm_eps > 0.0) {
        return Err(wrong(FILE, "`layer_norm_eps` is no positive number"));
    }
    Ok(config)
}

fn pooling(archive: &Archive, length: usize) -> Result<Pooling, ModelError> {
    const FILE: &str = "1_Pooling/config.json";
    let modules: Option<Vec<ModuleConfig>> = json(archive, "modules.json")?;
    for module in modules.iter().flatten() {
        let kind = module.r#type.rsplit('.').next().unwrap_or_default();
        if !["Transformer", "Pooling", "Normalize"].contains(&kind) {
            let reason = format!("the module `{}` is not supported", module.r#type);
            return Err(wrong("modules.json", reason));
        }
    }
    // Without the file, sentence-transformers takes the mean too.
    let Some(config) = json::<PoolingConfig>(archive, FILE)? else {
        return Ok(Pooling::Mean);
    };
    if let Some(found) = config.word_embedding_dimension
        && found != length
    {
        let reason =
            format!("`word_embedding_dimension` is {found}, the model's length is {length}");
        return Err(wrong(FILE, reason));
    }
    let is_on = |(name, value): (String, serde_json::Value)| {
        let is_on = name.starts_with("pooling_mode") && value != serde_json::Value::Bool(false);
        is_on.then_some((name, value))
    };
    let on: Vec<_> = config.others.into_iter().filter_map(is_on).collect();
    match on.as_slice() {
        [(name, _)] if name == "pooling_mode_mean_tokens" => Ok(Pooling::Mean),
        [(name, _)] if name == "pooling_mode_cls_token" => Ok(Pooling::First),
        [(name, value)] if name == "pooling_mode" && value == "mean" => Ok(Pooling::Mean),
        [(name, value)] if name == "pooling_mode" && value == "cls" => Ok(Pooling::First),
        _ => Err(wrong(
            FILE,
            "only the mean of all tokens, or the first one, is supported",
        )),
    }
}

/// The tokenizer, and the most tokens of a text.
fn tokenizer(archive: &Archive, config: &Config) -> Result<(Tokenizer, usize), ModelError> {
    let sentence: SentenceConfig = json(archive, "sentence_bert_config.json")?.unwrap_or_default();
    let options: TokenizerConfig = json(archive, "tokenizer_config.json")?.unwrap_or_default();
    let positions = config.max_position_embeddings;
    let tokens_max = sentence.max_seq_length.unwrap_or(positions);
    if !(2..=positions).contains(&tokens_max) {
        let reason = format!("`max_seq_length` is {tokens_max}, wanted 2 to {positions}");
        return Err(wrong("sentence_bert_config.json", reason));
    }
    let lower_case = options.do_lower_case.unwrap_or(true) || sentence.do_lower_case;
    let casing = Casing {
        lower_case,
        strip_accents: options.strip_accents.unwrap_or(lower_case),
        split_ideographs: options.tokenize_chinese_chars.unwrap_or(true),
    };
    let text = |special: Option<Special>, default: String| match special {
        Some(Special::Text(content) | Special::Record { content }) => content,
        None => default,
    };
    let default = WordPieceSpecials::default();
    let specials = WordPieceSpecials {
        unknown: text(options.unk_token, default.unknown),
        first: text(options.cls_token, default.first),
        last: text(options.sep_token, default.last),
    };
    let lines = archive.get("vocab.txt").unwrap_or_default();
    let tokenizer = Tokenizer::from_vocab_txt(lines, casing, &specials)?;
    if tokenizer.len() > config.vocab_size {
        let (lines, size) = (tokenizer.len(), config.vocab_size);
        let reason = format!("`vocab_size` is {size}, `vocab.txt` has {lines} lines");
        return Err(wrong("config.json", reason));
    }
    Ok((tokenizer, tokens_max))
}

/// Takes tensors out of the file by name and shape.
struct Tensors<'a> {
    file: &'a [u8],
    tensors: BTreeMap<String, SafeTensor<'a>>,
    /// `bert.` where the file is that of a larger model.
    prefix: &'static str,
    parameters: u64,
}

impl<'a> Tensors<'a> {
    fn new(file: &'a [u8]) -> Result<Self, ModelError> {
        let tensors = safetensors::parse(file)?;
        let is_prefixed = tensors.contains_key("bert.embeddings.word_embeddings.weight");
        Ok(Self {
            file,
            tensors,
            prefix: if is_prefixed { "bert." } else { "" },
            parameters: 0,
        })
    }

    fn take(
        &mut self,
        name: &str,
        shape: &[usize],
    ) -> Result<(String, QuantType, &'a [u8]), ModelError> {
        let name = format!("{}{name}", self.prefix);
        let tensor = self.tensors.remove(&name);
        let tensor =
            tensor.ok_or_else(|| wrong("model.safetensors", format!("has no tensor `{name}`")))?;
        let wanted: Vec<u64> = shape.iter().map(|size| *size as u64).collect();
        if tensor.shape != wanted {
            let reversed = |sizes: &[u64]| sizes.iter().rev().copied().collect();
            return Err(ModelError::Shape {
                tensor: name,
                found: reversed(&tensor.shape),
                wanted: reversed(&wanted),
            });
        }
        let quant = tensor.quant.ok_or_else(|| {
            let reason = format!(
                "tensor `{name}` is {}, wanted F32, F16 or BF16",
                tensor.dtype
            );
            wrong("model.safetensors", reason)
        })?;
        if let Some(value) = quant.first_nonfinite_block(tensor.bytes) {
            let row = value / shape.last().copied().unwrap_or(1).max(1);
            return Err(ModelError::NotFinite { tensor: name, row });
        }
        self.parameters += wanted.iter().product::<u64>();
        Ok((name, quant, tensor.bytes))
    }

    fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<Stored, ModelError> {
        let (name, quant, bytes) = self.take(&format!("{name}.weight"), &[rows, columns])?;
        let from = bytes.as_ptr().addr() - self.file.as_ptr().addr();
        Ok(Stored {
            name,
            rows,
            columns,
            quant,
            range: from..from + bytes.len(),
        })
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>, ModelError> {
        let (_, quant, bytes) = self.take(name, &[length])?;
        let mut values = vec![0.0; length];
        quant.dequantize(bytes, &mut values);
        Ok(values)
    }

    fn linear(&mut self, name: &str, rows: usize, columns: usize) -> Result<Linear, ModelError> {
        Ok(Linear {
            matrix: self.matrix(name, rows, columns)?,
            bias: self.vector(&format!("{name}.bias"), rows)?,
        })
    }

    fn norm(&mut self, name: &str, length: usize) -> Result<LayerNorm, ModelError> {
        Ok(LayerNorm {
            weight: self.vector(&format!("{name}.weight"), length)?,
            bias: self.vector(&format!("{name}.bias"), length)?,
        })
    }

    fn layer(&mut self, index: usize, config: &Config) -> Result<EncoderLayer, ModelError> {
        let (length, inner) = (config.hidden_size, config.intermediate_size);
        let name = |part: &str| format!("encoder.layer.{index}.{part}");
        Ok(EncoderLayer {
            heads: [
                self.linear(&name("attention.self.query"), length, length)?,
                self.linear(&name("attention.self.key"), length, length)?,
                self.linear(&name("attention.self.value"), length, length)?,
            ],
            attention_output: self.linear(&name("attention.output.dense"), length, length)?,
            attention_norm: self.norm(&name("attention.output.LayerNorm"), length)?,
            up: self.linear(&name("intermediate.dense"), inner, length)?,
            down: self.linear(&name("output.dense"), length, inner)?,
            output_norm: self.norm(&name("output.LayerNorm"), length)?,
        })
    }

    /// What is left must be what a sentence's vector does not need.
    fn finish(self) -> Result<u64, ModelError> {
        let is_unused = |name: &str| {
            let plain = name.strip_prefix(self.prefix).unwrap_or(name);
            plain == "embeddings.position_ids"
                || plain.starts_with("pooler.")
                || name.starts_with("cls.")
        };
        match self.tensors.into_keys().find(|name| !is_unused(name)) {
            None => Ok(self.parameters),
            Some(tensor) => Err(ModelError::UnknownTensor { tensor }),
        }
    }
}

/// Reads and checks the plan and the tokenizer of a model folder.
pub(crate) fn plan(archive: &Arc<Archive>) -> Result<(EncoderPlan, Tokenizer), ModelError> {
    let config = config(archive)?;
    let (length, heads) = (config.hidden_size, config.num_attention_heads);
    let pooling = pooling(archive, length)?;
    let (tokenizer, tokens_max) = tokenizer(archive, &config)?;
    let file = archive.get("model.safetensors").unwrap_or_default();
    let mut tensors = Tensors::new(file)?;
    let part = |part: &str| format!("embeddings.{part}");
    let words = tensors.matrix(&part("word_embeddings"), config.vocab_size, length)?;
    let rows = config.max_position_embeddings;
    let positions = tensors.matrix(&part("position_embeddings"), rows, length)?;
    let types = tensors.matrix(
        &part("token_type_embeddings"),
        config.type_vocab_size,
        length,
    )?;
    let norm = tensors.norm(&part("LayerNorm"), length)?;
    let layers: Result<Vec<_>, _> = (0..config.num_hidden_layers)
        .map(|index| tensors.layer(index, &config))
        .collect();
    let mut plan = EncoderPlan {
        archive: Arc::clone(archive),
        tokens_max,
        length,
        feed_forward_length: config.intermediate_size,
        heads,
        head_size: length / heads,
        epsilon: config.layer_norm_eps,
        pooling,
        words,
        positions,
        token_type: vec![0.0; length],
        norm,
        layers: layers?,
        parameters: tensors.finish()?,
    };
    let mut first = vec![0.0; length];
    let types = plan.rows(&types);
    types.quant.dequantize(types.row(0), &mut first);
    plan.token_type = first;
    Ok((plan, tokenizer))
}
