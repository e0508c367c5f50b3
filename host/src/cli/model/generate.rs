//! `tussah model generate`: the engine alone, outside any sandbox.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use serde::Serialize;
use tussah_inference::{
    AddBos, CancelToken, ChatMessage, EncodeOptions, Engine, FinishReason, LoadOptions, Model,
    Sampling, Session, SessionOptions, StopStrings, TextStream, TokenId,
};
use tussah_manifest::ModelName;

use super::{Store, model_name};
use crate::{
    device::{Caches, DeviceArgument, Devices, Need, Placement},
    engine,
    exit_code::Exit,
    failure::Failure,
    input,
    interrupt::Interrupt,
    ui::{self, Ui},
};

/// Tokens read between two looks at Ctrl-C.
const PROMPT_CHUNK_TOKENS: usize = 256;

const EXAMPLES: &str = "\
Examples:
  tussah model generate smollm2 --prompt 'Why is the sky blue?'
  tussah model generate smollm2 --prompt-file article.txt --system 'Summarize in a sentence.'
  tussah model generate smollm2 --prompt 'Once upon a time' --raw --max-tokens 64
  echo 'Write a haiku.' | tussah model generate smollm2 --prompt-file - \\
        --temperature 0.8 --top-p 0.95 --seed 7
  tussah model generate smollm2 --prompt Hi --json | jq .rates

The text streams to standard output, rates go to standard error. The same options give the
same text on every machine: at temperature 0 always, above it for the same --seed.";

/// Generate text with a model.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The model's name.
    #[arg(value_parser = model_name)]
    name: ModelName,
    /// What to say to the model.
    #[arg(
        long,
        required_unless_present = "prompt_file",
        conflicts_with = "prompt_file"
    )]
    prompt: Option<String>,
    /// A file with what to say; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// What the model is told to be, before the prompt.
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    system: Option<String>,
    /// No chat template: the prompt as it is, special tokens in it read as such, and BOS only
    /// as the model's metadata says.
    #[arg(long)]
    raw: bool,
    /// The most tokens to generate.
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_tokens: u32,
    /// 0 takes the likeliest token each time; larger is more random.
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f32,
    /// Only the K likeliest tokens; 0 means all.
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: u32,
    /// Only the smallest set of tokens with this much probability together; 1 means all.
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,
    /// Only tokens with this share of the likeliest one's probability; 0 means all.
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_p: f32,
    /// Makes tokens that were there before less likely; 1 means off.
    #[arg(long, value_name = "R", default_value_t = 1.0)]
    repetition_penalty: f32,
    /// Which random choices are made, at a temperature above 0.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Stop before this text; may be given several times.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Where to run: auto (a GPU, else the CPU), cpu, gpu, or a part of an adapter's name.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceArgument,
    /// The arithmetic: `exact` gives the same bits everywhere, `oracle` is slow f32 to compare with.
    #[arg(long, value_enum, default_value_t)]
    engine: EngineName,
    /// CPU threads; 0 is one a CPU. The text does not depend on it.
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Print JSON when done: `text`, `prompt_token_ids`, `token_ids`, `rates`.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum EngineName {
    #[default]
    Exact,
    Oracle,
}

#[derive(Serialize)]
struct View {
    text: String,
    prompt_token_ids: Vec<u32>,
    token_ids: Vec<u32>,
    finish_reason: &'static str,
    engine: String,
    rates: Rates,
}

#[derive(Serialize)]
struct Rates {
    prompt_tokens_per_second: f64,
    generated_tokens_per_second: f64,
    /// From the start of reading the prompt.
    first_token_ms: f64,
    load_ms: f64,
}

impl Arguments {
    pub(super) fn run(self, store: &Store, ui: &Ui) -> Result<Exit, Failure> {
        let sampling = self.sampling()?;
        let stops = StopStrings::new(self.stop.clone()).map_err(Failure::usage)?;
        let prompt = input::text(self.prompt.clone(), self.prompt_file.as_deref(), "--prompt")?;
        let record = store.models.get(&self.name)?;
        let interrupt = Interrupt::install()?;

        let placement = self.placement(store, ui)?;
        let started = Instant::now();
        let engine = match self.engine {
            EngineName::Exact => engine::exact(),
            EngineName::Oracle => Engine::Oracle,
        };
        let options = LoadOptions {
            engine,
            threads: self.threads,
            ..LoadOptions::default()
        };
        let model = engine::load(&store.blobs, &record.digest, options, &placement, ui)?;
        let load = started.elapsed();

        let tokens = self.prompt_tokens(&model, &prompt)?;
        let mut session = self.session(&model, sampling, tokens.len())?;
        let text = TextStream::new(stops, self.max_tokens);
        let generated = generate(&mut session, text, &tokens, &interrupt, ui)?;
        let view = View {
            rates: generated.rates(tokens.len(), load),
            prompt_token_ids: tokens.iter().map(|token| token.0).collect(),
            token_ids: generated.tokens.iter().map(|token| token.0).collect(),
            text: generated.text,
            finish_reason: generated.finish,
            engine: model.info().engine.clone(),
        };
        if ui.json() {
            ui.document(&view)?;
        } else {
            show_rates(&view, ui);
        }
        Ok(if interrupt.requested() {
            Exit::INTERRUPTED
        } else {
            Exit::DONE
        })
    }

    /// The oracle is the CPU's: it needs no GPU, and where one is asked for it is refused.
    fn placement(&self, store: &Store, ui: &Ui) -> Result<Placement, Failure> {
        let models = self.engine == EngineName::Exact;
        let devices = Devices::new(self.device.clone(), Caches::Home(store.home.clone()));
        devices.place(Need::anywhere(models), ui)
    }

    fn sampling(&self) -> Result<Sampling, Failure> {
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
        };
        sampling.check().map_err(Failure::usage)?;
        Ok(sampling)
    }

    fn prompt_tokens(&self, model: &Model, prompt: &str) -> Result<Vec<TokenId>, Failure> {
        if self.raw {
            let options = EncodeOptions {
                add_bos: AddBos::ByMetadata,
                parse_special: true,
            };
            return model
                .tokenizer()
                .encode(prompt, options)
                .map_err(Failure::usage);
        }
        let message = |role: &str, content: &str| ChatMessage {
            role: role.to_owned(),
            content: content.to_owned(),
        };
        let mut messages = Vec::new();
        messages.extend(
            self.system
                .as_deref()
                .map(|system| message("system", system)),
        );
        messages.push(message("user", prompt));
        // Special tokens in the prompt's text stay text: only --raw reads them.
        model.encode_chat(&messages, true).map_err(|error| {
            Failure::usage(error).help("use --raw for a model without a chat template")
        })
    }

    fn session(
        &self,
        model: &Arc<Model>,
        sampling: Sampling,
        prompt_tokens: usize,
    ) -> Result<Session, Failure> {
        let most = model.info().context_tokens_max;
        let prompt_tokens = u32::try_from(prompt_tokens).unwrap_or(u32::MAX);
        if prompt_tokens >= most {
            let message = format!("the prompt has {prompt_tokens} tokens, the model takes {most}");
            return Err(Failure::usage(message).help("shorten the prompt"));
        }
        let context_tokens_max = prompt_tokens.saturating_add(self.max_tokens).clamp(1, most);
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        let cancel = CancelToken::new();
        let options = SessionOptions {
            context_tokens_max,
            sampling,
            seed,
            cancel,
        };
        Session::open(model, options).map_err(Failure::host)
    }
}

struct Generated {
    text: String,
    tokens: Vec<TokenId>,
    finish: &'static str,
    prompt_time: Duration,
    first_token: Duration,
    /// From the end of the prompt to the last token.
    generation_time: Duration,
}

fn generate(
    session: &mut Session,
    mut stream: TextStream,
    prompt: &[TokenId],
    interrupt: &Interrupt,
    ui: &Ui,
) -> Result<Generated, Failure> {
    let started = Instant::now();
    let reading = ui.spinner("reading the prompt");
    for chunk in prompt.chunks(PROMPT_CHUNK_TOKENS) {
        if interrupt.requested() {
            return Err(Failure::interrupted());
        }
        session.append(chunk).map_err(Failure::host)?;
    }
    drop(reading);
    let prompt_time = started.elapsed();
    let mut generated = Generated {
        text: String::new(),
        tokens: Vec::new(),
        finish: "interrupted",
        prompt_time,
        first_token: prompt_time,
        generation_time: Duration::ZERO,
    };
    let bar = ui.tokens_bar("generating");
    while !interrupt.requested() {
        let Some(chunk) = stream.next(session).map_err(Failure::host)? else {
            generated.finish = finish_name(stream.finish_reason());
            break;
        };
        if generated.tokens.is_empty() {
            generated.first_token = started.elapsed();
        }
        if !ui.json() {
            ui.out(chunk.text.as_bytes())?;
        }
        bar.add(u64::try_from(chunk.tokens.len()).unwrap_or(0));
        generated.text.push_str(&chunk.text);
        generated.tokens.extend(chunk.tokens);
        generated.generation_time = started.elapsed().saturating_sub(prompt_time);
    }
    drop(bar);
    if !ui.json() && !generated.text.ends_with('\n') {
        ui.out(b"\n")?;
    }
    Ok(generated)
}

impl Generated {
    fn rates(&self, prompt_tokens: usize, load: Duration) -> Rates {
        Rates {
            prompt_tokens_per_second: per_second(prompt_tokens, self.prompt_time),
            generated_tokens_per_second: per_second(self.tokens.len(), self.generation_time),
            first_token_ms: millis(self.first_token),
            load_ms: millis(load),
        }
    }
}

fn finish_name(reason: Option<FinishReason>) -> &'static str {
    match reason {
        Some(FinishReason::EndOfText) => "end-of-text",
        Some(FinishReason::Stop) => "stop",
        Some(FinishReason::Length) => "length",
        None => "interrupted",
    }
}

fn show_rates(view: &View, ui: &Ui) {
    ui.note(&format!(
        "prompt {} tokens, {:.0} tokens/s; generated {} tokens, {:.1} tokens/s; first token after {}; loaded in {}; {}",
        view.prompt_token_ids.len(),
        view.rates.prompt_tokens_per_second,
        view.token_ids.len(),
        view.rates.generated_tokens_per_second,
        ui::duration(Duration::from_secs_f64(view.rates.first_token_ms / 1000.0)),
        ui::duration(Duration::from_secs_f64(view.rates.load_ms / 1000.0)),
        view.engine,
    ));
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn per_second(count: usize, time: Duration) -> f64 {
    let count = u32::try_from(count).map_or(f64::INFINITY, f64::from);
    let seconds = time.as_secs_f64();
    // Rounded, so that JSON stays readable.
    if seconds > 0.0 {
        (count / seconds * 100.0).round() / 100.0
    } else {
        0.0
    }
}
