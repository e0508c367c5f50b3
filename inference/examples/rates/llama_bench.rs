//! llama.cpp's own `llama-bench`, on the same file, to compare with.
//! In: the program, a model, how many tokens. Out: its rates, or why there are none.
//! It runs the program with the flags that it shows, and reads nothing but the JSON that it prints.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::json;

use crate::Lengths;
use crate::spread::Spread;
use crate::streams::Figures;

/// Why there are no figures of llama.cpp.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LlamaBenchError {
    #[error(
        "could not start `{program}`: --against takes the path of llama.cpp's `llama-bench`, which \
         `cmake -B build -DGGML_VULKAN=ON && cmake --build build --target llama-bench` builds there"
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
#[derive(Debug, Deserialize)]
struct Test {
    n_prompt: u32,
    n_gen: u32,
    /// Tokens a second.
    avg_ts: f64,
    #[serde(default)]
    build_commit: String,
    #[serde(default)]
    backends: String,
    #[serde(default)]
    gpu_info: String,
}

/// The program, and what its runs came to.
pub(crate) struct LlamaBench {
    program: PathBuf,
    arguments: Vec<OsString>,
    prompt: Vec<f64>,
    generation: Vec<f64>,
    /// Commit, backends and GPU, as it names them.
    build: String,
}

/// Rates of one run, in tokens a second.
#[derive(Debug, PartialEq)]
struct Rates {
    prompt: f64,
    generation: f64,
    build: String,
}

impl LlamaBench {
    /// `more` goes behind the arguments of ours: a device, threads.
    pub(crate) fn new(program: &Path, model: &Path, lengths: Lengths, more: &[String]) -> Self {
        let Lengths { prompt, generate } = lengths;
        let mut arguments = vec![OsString::from("-m"), model.into()];
        let counts = ["-p", &prompt.to_string(), "-n", &generate.to_string()].map(OsString::from);
        arguments.extend(counts);
        arguments.extend(["-r", "1", "-o", "json"].map(OsString::from));
        arguments.extend(more.iter().map(OsString::from));
        Self {
            program: program.to_owned(),
            arguments,
            prompt: Vec::new(),
            generation: Vec::new(),
            build: String::new(),
        }
    }

    /// The command, for people.
    pub(crate) fn command(&self) -> String {
        let words = self.arguments.iter().map(|word| word.to_string_lossy());
        let words: Vec<_> = words.collect();
        format!("{} {}", self.program.display(), words.join(" "))
    }

    /// One repetition of both tests.
    pub(crate) fn run(&mut self, lengths: Lengths) -> Result<(), LlamaBenchError> {
        let output = Command::new(&self.program).args(&self.arguments).output();
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
        let rates = parse(&output.stdout, lengths)?;
        self.prompt.push(rates.prompt);
        self.generation.push(rates.generation);
        self.build = rates.build;
        Ok(())
    }

    /// Its figures beside ours: lines for people, and the same as JSON.
    pub(crate) fn compare(&self, figures: &[Figures]) -> Option<(Vec<String>, serde_json::Value)> {
        let prompt = Spread::of(self.prompt.clone())?;
        let generation = Spread::of(self.generation.clone())?;
        let mut lines = vec![
            format!(
                "llama.cpp {}, 1 stream, {} runs",
                self.build,
                self.prompt.len()
            ),
            format!("  prompt: {prompt} tokens/s"),
            format!("  generation, on an empty context: {generation} tokens/s"),
        ];
        let mut ratios = Vec::new();
        // It runs one stream, so that is what it is compared with.
        for ours in figures.iter().filter(|ours| ours.streams == 1) {
            let ratio_of_prompt = ours.prompt.median / prompt.median;
            let ratio_of_generation = ours.generation.median / generation.median;
            lines.push(format!(
                "{} against llama.cpp: prompt {ratio_of_prompt:.2}×, generation {ratio_of_generation:.2}×",
                ours.name
            ));
            ratios.push(json!({
                "of": ours.name,
                "prompt": ratio_of_prompt,
                "generation": ratio_of_generation,
            }));
        }
        let document = json!({
            "command": self.command(),
            "build": self.build,
            "prompt_tokens_per_second": prompt.json(),
            "generated_tokens_per_second": generation.json(),
            "ratios_of_medians": ratios,
        });
        Some((lines, document))
    }
}

/// Reads `-o json`: a list of tests, one that only reads a prompt and one that only generates.
fn parse(output: &[u8], lengths: Lengths) -> Result<Rates, LlamaBenchError> {
    let tests: Vec<Test> =
        serde_json::from_slice(output).map_err(|source| LlamaBenchError::NotJson {
            begin: String::from_utf8_lossy(output).chars().take(80).collect(),
            source,
        })?;
    let test = |prompt: u32, generate: u32| {
        let mut tests = tests.iter();
        let test = tests.find(|test| (test.n_prompt, test.n_gen) == (prompt, generate));
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
    };
    let (read, made) = (test(lengths.prompt, 0)?, test(0, lengths.generate)?);
    let parts = [&made.build_commit, &made.backends, &made.gpu_info];
    let parts: Vec<_> = parts.into_iter().filter(|it| !it.is_empty()).collect();
    let parts: Vec<_> = parts.into_iter().map(String::as_str).collect();
    Ok(Rates {
        prompt: read.avg_ts,
        generation: made.avg_ts,
        build: parts.join(", "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTHS: Lengths = Lengths {
        prompt: 512,
        generate: 128,
    };

    fn test(prompt: u32, generate: u32, rate: &str) -> String {
        format!(
            r#"{{"build_commit": "8cf427ff", "build_number": 5163, "gpu_info": "A card",
                "backends": "Vulkan", "n_prompt": {prompt}, "n_gen": {generate}, "n_depth": 0,
                "avg_ns": 72135640, "avg_ts": {rate}, "samples_ts": [ {rate} ]}}"#
        )
    }

    #[test]
    fn rates_are_found_by_their_lengths() {
        let output = format!("[{}, {}]", test(512, 0, "7100.5"), test(0, 128, "118.8"));
        let wanted = Rates {
            prompt: 7100.5,
            generation: 118.8,
            build: "8cf427ff, Vulkan, A card".to_owned(),
        };
        assert_eq!(parse(output.as_bytes(), LENGTHS).unwrap(), wanted);
    }

    #[test]
    fn other_output_is_an_error_that_says_what_is_wrong() {
        let one = test(512, 0, "7100.5");
        let table = [
            (
                "no model".to_owned(),
                "is not the JSON that was asked for: \"no model\"",
            ),
            (r#"[{"n_prompt": 512}]"#.to_owned(), "is not the JSON"),
            ("[]".to_owned(), "no test of 512 prompt and 0 generated"),
            (format!("[{one}]"), "no test of 0 prompt and 128 generated"),
            (
                format!("[{one}, {}]", test(0, 128, "0")),
                "says 0 tokens/s of 0 prompt and 128 generated",
            ),
        ];
        for (output, wanted) in table {
            let error = parse(output.as_bytes(), LENGTHS).unwrap_err().to_string();
            assert!(error.contains(wanted), "{output}: {error}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_said_how_to_build() {
        let nowhere = Path::new("/nowhere/llama-bench");
        let mut bench = LlamaBench::new(nowhere, Path::new("m.gguf"), LENGTHS, &[]);
        let error = bench.run(LENGTHS).unwrap_err().to_string();
        assert!(error.contains("/nowhere/llama-bench"), "{error}");
        assert!(error.contains("cmake"), "{error}");
        let command = "/nowhere/llama-bench -m m.gguf -p 512 -n 128 -r 1 -o json";
        assert_eq!(bench.command(), command);
    }

    #[cfg(unix)]
    #[test]
    fn what_a_failing_program_says_is_shown() {
        let more = ["-c".to_owned()];
        let mut bench = LlamaBench::new(Path::new("false"), Path::new("m"), LENGTHS, &more);
        assert!(matches!(
            bench.run(LENGTHS),
            Err(LlamaBenchError::Failed { .. })
        ));
    }
}
