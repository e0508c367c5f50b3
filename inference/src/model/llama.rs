//! The Llama plan: SmolLM2, Llama 2 and 3, TinyLlama and others of that shape.
//! In: a checked GGUF file. Out: its [`Plan`]. What the plan cannot express, such as biases or
//! scaled RoPE, is refused by name.

use crate::gguf::{Gguf, GgufError};

use super::ModelError;
use super::plan::{
    COLUMNS_MAX, CONTEXT_MAX, Gate, HEAD_SIZE_MAX, LAYERS_MAX, Layer, Plan, RopePairs, Tensors,
};

/// A positive number from the metadata with an upper limit.
fn size(gguf: &Gguf, key: &str, max: u32) -> Result<usize, ModelError> {
    in_range(key, gguf.u32_needed(key)?, max)
}

fn in_range(key: &str, value: u32, max: u32) -> Result<usize, ModelError> {
    if (1..=max).contains(&value) {
        return Ok(value as usize);
    }
    let wanted = format!("1 to {max}");
    Err(ModelError::Metadata {
        key: key.to_owned(),
        value: value.to_string(),
        wanted,
    })
}

fn positive(gguf: &Gguf, key: &str, default: Option<f32>) -> Result<f32, ModelError> {
    let missing = || GgufError::MissingKey {
        key: key.to_owned(),
    };
    let value = gguf.f32(key)?.or(default).ok_or_else(missing)?;
    if value.is_normal() && value > 0.0 {
        return Ok(value);
    }
    let wanted = "a positive number".to_owned();
    Err(ModelError::Metadata {
        key: key.to_owned(),
        value: value.to_string(),
        wanted,
    })
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

fn sizes(gguf: &Gguf) -> Result<Sizes, ModelError> {
    let wrong = |key: &str, value: usize, wanted: String| {
        Err(ModelError::Metadata {
            key: key.to_owned(),
            value: value.to_string(),
            wanted,
        })
    };
    let embedding = size(gguf, "llama.embedding_length", COLUMNS_MAX)?;
    let heads = size(gguf, "llama.attention.head_count", COLUMNS_MAX)?;
    let kv_key = "llama.attention.head_count_kv";
    let kv_heads = match gguf.u32(kv_key)? {
        Some(count) => in_range(kv_key, count, COLUMNS_MAX)?,
        None => heads,
    };
    if !heads.is_multiple_of(kv_heads) {
        return wrong(kv_key, kv_heads, format!("a divisor of the {heads} heads"));
    }
    let head_key = "llama.attention.key_length";
    let head = match gguf.u32(head_key)? {
        Some(length) => in_range(head_key, length, HEAD_SIZE_MAX)?,
        None if embedding.is_multiple_of(heads) && embedding / heads <= HEAD_SIZE_MAX as usize => {
            embedding / heads
        }
        None => {
            let wanted = format!("a divisor of the embedding length {embedding}");
            return wrong("llama.attention.head_count", heads, wanted);
        }
    };
    if let Some(length) = gguf.u32("llama.attention.value_length")?
        && length as usize != head
    {
        let key = "llama.attention.value_length";
        return wrong(key, length as usize, format!("{head}, the length of keys"));
    }
    let columns_max = COLUMNS_MAX as usize;
    if heads * head > columns_max {
        return wrong(
            "llama.attention.head_count",
            heads,
            format!("{}", columns_max / head),
        );
    }
    let rope_key = "llama.rope.dimension_count";
    let rope = gguf.u32(rope_key)?.map_or(head, |count| count as usize);
    if rope == 0 || rope > head || !rope.is_multiple_of(2) {
        return wrong(
            rope_key,
            rope,
            format!("an even number up to {head}, the size of a head"),
        );
    }
    Ok(Sizes {
        layers: size(gguf, "llama.block_count", LAYERS_MAX)?,
        embedding,
        feed_forward: size(gguf, "llama.feed_forward_length", COLUMNS_MAX)?,
        heads,
        kv_heads,
        head,
        rope,
    })
}

/// Reads and checks the plan of a model whose architecture is `llama`.
pub(crate) fn plan(gguf: &Gguf, vocabulary: usize) -> Result<Plan, ModelError> {
    let scaling = gguf.string("llama.rope.scaling.type")?.unwrap_or("none");
    if scaling != "none" {
        let key = "llama.rope.scaling.type".to_owned();
        let wanted = "none".to_owned();
        return Err(ModelError::Metadata {
            key,
            value: scaling.to_owned(),
            wanted,
        });
    }
    let sizes = sizes(gguf)?;
    let mut tensors = Tensors::new(gguf);
    let token_embedding = tensors.matrix("token_embd.weight", vocabulary, sizes.embedding)?;
    let head = match tensors.has("output.weight") {
        true => tensors.matrix("output.weight", vocabulary, sizes.embedding)?,
        false => token_embedding.clone(),
    };
    let output_norm = tensors.vector("output_norm.weight", sizes.embedding)?;
    let layers: Result<Vec<Layer>, ModelError> = (0..sizes.layers)
        .map(|index| layer(&mut tensors, &sizes, index))
        .collect();
    let plan = Plan {
        context_tokens_max: {
            let key = "llama.context_length";
            u32::try_from(size(gguf, key, u32::MAX)?)
                .unwrap_or(u32::MAX)
                .min(CONTEXT_MAX)
        },
        embedding_length: sizes.embedding,
        feed_forward_length: sizes.feed_forward,
        heads: sizes.heads,
        kv_heads: sizes.kv_heads,
        head_size: sizes.head,
        norm_epsilon: positive(gguf, "llama.attention.layer_norm_rms_epsilon", None)?,
        rope_base: positive(gguf, "llama.rope.freq_base", Some(10_000.0))?,
        rope_dimensions: sizes.rope,
        rope_pairs: RopePairs::Adjacent,
        gate: Gate::Silu,
        token_embedding,
        layers: layers?,
        output_norm,
        head,
    };
    tensors.finish()?;
    Ok(plan)
}

fn layer(tensors: &mut Tensors<'_>, sizes: &Sizes, index: usize) -> Result<Layer, ModelError> {
    let name = |part: &str| format!("blk.{index}.{part}.weight");
    let (embedding, feed_forward) = (sizes.embedding, sizes.feed_forward);
    let (queries, keys) = (sizes.heads * sizes.head, sizes.kv_heads * sizes.head);
    Ok(Layer {
        attention_norm: tensors.vector(&name("attn_norm"), embedding)?,
        query: tensors.matrix(&name("attn_q"), queries, embedding)?,
        key: tensors.matrix(&name("attn_k"), keys, embedding)?,
        value: tensors.matrix(&name("attn_v"), keys, embedding)?,
        attention_output: tensors.matrix(&name("attn_output"), embedding, queries)?,
        feed_forward_norm: tensors.vector(&name("ffn_norm"), embedding)?,
        gate: tensors.matrix(&name("ffn_gate"), feed_forward, embedding)?,
        up: tensors.matrix(&name("ffn_up"), feed_forward, embedding)?,
        down: tensors.matrix(&name("ffn_down"), embedding, feed_forward)?,
    })
}
