//! Decoder plans: Llama, Gemma 3, Qwen2 and Qwen3.
//! In: a checked GGUF file. Out: its [`Plan`]. What the plan cannot express, such as experts, soft-capped
//! logits or YaRN, is refused by name. Keys and tensors are named as llama.cpp's `gguf-py` names them.

use crate::gguf::{Gguf, GgufError};

use super::ModelError;
use super::plan::{
    COLUMNS_MAX, CONTEXT_MAX, Gate, HEAD_SIZE_MAX, LAYERS_MAX, Layer, Plan, Rope, RopePairs,
    Tensors,
};

/// Decoders that we have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Architecture {
    Llama,
    Gemma3,
    Qwen2,
    Qwen3,
}

impl Architecture {
    /// As `general.architecture` names them.
    pub(crate) const NAMES: [(&'static str, Self); 4] = [
        ("llama", Self::Llama),
        ("gemma3", Self::Gemma3),
        ("qwen2", Self::Qwen2),
        ("qwen3", Self::Qwen3),
    ];

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        let named = Self::NAMES.into_iter().find(|(known, _)| *known == name);
        named.map(|(_, architecture)| architecture)
    }

    fn has_head_norms(self) -> bool {
        matches!(self, Self::Gemma3 | Self::Qwen3)
    }
}

/// What other models of these names can have and this plan cannot express; 0 means that they do not.
const UNSUPPORTED: [(&str, &str); 9] = [
    ("expert_count", "mixtures of experts are not supported"),
    ("attn_logit_softcapping", "soft-capping is not supported"),
    ("final_logit_softcapping", "soft-capping is not supported"),
    ("attention.clamp_kqv", "clamping is not supported"),
    ("attention.max_alibi_bias", "ALiBi is not supported"),
    ("attention.scale", "it is not supported"),
    ("embedding_scale", "it is not supported"),
    ("residual_scale", "it is not supported"),
    ("logit_scale", "it is not supported"),
];

/// Gemma 3's window slides in five of six layers; the sixth sees everything.
const WINDOW_PERIOD: u32 = 6;
/// The RoPE base of Gemma 3's layers with a window.
const WINDOW_ROPE_BASE: f32 = 10_000.0;
/// Gemma 3 with 27 billion parameters, the only one of so many layers, scales scores by its own rule.
const LAYERS_OF_GEMMA3_27B: usize = 62;

/// The metadata of one architecture.
struct Metadata<'a> {
    gguf: &'a Gguf,
    architecture: &'a str,
}

fn wrong(key: String, value: impl ToString, wanted: impl Into<String>) -> ModelError {
    ModelError::Metadata {
        key,
        value: value.to_string(),
        wanted: wanted.into(),
    }
}

impl Metadata<'_> {
    fn key(&self, rest: &str) -> String {
        format!("{}.{rest}", self.architecture)
    }

    /// A number from 1 to a limit, if the file has it.
    fn number(&self, rest: &str, max: u32) -> Result<Option<usize>, ModelError> {
        match self.gguf.u32(&self.key(rest))? {
            None => Ok(None),
            Some(value) if (1..=max).contains(&value) => Ok(Some(value as usize)),
            Some(value) => Err(wrong(self.key(rest), value, format!("1 to {max}"))),
        }
    }

    fn number_needed(&self, rest: &str, max: u32) -> Result<usize, ModelError> {
        let missing = || GgufError::MissingKey {
            key: self.key(rest),
        };
        Ok(self.number(rest, max)?.ok_or_else(missing)?)
    }

    fn positive(&self, rest: &str, default: Option<f32>) -> Result<f32, ModelError> {
        let missing = || GgufError::MissingKey {
            key: self.key(rest),
        };
        let value = self.gguf.f32(&self.key(rest))?.or(default);
        let value = value.ok_or_else(missing)?;
        if value.is_normal() && value > 0.0 {
            Ok(value)
        } else {
            Err(wrong(self.key(rest), value, "a positive number"))
        }
    }

    /// Refuses a key unless its value says that the model does without.
    fn refuse(&self, rest: &str, reason: &str) -> Result<(), ModelError> {
        match self.gguf.number(&self.key(rest))? {
            None | Some(0.0) => Ok(()),
            Some(value) => Err(wrong(self.key(rest), value, format!("0 or none: {reason}"))),
        }
    }
}

/// The numbers of the plan.
struct Sizes {
    layers: usize,
    embedding: usize,
    feed_forward: usize,
    heads: usize,
    kv_heads: usize,
    head: usize,
    rope: usize,
}

fn sizes(metadata: &Metadata<'_>) -> Result<Sizes, ModelError> {
    let fail =
        |rest: &str, value: usize, wanted: String| Err(wrong(metadata.key(rest), value, wanted));
    let embedding = metadata.number_needed("embedding_length", COLUMNS_MAX)?;
    let heads = metadata.number_needed("attention.head_count", COLUMNS_MAX)?;
    let kv_key = "attention.head_count_kv";
    let kv_heads = metadata.number(kv_key, COLUMNS_MAX)?.unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        return fail(kv_key, kv_heads, format!("a divisor of the {heads} heads"));
    }
    let head = match metadata.number("attention.key_length", HEAD_SIZE_MAX)? {
        Some(length) => length,
        None if embedding.is_multiple_of(heads) && embedding / heads <= HEAD_SIZE_MAX as usize => {
            embedding / heads
        }
        None => {
            let wanted = format!("a divisor of the embedding length {embedding}");
            return fail("attention.head_count", heads, wanted);
        }
    };
    let value_key = "attention.value_length";
    if let Some(length) = metadata.gguf.u32(&metadata.key(value_key))?
        && length as usize != head
    {
        let wanted = format!("{head}, the length of keys");
        return fail(value_key, length as usize, wanted);
    }
    let columns_max = COLUMNS_MAX as usize;
    if heads * head > columns_max {
        let wanted = format!("1 to {}", columns_max / head);
        return fail("attention.head_count", heads, wanted);
    }
    let rope_key = "rope.dimension_count";
    let rope = metadata.gguf.u32(&metadata.key(rope_key))?;
    let rope = rope.map_or(head, |count| count as usize);
    if rope == 0 || rope > head || !rope.is_multiple_of(2) {
        let wanted = format!("an even number up to {head}, the size of a head");
        return fail(rope_key, rope, wanted);
    }
    Ok(Sizes {
        layers: metadata.number_needed("block_count", LAYERS_MAX)?,
        embedding,
        feed_forward: metadata.number_needed("feed_forward_length", COLUMNS_MAX)?,
        heads,
        kv_heads,
        head,
        rope,
    })
}

/// Which layers have a window, and how long it is.
struct Window {
    positions: usize,
    period: usize,
}

fn window(
    metadata: &Metadata<'_>,
    architecture: Architecture,
) -> Result<Option<Window>, ModelError> {
    if architecture != Architecture::Gemma3 {
        metadata.refuse("attention.sliding_window", "this plan has no window")?;
        return Ok(None);
    }
    let period = metadata.number("attention.sliding_window_pattern", LAYERS_MAX)?;
    Ok(Some(Window {
        positions: metadata.number_needed("attention.sliding_window", u32::MAX)?,
        period: period.unwrap_or(WINDOW_PERIOD as usize),
    }))
}

/// What linear scaling of RoPE divides angles by.
fn rope_divisor(metadata: &Metadata<'_>) -> Result<f64, ModelError> {
    let key = metadata.key("rope.scaling.type");
    match metadata.gguf.string(&key)? {
        // Files from before the key had a type were linear.
        None | Some("linear") => {
            let factor = metadata.positive("rope.scaling.factor", Some(1.0))?;
            Ok(f64::from(factor))
        }
        Some("none") => Ok(1.0),
        Some(other) => Err(wrong(key, other, "none or linear")),
    }
}

/// The ropes of a plan: that of layers that see everything, then that of layers with a window.
fn ropes(
    metadata: &Metadata<'_>,
    tensors: &mut Tensors<'_>,
    sizes: &Sizes,
    has_window: bool,
) -> Result<Vec<Rope>, ModelError> {
    let pairs = sizes.rope / 2;
    let scaling = rope_divisor(metadata)?;
    let mut divisors = vec![scaling; pairs];
    // Llama 3's scaling: one divisor a pair.
    let name = "rope_freqs.weight";
    if tensors.has(name) {
        let factors = tensors.vector(name, pairs)?;
        for (pair, (divisor, factor)) in divisors.iter_mut().zip(factors).enumerate() {
            if !(factor.is_normal() && factor > 0.0) {
                let key = format!("{name}[{pair}]");
                return Err(wrong(key, factor, "a positive number"));
            }
            *divisor *= f64::from(factor);
        }
    }
    let mut ropes = vec![Rope {
        base: metadata.positive("rope.freq_base", Some(10_000.0))?,
        divisors,
    }];
    if has_window {
        ropes.push(Rope {
            base: metadata.positive("rope.freq_base_swa", Some(WINDOW_ROPE_BASE))?,
            divisors: vec![1.0; pairs],
        });
    }
    Ok(ropes)
}

/// Reads and checks the plan of a model of one of the architectures.
pub(crate) fn plan(
    gguf: &Gguf,
    architecture: Architecture,
    vocabulary: usize,
) -> Result<Plan, ModelError> {
    let metadata = Metadata {
        gguf,
        architecture: gguf.string_needed("general.architecture")?,
    };
    for (rest, reason) in UNSUPPORTED {
        metadata.refuse(rest, reason)?;
    }
    let causal = metadata.key("attention.causal");
    if gguf.bool(&causal)? == Some(false) {
        return Err(wrong(causal, false, "true: this plan looks back alone"));
    }
    let sizes = sizes(&metadata)?;
    let window = window(&metadata, architecture)?;
    let mut tensors = Tensors::new(gguf);
    let ropes = ropes(&metadata, &mut tensors, &sizes, window.is_some())?;
    let token_embedding = tensors.matrix("token_embd.weight", vocabulary, sizes.embedding)?;
    let head = match tensors.has("output.weight") {
        true => tensors.matrix("output.weight", vocabulary, sizes.embedding)?,
        false => token_embedding.clone(),
    };
    let output_norm = tensors.vector("output_norm.weight", sizes.embedding)?;
    let mut layers = Vec::new();
    for index in 0..sizes.layers {
        let mut layer = layer(&mut tensors, architecture, &sizes, index)?;
        if let Some(window) = &window
            && (index + 1) % window.period != 0
        {
            layer.window = Some(window.positions);
            layer.rope = 1;
        }
        layers.push(layer);
    }
    let gemma = architecture == Architecture::Gemma3;
    let context = metadata.number_needed("context_length", u32::MAX)?;
    let plan = Plan {
        context_tokens_max: u32::try_from(context).unwrap_or(u32::MAX).min(CONTEXT_MAX),
        embedding_length: sizes.embedding,
        feed_forward_length: sizes.feed_forward,
        heads: sizes.heads,
        kv_heads: sizes.kv_heads,
        head_size: sizes.head,
        norm_epsilon: metadata.positive("attention.layer_norm_rms_epsilon", None)?,
        ropes,
        rope_dimensions: sizes.rope,
        rope_pairs: match architecture {
            Architecture::Llama => RopePairs::Adjacent,
            Architecture::Gemma3 | Architecture::Qwen2 | Architecture::Qwen3 => RopePairs::Halves,
        },
        gate: if gemma { Gate::GeluTanh } else { Gate::Silu },
        score_length: match sizes.layers {
            LAYERS_OF_GEMMA3_27B if gemma => sizes.embedding / sizes.heads,
            _ => sizes.head,
        },
        embedding_scale: gemma.then(|| square_root(sizes.embedding)),
        token_embedding,
        layers,
        output_norm,
        head,
    };
    tensors.finish()?;
    Ok(plan)
}

/// √n in f64, rounded once.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the one rounding, to the arithmetic's F"
)]
fn square_root(n: usize) -> f32 {
    libm::sqrt(n as f64) as f32
}

fn layer(
    tensors: &mut Tensors<'_>,
    architecture: Architecture,
    sizes: &Sizes,
    index: usize,
) -> Result<Layer, ModelError> {
    let name = |part: &str| format!("blk.{index}.{part}");
    let (embedding, feed_forward) = (sizes.embedding, sizes.feed_forward);
    let (queries, keys) = (sizes.heads * sizes.head, sizes.kv_heads * sizes.head);
    let gemma = architecture == Architecture::Gemma3;
    let mut optional = |has: bool, part: &str, length: usize| {
        has.then(|| tensors.vector(&name(part), length)).transpose()
    };
    let has_biases = architecture == Architecture::Qwen2;
    let query_bias = optional(has_biases, "attn_q.bias", queries)?;
    let key_bias = optional(has_biases, "attn_k.bias", keys)?;
    let value_bias = optional(has_biases, "attn_v.bias", keys)?;
    let has_norms = architecture.has_head_norms();
    let query_norm = optional(has_norms, "attn_q_norm.weight", sizes.head)?;
    let key_norm = optional(has_norms, "attn_k_norm.weight", sizes.head)?;
    let post_attention_norm = optional(gemma, "post_attention_norm.weight", embedding)?;
    let post_feed_forward_norm = optional(gemma, "post_ffw_norm.weight", embedding)?;
    Ok(Layer {
        attention_norm: tensors.vector(&name("attn_norm.weight"), embedding)?,
        query: tensors.matrix(&name("attn_q.weight"), queries, embedding)?,
        key: tensors.matrix(&name("attn_k.weight"), keys, embedding)?,
        value: tensors.matrix(&name("attn_v.weight"), keys, embedding)?,
        query_bias,
        key_bias,
        value_bias,
        query_norm,
        key_norm,
        attention_output: tensors.matrix(&name("attn_output.weight"), embedding, queries)?,
        post_attention_norm,
        feed_forward_norm: tensors.vector(&name("ffn_norm.weight"), embedding)?,
        gate: tensors.matrix(&name("ffn_gate.weight"), feed_forward, embedding)?,
        up: tensors.matrix(&name("ffn_up.weight"), feed_forward, embedding)?,
        down: tensors.matrix(&name("ffn_down.weight"), embedding, feed_forward)?,
        post_feed_forward_norm,
        rope: 0,
        window: None,
    })
}
