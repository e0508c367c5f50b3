//! The records and enums of the WIT world, where no module is built.
//!
//! In: nothing. Out: types of the names, fields and derives that wit-bindgen gives those of
//! `wit/world.wit`; a test holds them against it. There are no functions here: what calls a
//! host natively calls a script.

/// Why a job gave up: a code that the job chooses, and a message for its user.
#[derive(Debug, Clone)]
pub struct JobError {
    /// As [`ErrorCode::number`](crate::ErrorCode::number) gives it.
    pub code: u32,
    /// For people.
    pub message: String,
}

/// The package `tussah:job`.
pub mod tussah {
    /// Its interfaces.
    pub mod job {
        /// What the host's interfaces have in common.
        pub mod types {
            /// Why a host call failed; [`crate::ErrorCode`] says what each means.
            #[expect(missing_docs, reason = "as in crate::ErrorCode")]
            #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
            pub enum ErrorCode {
                InvalidArgument,
                UnknownModel,
                UnsupportedOperation,
                ContextFull,
                OutOfMemory,
                LimitExceeded,
                ModelFailed,
            }

            /// An error of a host call: a code to branch on, a message for people.
            #[derive(Debug, Clone)]
            pub struct Error {
                /// What kind of error.
                pub code: ErrorCode,
                /// For people.
                pub message: String,
            }
        }

        /// Language models: sessions that stream tokens.
        pub mod llm {
            /// What a loaded model says of itself.
            #[derive(Debug, Clone)]
            pub struct ModelInfo {
                /// `general.name` of the model file, or the empty string.
                pub name: String,
                /// `general.architecture`, such as `llama`.
                pub architecture: String,
                /// The longest context, in tokens, that the model was made for.
                pub context_tokens_max: u32,
                /// How many token ids there are.
                pub vocabulary_size: u32,
                /// Length of the vectors that `embed` gives; 0 if the model gives none.
                pub embedding_length: u32,
            }

            /// What `embed` does with a text of more tokens than the model was made for.
            #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
            pub enum OverLong {
                /// Refuses the call with `context-full`; the message names the text.
                Refuse,
                /// Embeds as many of its first tokens as fit.
                Cut,
            }

            /// One turn of a conversation.
            #[derive(Debug, Clone)]
            pub struct Message {
                /// `system`, `user`, `assistant`, or what else the model's template knows.
                pub role: String,
                /// What was said.
                pub content: String,
            }

            /// How the next token is chosen from the logits.
            ///
            /// The order is: repetition penalty, temperature, top-k, softmax, top-p, min-p.
            #[derive(Debug, Clone, Copy)]
            pub struct Sampling {
                /// 0 takes the likeliest token; larger is more random. Finite, 0 to 100.
                pub temperature: f32,
                /// Only the k likeliest tokens are considered; 0 means all.
                pub top_k: u32,
                /// Only the smallest set of tokens whose probability reaches this; 1 means all.
                /// Over 0, to 1.
                pub top_p: f32,
                /// Only tokens at least this likely, relative to the likeliest; 0 means all.
                /// 0 to 1.
                pub min_p: f32,
                /// Logits of tokens seen before are divided by it (multiplied where negative);
                /// 1 means off. Over 0, to 100.
                pub repetition_penalty: f32,
                /// Mixed into the request's own seed.
                pub seed: u64,
            }

            /// How a session is opened.
            #[derive(Debug, Clone)]
            pub struct SessionOptions {
                /// Tokens of context to reserve, prompt and answer together.
                pub context_tokens_max: Option<u32>,
                /// How tokens are chosen.
                pub sampling: Sampling,
                /// The generation ends after so many tokens; 0 means no limit but the context.
                pub generated_tokens_max: u32,
                /// The generation ends before any of these texts; at most 16, none empty.
                pub stop: Vec<String>,
            }

            /// A piece of generated text, never half a character.
            #[derive(Debug, Clone)]
            pub struct Chunk {
                /// The text.
                pub text: String,
                /// The tokens that were generated for it, in order.
                pub tokens: Vec<u32>,
            }

            /// Why a generation ended.
            #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
            pub enum FinishReason {
                /// The model said that it is done.
                EndOfText,
                /// A stop text was reached; it is not part of the output.
                Stop,
                /// As many tokens were generated as were allowed.
                Length,
            }

            /// What a session has used so far.
            #[derive(Debug, Clone, Copy)]
            pub struct Usage {
                /// Tokens that were appended.
                pub prompt_tokens: u32,
                /// Tokens that were generated or accepted.
                pub generated_tokens: u32,
                /// Multiply-accumulates, computed from shapes: the same on every machine.
                pub inference_units: u64,
            }

            /// A possible next token.
            #[derive(Debug, Clone)]
            pub struct Candidate {
                /// Its id.
                pub token: u32,
                /// The bytes of the token; they need not be whole characters.
                pub bytes: Vec<u8>,
                /// What the model gives it.
                pub logit: f32,
            }
        }
    }
}
