//! Which metadata and tensors the file of an architecture has.
//! In: a [`RandomModel`]. Out: both in file order. Names and keys are those of llama.cpp's
//! `gguf-py/gguf/constants.py`.

use super::storage::WeightMix;
use super::writer::{Content, Tensor, Value};
use super::{GenerateError, RandomArchitecture, RandomModel, vocabulary};
use crate::quant::QuantType;

/// Gemma 3's own: every sixth layer sees the whole context, the others a window.
const SLIDING_WINDOW: u32 = 512;

/// All metadata, the tokenizer's last.
pub(super) fn metadata(model: &RandomModel) -> Vec<(String, Value)> {
    let shape = &model.shape;
    let architecture = model.architecture.name();
    let text = |text: &str| Value::Text(text.to_owned());
    let mut out = vec![
        ("general.architecture".to_owned(), text(architecture)),
        ("general.type".to_owned(), text("model")),
        ("general.name".to_owned(), text(&model.name)),
        ("general.license".to_owned(), text("cc0-1.0")),
        ("general.quantization_version".to_owned(), Value::U32(2)),
    ];
    let mut set = |key: &str, value: Value| out.push((format!("{architecture}.{key}"), value));
    set("context_length", Value::U32(shape.context_tokens_max));
    set("embedding_length", Value::U32(shape.embedding_length));
    set("block_count", Value::U32(shape.layers));
    set("feed_forward_length", Value::U32(shape.feed_forward_length));
    set("attention.head_count", Value::U32(shape.heads));
    set("attention.head_count_kv", Value::U32(shape.kv_heads));
    set("attention.layer_norm_rms_epsilon", Value::F32(1e-6));
    let base = match model.architecture {
        RandomArchitecture::Llama => 10_000.0,
        _ => 1_000_000.0,
    };
    set("rope.freq_base", Value::F32(base));
    if model.architecture != RandomArchitecture::Qwen2 {
        set("attention.key_length", Value::U32(shape.head_size));
        set("attention.value_length", Value::U32(shape.head_size));
    }
    match model.architecture {
        RandomArchitecture::Llama => set("rope.dimension_count", Value::U32(shape.head_size)),
        RandomArchitecture::Gemma3 => {
            set("attention.sliding_window", Value::U32(SLIDING_WINDOW));
        }
        RandomArchitecture::Qwen2 | RandomArchitecture::Qwen3 => {}
    }
    out.extend(vocabulary::metadata(model.architecture, shape.vocabulary));
    out
}

/// Collects tensors and refuses those whose rows are not whole blocks.
struct List<'a> {
    mix: &'a WeightMix,
    tensors: Vec<Tensor>,
}

impl List<'_> {
    fn matrix(
        &mut self,
        name: String,
        [columns, rows]: [u32; 2],
        weights: QuantType,
    ) -> Result<(), GenerateError> {
        let columns = u64::from(columns);
        let weights = self.mix.fit(weights, columns);
        if !columns.is_multiple_of(weights.block_elements() as u64) {
            return Err(GenerateError::Blocks {
                tensor: name,
                weights,
                columns,
            });
        }
        self.tensors.push(Tensor {
            name,
            dimensions: vec![columns, u64::from(rows)],
            weights,
            content: Content::Matrix,
        });
        Ok(())
    }

    fn vector(&mut self, name: String, length: u32, content: Content) {
        self.tensors.push(Tensor {
            name,
            dimensions: vec![u64::from(length)],
            weights: QuantType::F32,
            content,
        });
    }
}

/// All tensors, checked sizes.
pub(super) fn tensors(model: &RandomModel) -> Result<Vec<Tensor>, GenerateError> {
    model.shape.check(model.architecture)?;
    let shape = &model.shape;
    let table = [shape.embedding_length, shape.vocabulary];
    let mut list = List {
        mix: &model.weights,
        tensors: Vec::new(),
    };
    list.matrix(
        "token_embd.weight".to_owned(),
        table,
        model.weights.embedding,
    )?;
    if !shape.tied_head && model.architecture != RandomArchitecture::Gemma3 {
        list.matrix("output.weight".to_owned(), table, model.weights.head)?;
    }
    list.vector(
        "output_norm.weight".to_owned(),
        shape.embedding_length,
        Content::Norm,
    );
    for index in 0..shape.layers {
        layer(&mut list, model, index)?;
    }
    Ok(list.tensors)
}

fn layer(list: &mut List<'_>, model: &RandomModel, index: u32) -> Result<(), GenerateError> {
    let RandomModel {
        architecture,
        shape,
        weights,
        ..
    } = model;
    let (embedding, feed_forward) = (shape.embedding_length, shape.feed_forward_length);
    let queries = shape.heads * shape.head_size;
    let keys = shape.kv_heads * shape.head_size;
    let more = WeightMix::has_more_bits(index, shape.layers);
    let pick = |usual: QuantType| if more { weights.more_bits } else { usual };
    let name = |part: &str| format!("blk.{index}.{part}");
    list.vector(name("attn_norm.weight"), embedding, Content::Norm);
    list.matrix(
        name("attn_q.weight"),
        [embedding, queries],
        weights.query_key,
    )?;
    list.matrix(name("attn_k.weight"), [embedding, keys], weights.query_key)?;
    list.matrix(
        name("attn_v.weight"),
        [embedding, keys],
        pick(weights.value),
    )?;
    match architecture {
        RandomArchitecture::Qwen2 => {
            for (part, length) in [("attn_q", queries), ("attn_k", keys), ("attn_v", keys)] {
                list.vector(name(&format!("{part}.bias")), length, Content::Bias);
            }
        }
        RandomArchitecture::Gemma3 | RandomArchitecture::Qwen3 => {
            for part in ["attn_q_norm.weight", "attn_k_norm.weight"] {
                list.vector(name(part), shape.head_size, Content::Norm);
            }
        }
        RandomArchitecture::Llama => {}
    }
    list.matrix(
        name("attn_output.weight"),
        [queries, embedding],
        weights.attention_output,
    )?;
    if *architecture == RandomArchitecture::Gemma3 {
        list.vector(name("post_attention_norm.weight"), embedding, Content::Norm);
    }
    list.vector(name("ffn_norm.weight"), embedding, Content::Norm);
    list.matrix(
        name("ffn_gate.weight"),
        [embedding, feed_forward],
        weights.gate_up,
    )?;
    list.matrix(
        name("ffn_up.weight"),
        [embedding, feed_forward],
        weights.gate_up,
    )?;
    list.matrix(
        name("ffn_down.weight"),
        [feed_forward, embedding],
        pick(weights.down),
    )?;
    if *architecture == RandomArchitecture::Gemma3 {
        list.vector(name("post_ffw_norm.weight"), embedding, Content::Norm);
    }
    Ok(())
}
