//! Embeddings of a job: texts to vectors, counted before they are made.
//!
//! In: a loaded model and texts. Out: one vector a text, with their memory and inference
//! units charged to the job. It never starts work that the job's limits do not cover.

use std::sync::Arc;

use tussah_inference::{BackendError, EmbedError, Model, OverLong};

use super::{
    Event,
    bindings::tussah::job::types::{Error, ErrorCode},
    guest::Guest,
    limiter::Stop,
    models::{Answer, blocking, chain, refuse},
};

/// Maps an error of embedding to one of the guest's, or ends the job where it is the host's.
fn embed_error(error: EmbedError) -> wasmtime::Result<Error> {
    let code = match &error {
        EmbedError::Unsupported { .. } => ErrorCode::UnsupportedOperation,
        EmbedError::TooManyTexts { .. } | EmbedError::Tokenize(_) => ErrorCode::InvalidArgument,
        EmbedError::TooLong { .. } => ErrorCode::ContextFull,
        EmbedError::Cancelled => return Err(Stop::Cancelled.into()),
        EmbedError::Backend(BackendError::OutOfMemory { .. }) => ErrorCode::OutOfMemory,
        EmbedError::Backend(_) => ErrorCode::ModelFailed,
    };
    Ok(refuse(code, chain(&error)))
}

impl Guest {
    /// One vector a text.
    pub(crate) async fn embed(
        &mut self,
        model: &Arc<Model>,
        texts: Vec<String>,
        over_long: OverLong,
    ) -> Answer<Vec<Vec<f32>>> {
        let counted = Arc::clone(model);
        let (texts, units) = blocking(move || {
            let units = counted.embed_units(&slices(&texts), over_long);
            (texts, units)
        })
        .await?;
        match units {
            Ok(units) => self.limiter.check_inference_units(units)?,
            Err(error) => return Ok(Err(embed_error(error)?)),
        }
        let memory_bytes = model.embed_memory_bytes(texts.len());
        if let Err(free) = self.limiter.hold_model_memory(memory_bytes) {
            let message = format!(
                "embedding {} texts takes {memory_bytes} bytes, {free} are left of \
                 limits.model_memory_bytes_max: embed fewer at once or raise the limit",
                texts.len()
            );
            return Ok(Err(refuse(ErrorCode::LimitExceeded, message)));
        }
        let (model, cancel) = (Arc::clone(model), self.models.cancel.clone());
        let embedded = blocking(move || model.embed(&slices(&texts), over_long, &cancel)).await?;
        self.limiter.release_model_memory(memory_bytes);
        let short = matches!(
            embedded,
            Err(EmbedError::Backend(BackendError::OutOfMemory { .. }))
        );
        self.models.memory_was_short |= short;
        match embedded {
            Ok(embedded) => {
                self.limiter.add_inference_units(embedded.inference_units)?;
                self.events.event(Event::Tokens {
                    prompt: embedded.tokens,
                    generated: 0,
                });
                Ok(Ok(embedded.vectors))
            }
            Err(error) => Ok(Err(embed_error(error)?)),
        }
    }
}

fn slices(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}
