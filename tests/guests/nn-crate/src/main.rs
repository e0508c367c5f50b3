//! Article on standard input, summary on standard output, by the crate `wasi-nn` 0.6.
//!
//! In: UTF-8 text. Out: the two sentences that the summarize job answers with. The graph's
//! encoding is stated wrongly on purpose: models load by name, whatever encoding is stated.

#[cfg(target_family = "wasm")]
mod guest {
    use std::{
        error::Error,
        io::{self, Read as _, Write as _},
    };

    use wasi_nn::{ExecutionTarget, GraphBuilder, GraphEncoding, TensorType};

    /// Inputs of a decoder, by index: `docs/wasi-nn.md`.
    const CHAT: usize = 2;
    const MAX_TOKENS: usize = 3;
    const REPETITION_PENALTY: usize = 8;
    /// An output.
    const TEXT: usize = 0;

    pub(crate) fn run() -> Result<(), Box<dyn Error>> {
        let mut article = String::new();
        io::stdin().read_to_string(&mut article)?;
        let graph = GraphBuilder::new(GraphEncoding::Tensorflow, ExecutionTarget::TPU)
            .build_from_cache("smollm2")?;
        let mut context = graph.init_execution_context()?;
        let chat = guest_text::chat(&article);
        context.set_input(CHAT, TensorType::U8, &[chat.len()], chat.as_bytes())?;
        context.set_input(MAX_TOKENS, TensorType::I32, &[1], [128_i32])?;
        context.set_input(REPETITION_PENALTY, TensorType::F32, &[1], [1.05_f32])?;
        context.compute()?;
        let mut answer = vec![0_u8; 16 * 1024];
        let length = context.get_output(TEXT, &mut answer)?;
        let answer = std::str::from_utf8(&answer[..length])?;
        writeln!(io::stdout(), "{}", guest_text::two_sentences(answer))?;
        Ok(())
    }
}

#[cfg(target_family = "wasm")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    guest::run()
}

/// Natively there is no host to ask; the build of the workspace is all that is wanted.
#[cfg(not(target_family = "wasm"))]
fn main() {}
