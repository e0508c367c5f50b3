//! llama.cpp's own `llama-bench`, on the same file, to compare with.
//! In: the program, a model, how many tokens. Out: its rates with the numbers of threads that are best for
//! it, or why there are none, and the ratios of ours to them.
//! It runs the program with the flags that it shows, and reads nothing but the JSON that it prints.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use serde::Deserialize;
use serde_json::json;

use crate::spread::Spread;
use crate::streams::Figures;
use crate::{Failure, Lengths};

/// Why there are no figures of llama.cpp.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LlamaBenchError {
    #[error(
        "could not start `{program}`: --against takes the path of llama.cpp's `llama-bench`, which \
         `cargo xtask bench inference --against llama.cpp` builds for CPUs, and \
         `cmake -B build -DGGML_VULKAN=ON && cmake --build build --target llama-bench` for GPUs"
    )]
    Missing {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{program}` failed ({status}): {said}")]
    Failed {
        program: PathBuf,
        status: String,
        /// The end of what it wrote to standard error.
        said: String,
    },
    #[error("llama-bench's output is not the JSON that was asked for: {begin:?}")]
    NotJson {
        /// The output's begin.
        begin: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("llama-bench's output has no test of {prompt} prompt and {generate} generated tokens")]
    NoTest { prompt: u32, generate: u32 },
    #[error("llama-bench says {rate} tokens/s of {prompt} prompt and {generate} generated tokens")]
    Rate {
        prompt: u32,
        generate: u32,
        rate: f64,
    },
}

/// One test of the output; it has many more fields.
#[derive(Debug, Clone, Deserialize)]
struct Test {
    n_prompt: u32,
    n_gen: u32,
    /// Tokens in the context before.
    #[serde(default)]
    n_depth: u32,
    /// Tokens a second.
    avg_ts: f64,
    #[serde(default)]
    n_threads: u32,
    #[serde(default)]
    build_commit: String,
    #[serde(default)]
    backends: String,
    #[serde(default)]
    gpu_info: String,
}

/// What is measured.
#[derive(Debug, Clone, Copy)]
enum What {
    /// A prompt that is read.
    Prompt,
    /// Tokens that are generated on an empty context.
    Empty,
    /// Tokens that are generated after a prompt, as ours are.
    Generation,
}

/// The program, and what its runs came to.
pub(crate) struct LlamaBench {
    program: PathBuf,
    model: PathBuf,
    lengths: Lengths,
    more: Vec<String>,
    /// The best for prompts and for generation; none where the arguments name a number.
    threads: Option<[u32; 2]>,
    /// Tokens a second, one a round.
    prompts: Vec<f64>,
    empties: Vec<f64>,
    generations: Vec<f64>,
    /// Commit, backends and GPU, as it names them.
    build: String,
}

/// What llama.cpp did where nothing else ran.
#[derive(Debug, PartialEq)]
pub(crate) struct Reference {
    prompt: f64,
    generation: f64,
    machine: String,
}

impl FromStr for Reference {
    type Err = Failure;

    /// `PROMPT:GENERATION:MACHINE`, tokens a second.
    fn from_str(text: &str) -> Result<Self, Failure> {
        let mut parts = text.splitn(3, ':');
        let mut next = || {
            parts
                .next()
                .ok_or("--reference is PROMPT:GENERATION:MACHINE")
        };
        Ok(Self {
            prompt: next()?.parse()?,
            generation: next()?.parse()?,
            machine: next()?.to_owned(),
        })
    }
}

impl LlamaBench {
    /// `more` goes behind the arguments of ours: a device, threads.
    pub(crate) fn new(program: &Path, model: &Path, lengths: Lengths, more: &[String]) -> Self {
        Self {
            program: program.to_owned(),
            model: model.to_owned(),
            lengths,
            more: more.to_owned(),
            threads: None,
            prompts: Vec::new(),
            empties: Vec::new(),
            generations: Vec::new(),
            build: String::new(),
        }
    }

    /// Finds the numbers of threads that are best for it, of those up to `cpus`; none where the arguments name
    /// one.
    pub(crate) fn find_threads(&mut self, cpus: u32) -> Result<(), LlamaBenchError> {
        if self
            .more
            .iter()
            .any(|word| word == "-t" || word == "--threads")
        {
            return Ok(());
        }
        let counts: Vec<_> = candidates(cpus).iter().map(u32::to_string).collect();
        let Lengths { prompt, generate } = self.lengths;
        let mut arguments = self.arguments(prompt, generate, Some(&counts.join(",")));
        // The last word holds: one repetition could be of a moment in which the machine was busy.
        arguments.extend(["-r", "3"].map(OsString::from));
        let tests = self.tests(&arguments)?;
        let best = |what| self.best(&tests, what).map(|test| test.n_threads);
        self.threads = Some([best(What::Prompt)?, best(What::Empty)?]);
        Ok(())
    }

    /// What it does in a round, for people.
    pub(crate) fn name(&self) -> String {
        match self.threads {
            Some([prompt, generation]) => format!(
                "llama.cpp, 1 stream, {prompt} {} of the CPU for prompts, {generation} for generation",
                if prompt == 1 { "thread" } else { "threads" }
            ),
            None => "llama.cpp, 1 stream".to_owned(),
        }
    }

    /// One round's commands: the prompt, then generation on an empty context and after a prompt.
    fn commands(&self) -> [Vec<OsString>; 2] {
        let Lengths { prompt, generate } = self.lengths;
        let [one, other] = match self.threads {
            Some(counts) => counts.map(|count| Some(count.to_string())),
            None => [None, None],
        };
        let mut generation = self.arguments(0, generate, other.as_deref());
        generation.extend(["-d".to_owned(), format!("0,{prompt}")].map(OsString::from));
        [self.arguments(prompt, 0, one.as_deref()), generation]
    }

    fn arguments(&self, prompt: u32, generate: u32, threads: Option<&str>) -> Vec<OsString> {
        let mut arguments = vec![OsString::from("-m"), self.model.clone().into()];
        let counts = ["-p", &prompt.to_string(), "-n", &generate.to_string()].map(OsString::from);
        arguments.extend(counts);
        arguments.extend(["-r", "1", "-o", "json"].map(OsString::from));
        if let Some(threads) = threads {
            arguments.extend(["-t", threads].map(OsString::from));
        }
        arguments.extend(self.more.iter().map(OsString::from));
        arguments
    }

    /// One repetition of both tests.
    pub(crate) fn run(&mut self) -> Result<(), LlamaBenchError> {
        let mut tests = Vec::new();
        for arguments in self.commands() {
            tests.extend(self.tests(&arguments)?);
        }
        let prompt = self.best(&tests, What::Prompt)?.avg_ts;
        let generation = self.best(&tests, What::Generation)?;
        self.build = generation.build();
        self.prompts.push(prompt);
        self.empties.push(self.best(&tests, What::Empty)?.avg_ts);
        self.generations.push(generation.avg_ts);
        Ok(())
    }

    fn tests(&self, arguments: &[OsString]) -> Result<Vec<Test>, LlamaBenchError> {
        let output = Command::new(&self.program).args(arguments).output();
        let output = output.map_err(|source| LlamaBenchError::Missing {
            program: self.program.clone(),
            source,
        })?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let lines: Vec<_> = said.lines().rev().take(5).collect();
            return Err(LlamaBenchError::Failed {
                program: self.program.clone(),
                status: output.status.to_string(),
                said: lines.into_iter().rev().collect::<Vec<_>>().join("; "),
            });
        }
        parse(&output.stdout)
    }

    /// The fastest of the tests that are of this.
    fn best<'a>(&self, tests: &'a [Test], what: What) -> Result<&'a Test, LlamaBenchError> {
        let Lengths { prompt, generate } = self.lengths;
        let (prompt, generate, depth) = match what {
            What::Prompt => (prompt, 0, 0),
            What::Empty => (0, generate, 0),
            What::Generation => (0, generate, prompt),
        };
        let wanted = (prompt, generate, depth);
        let of = tests.iter();
        let of = of.filter(|test| (test.n_prompt, test.n_gen, test.n_depth) == wanted);
        let test = of.max_by(|one, other| one.avg_ts.total_cmp(&other.avg_ts));
        let test = test.ok_or(LlamaBenchError::NoTest { prompt, generate })?;
        let rate = test.avg_ts;
        if rate.is_finite() && rate > 0.0 {
            Ok(test)
        } else {
            Err(LlamaBenchError::Rate {
                prompt,
                generate,
                rate,
            })
        }
    }

    /// Its figures beside ours.
    pub(crate) fn compare(
        &self,
        figures: &[Figures],
        reference: Option<&Reference>,
    ) -> Option<Comparison> {
        let prompt = Spread::of(self.prompts.clone())?;
        let empty = Spread::of(self.empties.clone())?;
        let generation = Spread::of(self.generations.clone())?;
        let mut lines = vec![
            format!(
                "{}, {}, {} runs",
                self.name(),
                self.build,
                self.prompts.len()
            ),
            format!("  prompt: {prompt} tokens/s"),
            format!("  generation after it: {generation} tokens/s"),
            format!("  generation on an empty context: {empty} tokens/s"),
        ];
        let mut ratios = Vec::new();
        for ours in figures {
            // It runs one stream, so that is what it is compared with.
            let ratio = |ours_of, theirs| {
                let ratio = Spread::of_ratios(ours_of, theirs);
                ratio.filter(|_| ours.streams == 1)
            };
            let of_prompt = ratio(&ours.prompts, &self.prompts);
            let of_generation = ratio(&ours.generations, &self.generations);
            ratios.push(of_prompt.zip(of_generation).map(|(prompt, generation)| {
                lines.push(format!("{} against llama.cpp, round by round", ours.name));
                lines.push(format!("  ratio.prompt {prompt:.2}"));
                lines.push(format!("  ratio.generate {generation:.2}"));
                json!({ "prompt": prompt.json(), "generate": generation.json() })
            }));
        }
        let busy = reference.and_then(|it| it.busy(prompt.median, empty.median));
        lines.extend(busy.clone());
        let document = json!({
            "commands": self.commands().iter().map(|it| self.shown(it)).collect::<Vec<_>>(),
            "build": self.build,
            "prompt_tokens_per_second": prompt.json(),
            "generated_tokens_per_second": generation.json(),
            "generated_tokens_per_second_on_an_empty_context": empty.json(),
            "busy": busy,
        });
        Some(Comparison {
            lines,
            document,
            ratios,
        })
    }

    fn shown(&self, arguments: &[OsString]) -> String {
        let words = arguments.iter().map(|word| word.to_string_lossy());
        let words: Vec<_> = words.collect();
        format!("{} {}", self.program.display(), words.join(" "))
    }
}

/// What it came to, for people, and the same as JSON.
pub(crate) struct Comparison {
    pub(crate) lines: Vec<String>,
    pub(crate) document: serde_json::Value,
    /// One for each of our figures; none of those that are of several streams.
    pub(crate) ratios: Vec<Option<serde_json::Value>>,
}

/// The share of the reference under which a run is doubted.
const BUSY: f64 = 0.9;

impl Reference {
    /// That llama.cpp itself was slow, if it was.
    fn busy(&self, prompt: f64, generation: f64) -> Option<String> {
        let shares = [prompt / self.prompt, generation / self.generation];
        shares.iter().any(|share| *share < BUSY).then(|| {
            let [prompt, generation] = shares.map(|share| share * 100.0);
            format!(
                "this machine was busy, or is a slower one: llama.cpp itself did {prompt:.0} % of the prompt and \
                 {generation:.0} % of the generation that it did on {}",
                self.machine
            )
        })
    }
}

/// Numbers of threads to try: all up to 16 CPUs, and then each half more than the last, and all.
fn candidates(cpus: u32) -> Vec<u32> {
    let mut counts = Vec::new();
    let mut count = 1;
    while count < cpus {
        counts.push(count);
        count += if count < 16 { 1 } else { count / 2 };
    }
    counts.push(cpus);
    counts
}

impl Test {
    fn build(&self) -> String {
        let parts = [&self.build_commit, &self.backends, &self.gpu_info];
        let parts = parts.into_iter().filter(|it| !it.is_empty());
        parts.map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}

/// Reads `-o json`: a list of tests, each of which only reads a prompt or only generates.
fn parse(output: &[u8]) -> Result<Vec<Test>, LlamaBenchError> {
    serde_json::from_slice(output).map_err(|source| LlamaBenchError::NotJson {
        begin: String::from_utf8_lossy(output).chars().take(80).collect(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTHS: Lengths = Lengths {
        prompt: 512,
        generate: 128,
    };

    fn bench() -> LlamaBench {
        LlamaBench::new(Path::new("llama-bench"), Path::new("m.gguf"), LENGTHS, &[])
    }

    fn test(prompt: u32, generate: u32, threads: u32, rate: &str) -> String {
        at_depth(prompt, generate, (0, threads), rate)
    }

    fn at_depth(prompt: u32, generate: u32, (depth, threads): (u32, u32), rate: &str) -> String {
        format!(
            r#"{{"build_commit": "8cf427ff", "build_number": 5163, "gpu_info": "A card",
                "backends": "Vulkan", "n_prompt": {prompt}, "n_gen": {generate}, "n_depth": {depth},
                "n_threads": {threads}, "avg_ns": 72135640, "avg_ts": {rate}, "samples_ts": [ {rate} ]}}"#
        )
    }

    #[test]
    fn the_fastest_of_all_numbers_of_threads_is_taken() {
        let output = [
            test(512, 0, 1, "700.5"),
            test(512, 0, 2, "1100.5"),
            test(0, 128, 1, "118.8"),
            test(0, 128, 2, "110.0"),
            at_depth(0, 128, (512, 1), "98.1"),
        ];
        let tests = parse(format!("[{}]", output.join(",")).as_bytes()).unwrap();
        let mut bench = bench();
        let best = |what| bench.best(&tests, what).unwrap();
        let (prompt, generation) = (best(What::Prompt), best(What::Empty));
        assert_eq!((prompt.n_threads, prompt.avg_ts), (2, 1100.5));
        assert_eq!((generation.n_threads, generation.avg_ts), (1, 118.8));
        assert_eq!(best(What::Generation).avg_ts, 98.1);
        assert_eq!(generation.build(), "8cf427ff, Vulkan, A card");
        bench.threads = Some([2, 1]);
        let commands = bench.commands().map(|it| bench.shown(&it));
        assert_eq!(
            commands,
            [
                "llama-bench -m m.gguf -p 512 -n 0 -r 1 -o json -t 2",
                "llama-bench -m m.gguf -p 0 -n 128 -r 1 -o json -t 1 -d 0,512"
            ]
        );
    }

    #[test]
    fn every_number_of_threads_is_tried_while_they_are_few() {
        assert_eq!(candidates(1), [1]);
        assert_eq!(candidates(4), [1, 2, 3, 4]);
        let many = candidates(64);
        assert_eq!(many[..16], (1..=16).collect::<Vec<_>>());
        assert_eq!(many[16..], [24, 36, 54, 64]);
    }

    #[test]
    fn other_output_is_an_error_that_says_what_is_wrong() {
        let one = test(512, 0, 1, "7100.5");
        let table = [
            (
                "no model".to_owned(),
                "is not the JSON that was asked for: \"no model\"",
            ),
            (r#"[{"n_prompt": 512}]"#.to_owned(), "is not the JSON"),
            ("[]".to_owned(), "no test of 0 prompt and 128 generated"),
            (format!("[{one}]"), "no test of 0 prompt and 128 generated"),
            (
                format!("[{one}, {}]", test(0, 128, 1, "0")),
                "says 0 tokens/s of 0 prompt and 128 generated",
            ),
        ];
        for (output, wanted) in table {
            let tests = parse(output.as_bytes());
            let best = tests.and_then(|tests| bench().best(&tests, What::Empty).cloned());
            let error = best.unwrap_err().to_string();
            assert!(error.contains(wanted), "{output}: {error}");
        }
    }

    #[test]
    fn a_run_in_which_llama_cpp_itself_is_slow_is_doubted() {
        let reference: Reference = "268:110:two quiet cores: a server".parse().unwrap();
        assert_eq!(reference.machine, "two quiet cores: a server");
        assert_eq!(reference.busy(268.0 * 0.91, 110.0 * 2.0), None);
        let said = reference.busy(300.0, 88.0).unwrap();
        for part in ["busy", "112 % of the prompt", "80 % of the generation"] {
            assert!(said.contains(part), "{said}");
        }
        assert!("268:110".parse::<Reference>().is_err());
    }

    #[test]
    fn a_program_that_is_not_there_is_said_how_to_build() {
        let nowhere = Path::new("/nowhere/llama-bench");
        let mut bench = LlamaBench::new(nowhere, Path::new("m.gguf"), LENGTHS, &[]);
        let error = bench.run().unwrap_err().to_string();
        assert!(error.contains("/nowhere/llama-bench"), "{error}");
        assert!(error.contains("--against llama.cpp"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn what_a_failing_program_says_is_shown() {
        let named = ["-t".to_owned(), "3".to_owned()];
        let mut bench = LlamaBench::new(Path::new("false"), Path::new("m"), LENGTHS, &named);
        bench.find_threads(8).unwrap();
        assert_eq!(bench.threads, None, "the person named a number");
        assert!(matches!(bench.run(), Err(LlamaBenchError::Failed { .. })));
    }
}
