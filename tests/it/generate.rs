//! The engine alone: `model generate` and `model tokenize`.

use crate::fixture::{MODEL, Sandbox};

#[test]
fn the_same_options_give_the_same_text() {
    let Some(sandbox) = Sandbox::with_model() else {
        return;
    };
    let run = |threads: &str| {
        let arguments = [
            "model",
            "generate",
            MODEL,
            "--prompt",
            "Why is the sky blue?",
            "--max-tokens",
            "16",
            "--json",
            "--threads",
            threads,
        ];
        sandbox.run(&arguments).expect(0).json()
    };
    let (one, two) = (run("1"), run("2"));
    for key in ["text", "prompt_token_ids", "token_ids"] {
        assert_eq!(one[key], two[key], "{key}");
    }
    assert_eq!(one["token_ids"].as_array().unwrap().len(), 16);
    assert!(
        one["rates"]["generated_tokens_per_second"]
            .as_f64()
            .unwrap()
            > 0.0
    );
    // What streams is what the document holds.
    let arguments = [
        "model",
        "generate",
        MODEL,
        "--prompt",
        "Why is the sky blue?",
        "--max-tokens",
        "16",
    ];
    let streamed = sandbox.run(&arguments).expect(0).says("tokens/s");
    assert_eq!(
        streamed.stdout.trim_end(),
        one["text"].as_str().unwrap().trim_end()
    );
}

#[test]
fn raw_prompts_are_taken_as_they_are() {
    let Some(sandbox) = Sandbox::with_model() else {
        return;
    };
    let text = "<|im_start|>user\nHi<|im_end|>\n";
    let tokens = |more: &[&str]| {
        let arguments = [
            &["model", "tokenize", MODEL, "--text", text, "--json"],
            more,
        ]
        .concat();
        sandbox.run(&arguments).expect(0).json()["token_ids"].clone()
    };
    let (raw, plain) = (tokens(&["--raw"]), tokens(&[]));
    assert!(raw.as_array().unwrap().len() < plain.as_array().unwrap().len());
    let generated = sandbox
        .run_with_input(
            &[
                "model",
                "generate",
                MODEL,
                "--prompt-file",
                "-",
                "--raw",
                "--max-tokens",
                "1",
                "--json",
            ],
            text.as_bytes(),
        )
        .expect(0)
        .json();
    assert_eq!(generated["prompt_token_ids"], raw);
}

#[test]
fn numbers_out_of_range_are_2() {
    let Some(sandbox) = Sandbox::with_model() else {
        return;
    };
    for (option, value) in [
        ("--temperature", "-1"),
        ("--temperature", "NaN"),
        ("--top-p", "0"),
        ("--min-p", "2"),
        ("--repetition-penalty", "0"),
        ("--stop", ""),
        ("--threads", "1000"),
    ] {
        let argument = format!("{option}={value}");
        let arguments = ["model", "generate", MODEL, "--prompt", "hi", &argument];
        let ended = sandbox.run(&arguments);
        assert_eq!(ended.code, 2, "{argument}: {ended:?}");
    }
    let long = "word ".repeat(10_000);
    sandbox
        .run_with_input(
            &["model", "generate", MODEL, "--prompt-file", "-"],
            long.as_bytes(),
        )
        .expect(2)
        .says("tokens, the model takes");
    sandbox
        .run_with_input(
            &["model", "generate", MODEL, "--prompt-file", "-"],
            b"caf\xe9",
        )
        .expect(2)
        .says("not UTF-8 text: byte 3");
}
