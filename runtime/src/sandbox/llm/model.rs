//! `llm.model`: loading by name, tokens, templates, embeddings.
//!
//! In: a guest's handle and its arguments. Out: what the model makes of them, or a refusal
//! with a code. It never loads what the manifest does not name.

use std::sync::Arc;

use tussah_inference::{Model, Sampling};
use wasmtime::component::Resource;

use super::{chat_bytes, text_bytes, token_bytes};
use crate::sandbox::{
    bindings::tussah::job::{
        llm::{self, Message},
        types::ErrorCode,
    },
    guest::Guest,
    models::{Answer, LoadedModel, blocking, check_ids, encode_chat, encode_text, refuse},
    sessions::{Opening, SessionEntry},
};

/// A guest's handle of a loaded model.
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct ModelEntry {
    model: Arc<Model>,
}

impl Guest {
    fn model(&mut self, handle: &Resource<ModelEntry>) -> wasmtime::Result<Arc<Model>> {
        Ok(Arc::clone(&self.table().get(handle)?.model))
    }
}

impl llm::HostModel for Guest {
    async fn load(&mut self, name: String) -> Answer<Resource<ModelEntry>> {
        let named = match self.models.find(&name) {
            Ok(named) => named,
            Err(message) => return Ok(Err(refuse(ErrorCode::UnknownModel, message))),
        };
        let model = match self.load_model(named).await? {
            LoadedModel::Text(model) => model,
            LoadedModel::Graph(_) => {
                let message = format!(
                    "model `{name}` is a graph of tensors, which has no text: compute it through wasi:nn"
                );
                let error = refuse(ErrorCode::UnsupportedOperation, message);
                self.record("llm#model.load", name.as_bytes(), &[0xff, error.code as u8])?;
                return Ok(Err(error));
            }
        };
        self.record("llm#model.load", name.as_bytes(), named.digest.as_bytes())?;
        Ok(Ok(self.table().push(ModelEntry { model })?))
    }

    fn info(&mut self, handle: Resource<ModelEntry>) -> wasmtime::Result<llm::ModelInfo> {
        let model = self.model(&handle)?;
        let info = model.info();
        Ok(llm::ModelInfo {
            name: info.name.clone(),
            architecture: info.architecture.clone(),
            context_tokens_max: info.context_tokens_max,
            vocabulary_size: u32::try_from(model.tokenizer().len()).unwrap_or(u32::MAX),
            embedding_length: info.embeddings.unwrap_or(0),
        })
    }

    async fn tokenize(&mut self, handle: Resource<ModelEntry>, text: String) -> Answer<Vec<u32>> {
        let model = self.model(&handle)?;
        let (text, answer) = blocking(move || {
            let answer = encode_text(&model, &text);
            (text, answer)
        })
        .await?;
        self.record_answer("llm#model.tokenize", text.as_bytes(), &answer, |t| {
            token_bytes(t)
        })?;
        Ok(answer.map(|tokens| tokens.into_iter().map(|token| token.0).collect()))
    }

    async fn detokenize(
        &mut self,
        handle: Resource<ModelEntry>,
        tokens: Vec<u32>,
    ) -> Answer<Vec<u8>> {
        let model = self.model(&handle)?;
        let answer = check_ids(&model, &tokens).map(|tokens| model.tokenizer().decode(&tokens));
        let arguments: Vec<u8> = tokens
            .iter()
            .flat_map(|token| token.to_le_bytes())
            .collect();
        self.record_answer("llm#model.detokenize", &arguments, &answer, Clone::clone)?;
        Ok(answer)
    }

    async fn count_chat_tokens(
        &mut self,
        handle: Resource<ModelEntry>,
        messages: Vec<Message>,
    ) -> Answer<u32> {
        let model = self.model(&handle)?;
        let arguments = chat_bytes(&messages);
        let answer = blocking(move || encode_chat(&model, messages)).await?;
        let answer = answer.map(|tokens| u32::try_from(tokens.len()).unwrap_or(u32::MAX));
        self.record_answer("llm#model.count-chat-tokens", &arguments, &answer, |n| {
            n.to_le_bytes().to_vec()
        })?;
        Ok(answer)
    }

    async fn session(
        &mut self,
        handle: Resource<ModelEntry>,
        options: llm::SessionOptions,
    ) -> Answer<Resource<SessionEntry>> {
        let model = self.model(&handle)?;
        let arguments = options_bytes(&options);
        let answer = self.open_session(&model, opening(options)).await?;
        self.record_answer("llm#model.session", &arguments, &answer, |_| vec![])?;
        Ok(answer)
    }

    async fn embed(
        &mut self,
        handle: Resource<ModelEntry>,
        texts: Vec<String>,
        over_long: llm::OverLong,
    ) -> Answer<Vec<Vec<f32>>> {
        let model = self.model(&handle)?;
        let over_long = match over_long {
            llm::OverLong::Refuse => tussah_inference::OverLong::Refuse,
            llm::OverLong::Cut => tussah_inference::OverLong::Cut,
        };
        let mut arguments = vec![u8::from(over_long == tussah_inference::OverLong::Cut)];
        for text in &texts {
            text_bytes(&mut arguments, text);
        }
        let answer = self.embed(&model, texts, over_long).await?;
        self.record_answer("llm#model.embed", &arguments, &answer, |vectors| {
            vectors
                .iter()
                .flatten()
                .flat_map(|value| value.to_bits().to_le_bytes())
                .collect()
        })?;
        Ok(answer)
    }

    async fn drop(&mut self, handle: Resource<ModelEntry>) -> wasmtime::Result<()> {
        self.table().delete(handle)?;
        Ok(())
    }
}

fn opening(options: llm::SessionOptions) -> Opening {
    let sampling = options.sampling;
    Opening {
        context_tokens_max: options.context_tokens_max,
        sampling: Sampling {
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            repetition_penalty: sampling.repetition_penalty,
        },
        seed: sampling.seed,
        generated_tokens_max: match options.generated_tokens_max {
            0 => None,
            tokens => Some(tokens),
        },
        stop: options.stop,
    }
}

fn options_bytes(options: &llm::SessionOptions) -> Vec<u8> {
    let sampling = &options.sampling;
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&options.context_tokens_max.unwrap_or(0).to_le_bytes());
    bytes.extend_from_slice(&options.generated_tokens_max.to_le_bytes());
    for value in [
        sampling.temperature.to_bits(),
        sampling.top_k,
        sampling.top_p.to_bits(),
        sampling.min_p.to_bits(),
        sampling.repetition_penalty.to_bits(),
    ] {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    bytes.extend_from_slice(&sampling.seed.to_le_bytes());
    for stop in &options.stop {
        text_bytes(&mut bytes, stop);
    }
    bytes
}
