//! What a guest's loop of generation costs over the same loop on the engine itself.
//!
//! In: a model file; `--tokens` and `--rounds`, `--json` for machines; `--road native` or `--road guest` runs one
//! of both alone, for a tool that counts its instructions. Out: the seconds of both, each round one
//! of each with their order in turn, and the ratio round by round: its median, the interval that holds the
//! median of all rounds with 95 % certainty, the least and the most.
//! Both open a session, read the same prompt, generate as many tokens, and make them text; the guest emits it.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[path = "../tests/it/fixture.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod fixture;

use std::{path::PathBuf, sync::Arc, time::Instant};

use tussah_inference::{LoadOptions, Model, TokenId};
use tussah_manifest::{ExitStatus, Limits};
use tussah_runtime::{NoEvents, Run, Runtime, SandboxedJob, verify};

const PROMPT_TOKENS: u32 = 16;
/// A context that both reserve has room for no more.
const TOKENS_MAX: u32 = 1024;

struct Arguments {
    model: PathBuf,
    tokens: u32,
    rounds: u32,
    json: bool,
    roads: Roads,
}

#[derive(Clone, Copy, PartialEq)]
enum Roads {
    Both,
    Native,
    Guest,
}

fn arguments() -> Arguments {
    let mut arguments = Arguments {
        model: PathBuf::new(),
        tokens: 64,
        rounds: 20,
        json: false,
        roads: Roads::Both,
    };
    let mut words = std::env::args().skip(1);
    let number = |word: Option<String>| word.and_then(|it| it.parse().ok()).expect("a number");
    while let Some(word) = words.next() {
        match word.as_str() {
            // Cargo's own.
            "--bench" => {}
            "--json" => arguments.json = true,
            "--road" => {
                arguments.roads = match words.next().as_deref() {
                    Some("native") => Roads::Native,
                    Some("guest") => Roads::Guest,
                    _ => panic!("--road is native or guest"),
                }
            }
            "--tokens" => arguments.tokens = number(words.next()),
            "--rounds" => arguments.rounds = number(words.next()),
            _ => arguments.model = word.into(),
        }
    }
    let fits = (1..=TOKENS_MAX).contains(&arguments.tokens) && arguments.rounds > 0;
    assert!(fits, "--tokens has 1 to {TOKENS_MAX}, --rounds 1 or more");
    arguments
}

fn main() {
    let arguments = arguments();
    let model = Model::open(&arguments.model, &LoadOptions::default(), &mut |_| ());
    let model = Arc::new(model.unwrap_or_else(|error| panic!("name a model file: {error}")));
    let info = model.info();
    let token = |at: u32| TokenId((at * 7919 + 13) % info.vocabulary_size);
    let prompt: Vec<_> = (0..PROMPT_TOKENS).map(token).collect();
    let runtime = fixture::runtime();
    let (native, guest) = fixture::block_on(measure(&runtime, &model, &prompt, &arguments));
    if arguments.roads != Roads::Both {
        return;
    }
    let ratio = Spread::of(
        guest
            .iter()
            .zip(&native)
            .map(|(guest, native)| guest / native)
            .collect(),
    );
    let [native, guest] = [native, guest].map(Spread::of);
    if arguments.json {
        println!(
            r#"{{"unit":"seconds","engine":{:?},"tokens":{},"rounds":{},"native":{},"guest":{},"ratio":{}}}"#,
            info.engine,
            arguments.tokens,
            arguments.rounds,
            native.json(),
            guest.json(),
            ratio.json()
        );
        return;
    }
    println!(
        "{}: {PROMPT_TOKENS} prompt tokens, {} generated, {} interleaved rounds",
        info.engine, arguments.tokens, arguments.rounds
    );
    println!("native session, seconds    {native}");
    println!("guest, seconds             {guest}");
    println!("guest / native             {ratio}");
}

async fn measure(
    runtime: &Runtime,
    model: &Arc<Model>,
    prompt: &[TokenId],
    arguments: &Arguments,
) -> (Vec<f64>, Vec<f64>) {
    let models = Arc::new(fixture::RandomModels::of(Arc::clone(model)));
    // Nothing of these may end the guest; the context is what the native session has.
    let limits = Limits {
        host_calls_max: 100_000,
        model_memory_bytes_max: 16 << 30,
        ..fixture::LIMITS
    };
    let module = fixture::llm_component(arguments.tokens);
    let mut job = fixture::submit(module, limits, &fixture::llm_input(prompt));
    models.name_in(&mut job, "tiny");
    let new_run = || Run {
        models: Arc::clone(&models) as _,
        ..fixture::run_with(Arc::new(NoEvents))
    };
    let verified = verify(job, runtime).expect("it is good");
    let job = runtime.prepare(verified, &new_run()).await;
    let job = job.expect("it can be run");

    match arguments.roads {
        Roads::Native => {
            run_native(model, prompt, arguments.tokens).await;
            return (vec![], vec![]);
        }
        Roads::Guest => {
            run_guest(&job, runtime, new_run()).await;
            return (vec![], vec![]);
        }
        Roads::Both => {}
    }
    let (mut native, mut guest) = (vec![], vec![]);
    for round in 0..=arguments.rounds {
        // Whoever goes first meets what went before the round.
        let (native_took, guest_took) = if round % 2 == 0 {
            let native = run_native(model, prompt, arguments.tokens).await;
            (native, run_guest(&job, runtime, new_run()).await)
        } else {
            let guest = run_guest(&job, runtime, new_run()).await;
            (run_native(model, prompt, arguments.tokens).await, guest)
        };
        assert_eq!(
            native_took.1, guest_took.1,
            "both generate the same, or nothing is compared"
        );
        if round > 0 {
            // The first round warms caches up.
            native.push(native_took.0);
            guest.push(guest_took.0);
        }
    }
    (native, guest)
}

/// On a thread of its own, as the sandbox has its inference run.
async fn run_native(model: &Arc<Model>, prompt: &[TokenId], tokens: u32) -> (f64, Vec<u8>) {
    let (model, prompt) = (Arc::clone(model), prompt.to_owned());
    let started = Instant::now();
    let task = tokio::task::spawn_blocking(move || fixture::native_text(&model, &prompt, tokens));
    let (text, made) = task.await.expect("it does not panic");
    let took = started.elapsed().as_secs_f64();
    assert_eq!(made, tokens as usize, "the model ended its text early");
    (took, text.into_bytes())
}

async fn run_guest(job: &SandboxedJob, runtime: &Runtime, run: Run) -> (f64, Vec<u8>) {
    let started = Instant::now();
    let outcome = job.run(runtime, run).await;
    let took = started.elapsed().as_secs_f64();
    assert_eq!(outcome.exit, ExitStatus::Done, "{:?}", outcome.error);
    (took, outcome.output)
}

/// Median, its interval, minimum and maximum.
struct Spread {
    median: f64,
    from: f64,
    to: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let count = values.len();
        let rank = rank_below_median(count);
        Self {
            median: f64::midpoint(values[(count - 1) / 2], values[count / 2]),
            from: values[rank],
            to: values[count - 1 - rank],
            min: values[0],
            max: values[count - 1],
        }
    }

    fn json(&self) -> String {
        let Self {
            median,
            from,
            to,
            min,
            max,
        } = self;
        format!(
            r#"{{"median":{median:.5},"from":{from:.5},"to":{to:.5},"min":{min:.5},"max":{max:.5}}}"#
        )
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            median,
            from,
            to,
            min,
            max,
        } = self;
        write!(
            f,
            "{median:.4} (95 %: {from:.4} to {to:.4}; all: {min:.4} to {max:.4})"
        )
    }
}

/// The index from either end of sorted values between which their distribution's median lies with 95 %
/// certainty: each value is above it or below with equal chance. 0 where there are too few values.
fn rank_below_median(count: usize) -> usize {
    let mut chance = 0.5f64.powf(count as f64);
    let mut below = chance;
    let mut rank = 0;
    while below <= 0.025 && rank + 1 < count / 2 {
        rank += 1;
        chance *= (count - rank + 1) as f64 / rank as f64;
        below += chance;
    }
    rank.saturating_sub(usize::from(below > 0.025))
}
