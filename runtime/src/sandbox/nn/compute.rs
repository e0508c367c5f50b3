//! One `compute`: named tensors in, named tensors out.
//!
//! In: a loaded model and the tensors that a guest passed, which count against the job's
//! model memory for as long as the call takes. Out: the outputs that were asked for, or a
//! refusal. Inference runs off the executor and is counted like that of `tussah:job/llm`.

use std::sync::Arc;

use tussah_inference::{Model, TokenId};
use wasmtime::component::Resource;

use super::{
    Answer, Refusal,
    inputs::{Completion, DECODER_OUTPUTS, ENCODER_OUTPUTS, Prompt, Texts, Wanted},
    tensor::{RANK_MAX, Tensor},
};
use crate::sandbox::{
    bindings::{
        tussah::job::types::{Error, ErrorCode},
        wasi::nn::{errors::ErrorCode as NnCode, tensor::TensorType},
    },
    guest::Guest,
    models::{LoadedModel, blocking, check_ids, encode_chat, encode_prompt, refuse},
    sessions::{Opening, SessionEntry},
};

/// Named tensors of one call.
pub(crate) type NamedTensors = Vec<(String, Tensor)>;

/// Tensors that one call may pass: more than any model in the field has inputs.
const TENSORS_MAX: usize = 64;

impl Guest {
    /// Runs a model on tensors and writes the call into the transcript.
    ///
    /// The tensors passed are charged to the job already; those returned are not yet.
    pub(crate) async fn nn_compute(
        &mut self,
        model: &LoadedModel,
        inputs: NamedTensors,
    ) -> Answer<NamedTensors> {
        let arguments = tensors_bytes(&inputs);
        let answer = if inputs.len() > TENSORS_MAX {
            Err(Refusal::invalid(format!(
                "{} tensors were passed, at most {TENSORS_MAX} are allowed",
                inputs.len()
            )))
        } else {
            match model {
                LoadedModel::Graph(graph) => self.nn_graph(graph, inputs).await?,
                LoadedModel::Text(model) if model.info().embeddings.is_some() => {
                    self.nn_embed(model, inputs).await?
                }
                LoadedModel::Text(model) => self.nn_complete(model, inputs).await?,
            }
        };
        let results = match &answer {
            Ok(outputs) => tensors_bytes(outputs),
            Err(refusal) => vec![0xff, refusal.code as u8],
        };
        self.record("nn#compute", &arguments, &results)?;
        Ok(answer)
    }

    async fn nn_embed(&mut self, model: &Arc<Model>, inputs: NamedTensors) -> Answer<NamedTensors> {
        let Texts { texts, over_long } = match Texts::read(inputs) {
            Ok(texts) => texts,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let vectors = match self.embed(model, texts, over_long).await? {
            Ok(vectors) => vectors,
            Err(error) => return Ok(Err(error.into())),
        };
        let size = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let length = model.info().embeddings.unwrap_or(0);
        let tensor = Tensor {
            dimensions: vec![size(vectors.len()), length],
            ty: TensorType::Fp32,
            data: floats_bytes(vectors.iter().flatten()),
        };
        Ok(Ok(vec![(ENCODER_OUTPUTS[0].to_owned(), tensor)]))
    }

    async fn nn_complete(
        &mut self,
        model: &Arc<Model>,
        inputs: NamedTensors,
    ) -> Answer<NamedTensors> {
        let (work, model_of_work) = (Completion::read(inputs), Arc::clone(model));
        let mut completion = match work {
            Ok(completion) => completion,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let prompt = std::mem::replace(&mut completion.prompt, Prompt::Tokens(Vec::new()));
        let encoded = blocking(move || encode(&model_of_work, prompt)).await?;
        let tokens = match encoded {
            Ok(tokens) => tokens,
            Err(error) => return Ok(Err(error.into())),
        };
        let opening = match opening(model, tokens.len(), &mut completion) {
            Ok(opening) => opening,
            Err(error) => return Ok(Err(error.into())),
        };
        let session = match self.open_session(model, opening).await? {
            Ok(session) => session,
            Err(error) => return Ok(Err(error.into())),
        };
        let own = Resource::new_own(session.rep());
        let answer = self.generate(&own, tokens, completion.wanted).await?;
        self.close_session(session)?;
        Ok(answer.map_err(Refusal::from))
    }

    /// Reads the prompt and generates to the end.
    async fn generate(
        &mut self,
        session: &Resource<SessionEntry>,
        prompt: Vec<TokenId>,
        wanted: Wanted,
    ) -> crate::sandbox::models::Answer<NamedTensors> {
        if let Err(error) = self.append(session, prompt).await? {
            return Ok(Err(error));
        }
        let mut logits = Vec::new();
        if wanted.logits {
            self.check_step(session, false)?;
            let read = self.with_session(session, |active| {
                Ok(floats_bytes(active.session.logits()?.iter()))
            });
            match read.await? {
                Ok(bytes) => logits = bytes,
                Err(error) => return Ok(Err(error)),
            }
        }
        let (mut text, mut tokens) = (Vec::new(), Vec::new());
        if wanted.text || wanted.tokens {
            loop {
                match self.next_chunk(session).await? {
                    Ok(None) => break,
                    Ok(Some(chunk)) => {
                        text.extend_from_slice(chunk.text.as_bytes());
                        tokens.extend(chunk.tokens.iter().flat_map(|token| token.0.to_le_bytes()));
                    }
                    Err(error) => return Ok(Err(error)),
                }
            }
        }
        let outputs = [
            (wanted.text, TensorType::U8, text),
            (wanted.tokens, TensorType::I32, tokens),
            (wanted.logits, TensorType::Fp32, logits),
        ];
        let outputs = DECODER_OUTPUTS.iter().zip(outputs);
        Ok(Ok(outputs
            .filter(|(_, (wanted, ..))| *wanted)
            .map(|(name, (_, ty, data))| ((*name).to_owned(), Tensor::row(ty, data)))
            .collect()))
    }

    /// Charges a tensor to the job's model memory.
    ///
    /// # Errors
    /// `too-large` if it does not fit.
    pub(crate) fn hold_tensor(&mut self, tensor: &Tensor) -> Result<(), Refusal> {
        let bytes = tensor.memory_bytes();
        self.limiter.hold_model_memory(bytes).map_err(|free| {
            Refusal::new(
                NnCode::TooLarge,
                format!(
                    "a tensor takes {bytes} bytes, {free} are left of \
                     limits.model_memory_bytes_max: drop other tensors or raise the limit"
                ),
            )
        })
    }

    /// Gives a tensor's memory back.
    pub(crate) fn release_tensor(&mut self, tensor: &Tensor) {
        self.limiter.release_model_memory(tensor.memory_bytes());
    }
}

fn encode(model: &Model, prompt: Prompt) -> Result<Vec<TokenId>, Error> {
    let tokens = match prompt {
        Prompt::Text(text) => encode_prompt(model, &text)?,
        Prompt::Tokens(tokens) => check_ids(model, &tokens)?,
        Prompt::Chat(messages) => encode_chat(model, Prompt::messages(messages))?,
    };
    if tokens.is_empty() {
        let message = "the prompt is empty: a completion needs at least one token to go on from";
        return Err(refuse(ErrorCode::InvalidArgument, message));
    }
    Ok(tokens)
}

/// A session that is just long enough, so that it takes no more memory than it needs.
fn opening(
    model: &Model,
    prompt_tokens: usize,
    completion: &mut Completion,
) -> Result<Opening, Error> {
    let most = model.info().context_tokens_max;
    let prompt_tokens = u32::try_from(prompt_tokens).unwrap_or(u32::MAX);
    if prompt_tokens > most {
        let message =
            format!("the prompt has {prompt_tokens} tokens, the model was made for {most}");
        return Err(refuse(ErrorCode::ContextFull, message));
    }
    let wanted = completion.tokens_max;
    Ok(Opening {
        context_tokens_max: wanted.map(|tokens| prompt_tokens.saturating_add(tokens).min(most)),
        sampling: completion.sampling,
        seed: completion.seed,
        generated_tokens_max: wanted,
        stop: std::mem::take(&mut completion.stop),
    })
}

fn floats_bytes<'a>(values: impl Iterator<Item = &'a f32>) -> Vec<u8> {
    values.flat_map(|value| value.to_le_bytes()).collect()
}

/// Tensors as the transcript takes them: names, types, dimensions and data after their lengths.
fn tensors_bytes(tensors: &[(String, Tensor)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, tensor) in tensors {
        bytes.extend_from_slice(&(name.len() as u64).to_le_bytes());
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(tensor.ty as u8);
        bytes.extend_from_slice(&(tensor.dimensions.len() as u64).to_le_bytes());
        bytes.extend(tensor.dimensions.iter().flat_map(|size| size.to_le_bytes()));
        bytes.extend_from_slice(&(tensor.data.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&tensor.data);
    }
    bytes
}

/// Dimensions that a guest may give; more are cut before they are kept, and refused when used.
pub(crate) fn bounded_dimensions(mut dimensions: Vec<u32>) -> Vec<u32> {
    dimensions.truncate(RANK_MAX + 1);
    dimensions
}
