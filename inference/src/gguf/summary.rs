//! What a file's header says of the model, for people to read.
//! In: a checked header. Out: licence, tokenizer, chat template, and how the weights are stored.
//! It decides nothing: what runs is decided by the plan.

use std::collections::BTreeMap;

use super::{Gguf, GgufError};
use crate::quant::QuantType;

/// Tensors of one storage type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageShare {
    /// The type.
    pub quant: QuantType,
    /// How many tensors have it.
    pub tensors: u64,
    /// Their weights.
    pub parameters: u64,
    /// Their bytes in the file.
    pub bytes: u64,
}

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufSummary {
    /// `general.license`, as the file's maker states it.
    pub license: Option<String>,
    /// The kind of tokenizer, `tokenizer.ggml.model`: `gpt2` is byte-level BPE, `llama` SPM.
    pub tokenizer: Option<String>,
    /// How it cuts text first, `tokenizer.ggml.pre`.
    pub pre_tokenizer: Option<String>,
    /// The chat template's Jinja source.
    pub chat_template: Option<String>,
    /// Storage types, the one with most bytes first.
    pub storage: Vec<StorageShare>,
}

impl Gguf {
    /// What the header says of the model.
    ///
    /// # Errors
    /// [`GgufError::WrongType`] or [`GgufError::NotUtf8`] for a key that is no text.
    pub fn summary(&self) -> Result<GgufSummary, GgufError> {
        let mut shares: BTreeMap<u32, StorageShare> = BTreeMap::new();
        for (_, tensor) in self.tensors() {
            let share = shares.entry(tensor.quant.code()).or_insert(StorageShare {
                quant: tensor.quant,
                tensors: 0,
                parameters: 0,
                bytes: 0,
            });
            share.tensors += 1;
            share.parameters += tensor.elements();
            share.bytes += self.data(tensor).len() as u64;
        }
        let mut storage: Vec<StorageShare> = shares.into_values().collect();
        storage.sort_by_key(|share| std::cmp::Reverse(share.bytes));
        let text = |key: &str| Ok(self.string(key)?.map(str::to_owned));
        Ok(GgufSummary {
            license: text("general.license")?,
            tokenizer: text("tokenizer.ggml.model")?,
            pre_tokenizer: text("tokenizer.ggml.pre")?,
            chat_template: text("tokenizer.chat_template")?,
            storage,
        })
    }
}
