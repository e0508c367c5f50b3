//! `llm.session`: one sequence of tokens, as the guest drives it.
//!
//! In: a guest's handle and its arguments. Out: tokens and text, or a refusal with a code.
//! It keeps nothing of its own: sessions live in the guest's table.

use tussah_inference::{FinishReason, TokenId};
use wasmtime::component::Resource;

use super::chat_bytes;
use crate::sandbox::{
    bindings::tussah::job::{
        llm::{self, Message},
        types::ErrorCode,
    },
    guest::Guest,
    models::{Answer, blocking, check_ids, encode_chat, encode_text, refuse},
    sessions::SessionEntry,
};

/// Candidates a guest may ask for at once.
const CANDIDATES_MAX: u32 = 1024;

impl llm::HostSession for Guest {
    async fn append_text(&mut self, handle: Resource<SessionEntry>, text: String) -> Answer<u32> {
        let model = self.session_model(&handle)?;
        let (text, encoded) = blocking(move || {
            let encoded = encode_text(&model, &text);
            (text, encoded)
        })
        .await?;
        let answer = match encoded {
            Ok(tokens) => self.append(&handle, tokens).await?,
            Err(error) => Err(error),
        };
        self.record_answer("llm#session.append-text", text.as_bytes(), &answer, |n| {
            n.to_le_bytes().to_vec()
        })?;
        Ok(answer)
    }

    async fn append_tokens(
        &mut self,
        handle: Resource<SessionEntry>,
        tokens: Vec<u32>,
    ) -> Answer<()> {
        let model = self.session_model(&handle)?;
        let arguments: Vec<u8> = tokens
            .iter()
            .flat_map(|token| token.to_le_bytes())
            .collect();
        let answer = match check_ids(&model, &tokens) {
            Ok(tokens) => self.append(&handle, tokens).await?,
            Err(error) => Err(error),
        };
        self.record_answer("llm#session.append-tokens", &arguments, &answer, |n| {
            n.to_le_bytes().to_vec()
        })?;
        Ok(answer.map(|_| ()))
    }

    async fn append_chat(
        &mut self,
        handle: Resource<SessionEntry>,
        messages: Vec<Message>,
    ) -> Answer<u32> {
        let model = self.session_model(&handle)?;
        let arguments = chat_bytes(&messages);
        let answer = match blocking(move || encode_chat(&model, messages)).await? {
            Ok(tokens) => self.append(&handle, tokens).await?,
            Err(error) => Err(error),
        };
        self.record_answer("llm#session.append-chat", &arguments, &answer, |n| {
            n.to_le_bytes().to_vec()
        })?;
        Ok(answer)
    }

    async fn next(&mut self, handle: Resource<SessionEntry>) -> Answer<Option<llm::Chunk>> {
        let answer = self.next_chunk(&handle).await?.map(|chunk| {
            chunk.map(|chunk| llm::Chunk {
                text: chunk.text,
                tokens: chunk.tokens.iter().map(|token| token.0).collect(),
            })
        });
        self.record_answer("llm#session.next", &[], &answer, |chunk| {
            chunk.as_ref().map_or_else(Vec::new, |chunk| {
                chunk
                    .tokens
                    .iter()
                    .flat_map(|token| token.to_le_bytes())
                    .collect()
            })
        })?;
        Ok(answer)
    }

    fn finish_reason(
        &mut self,
        handle: Resource<SessionEntry>,
    ) -> wasmtime::Result<Option<llm::FinishReason>> {
        let active = self.table().get(&handle)?.active()?;
        Ok(active.stream.finish_reason().map(|reason| match reason {
            FinishReason::EndOfText => llm::FinishReason::EndOfText,
            FinishReason::Stop => llm::FinishReason::Stop,
            FinishReason::Length => llm::FinishReason::Length,
        }))
    }

    async fn candidates(
        &mut self,
        handle: Resource<SessionEntry>,
        k: u32,
    ) -> Answer<Vec<llm::Candidate>> {
        let model = self.session_model(&handle)?;
        let answer = if (1..=CANDIDATES_MAX).contains(&k) {
            self.check_step(&handle, false)?;
            self.with_session(&handle, move |active| active.session.candidates(k as usize))
                .await?
        } else {
            let message = format!("{k} candidates were asked for, 1 to {CANDIDATES_MAX} can be");
            Err(refuse(ErrorCode::InvalidArgument, message))
        };
        let answer = answer.map(|candidates| {
            let tokenizer = model.tokenizer();
            candidates
                .into_iter()
                .map(|candidate| llm::Candidate {
                    token: candidate.token.0,
                    // What is not printed has no bytes: a guest cannot take it for text.
                    bytes: if tokenizer.is_control(candidate.token) {
                        Vec::new()
                    } else {
                        tokenizer.token_bytes(candidate.token).to_vec()
                    },
                    logit: candidate.logit,
                })
                .collect::<Vec<_>>()
        });
        self.record_answer(
            "llm#session.candidates",
            &k.to_le_bytes(),
            &answer,
            |candidates| {
                candidates
                    .iter()
                    .flat_map(|candidate| [candidate.token, candidate.logit.to_bits()])
                    .flat_map(u32::to_le_bytes)
                    .collect()
            },
        )?;
        Ok(answer)
    }

    async fn accept(&mut self, handle: Resource<SessionEntry>, token: u32) -> Answer<()> {
        let model = self.session_model(&handle)?;
        let answer = match check_ids(&model, &[token]) {
            Ok(_) => {
                self.check_step(&handle, true)?;
                self.with_session(&handle, move |active| active.session.accept(TokenId(token)))
                    .await?
            }
            Err(error) => Err(error),
        };
        self.record_answer(
            "llm#session.accept",
            &token.to_le_bytes(),
            &answer,
            |()| vec![],
        )?;
        Ok(answer)
    }

    async fn fork(&mut self, handle: Resource<SessionEntry>) -> Answer<Resource<SessionEntry>> {
        let answer = self.fork_session(&handle).await?;
        self.record_answer("llm#session.fork", &[], &answer, |_| vec![])?;
        Ok(answer)
    }

    fn usage(&mut self, handle: Resource<SessionEntry>) -> wasmtime::Result<llm::Usage> {
        let usage = self.table().get(&handle)?.active()?.session.usage();
        Ok(llm::Usage {
            prompt_tokens: u32::try_from(usage.prompt_tokens).unwrap_or(u32::MAX),
            generated_tokens: u32::try_from(usage.generated_tokens).unwrap_or(u32::MAX),
            inference_units: usage.inference_units,
        })
    }

    async fn drop(&mut self, handle: Resource<SessionEntry>) -> wasmtime::Result<()> {
        self.close_session(handle)
    }
}
