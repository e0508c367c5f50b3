//! The example jobs on real models: what their READMEs and docs/openai-jobs.md show, the same on
//! any number of threads, receipts that hold, and modules that are those of the reference
//! manifests.

use std::fs;

use serde_json::{Value, json};

use crate::fixture::{Ended, Sandbox, repository};

/// Runs a job on its sample; its output, which its README shows and an audit finds again.
#[track_caller]
fn sample(sandbox: &Sandbox, job: &str) -> String {
    let (_, output) = audited(sandbox, job);
    shown(job, "", &output);
    output
}

/// The job's README has what its sample gives, behind the command and its end.
#[track_caller]
fn shown(job: &str, end: &str, output: &str) {
    let readme = repository().join("jobs").join(job).join("README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let shown = format!("--input jobs/{job}/sample.json{end}\n{output}```");
    assert!(
        readme.contains(&shown),
        "not in the README of {job}:\n{output}"
    );
}

/// The path of a job's manifest, and its output on its sample, which an audit finds again.
#[track_caller]
fn audited(sandbox: &Sandbox, job: &str) -> (String, String) {
    let folder = repository().join("jobs").join(job);
    let built = sandbox.build(&folder).expect(0).json();
    let digest = built["module"]["digest"].as_str().unwrap();
    same_as_the_reference(sandbox, job, digest);
    let manifest = built["manifest"]["path"].as_str().unwrap();
    let input = folder.join("sample.json");
    let input = input.to_str().unwrap();
    let run = [
        "run",
        manifest,
        "--input",
        input,
        "--threads",
        "1",
        "--receipt",
        "r.cbor",
    ];
    let output = sandbox.run(&run).expect(0).stdout;
    sandbox.run(&["receipt", "verify", "r.cbor"]).expect(0);
    let audit = ["audit", "r.cbor", "--input", input, "--threads", "2"];
    sandbox.run(&audit).expect(0);
    (manifest.to_owned(), output)
}

/// Wherever std for wasm is the one that the reference manifest names, so is the module.
#[track_caller]
#[expect(clippy::print_stdout, reason = "the test's own report")]
fn same_as_the_reference(sandbox: &Sandbox, job: &str, digest: &str) {
    let path = repository().join("manifests").join(format!("{job}.toml"));
    let reference = fs::read_to_string(&path).unwrap();
    if !sandbox
        .std_digest()
        .is_some_and(|std| reference.contains(&std))
    {
        println!(
            "skipped: std for wasm is not the one that {} names",
            path.display()
        );
        return;
    }
    assert!(
        reference.contains(digest),
        "the module is {digest}: put the manifest that `tussah build jobs/{job}` writes below the comment of {}",
        path.display()
    );
}

/// How a job ends on an input.
fn run(sandbox: &Sandbox, job: &str, input: &str) -> Ended {
    let folder = repository().join("jobs").join(job);
    let built = sandbox.build(&folder).expect(0).json();
    run_built(sandbox, built["manifest"]["path"].as_str().unwrap(), input)
}

/// How a job that was built before ends on an input.
fn run_built(sandbox: &Sandbox, manifest: &str, input: &str) -> Ended {
    sandbox.run_with_input(&["run", manifest, "--input", "-"], input.as_bytes())
}

#[test]
fn tickets_get_their_topics() {
    let Some(sandbox) = Sandbox::with_all() else {
        return;
    };
    let output = sample(&sandbox, "classify");
    let lines: Vec<Value> = output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let labels: Vec<&str> = lines
        .iter()
        .map(|line| line["label"].as_str().unwrap())
        .collect();
    assert_eq!(labels, ["billing", "technical problem", "shipping"]);
    for line in &lines {
        let scores = line["scores"].as_object().unwrap();
        let sum: f64 = scores.values().map(|score| score.as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 0.001, "{line}");
    }
    let twice = r#"{"text": "x", "labels": [{"name": "a"}, {"name": "a"}]}"#;
    for (input, says) in [
        (twice, "labels[1].name: \"a\" is there twice"),
        ("{}", "missing field `labels`"),
    ] {
        run(&sandbox, "classify", input).expect(1).says(says);
    }
}

#[test]
fn labels_of_every_kind_are_scored() {
    let Some(sandbox) = Sandbox::with_all() else {
        return;
    };
    // Some begin others, some are not ASCII; then one alone, then thirty.
    let odd = ["bill", "billing", "billing address", "Größe", "配送", "🚚"];
    let many: Vec<String> = (0..30).map(|at| format!("topic {at}")).collect();
    for names in [odd.map(String::from).to_vec(), vec!["only".into()], many] {
        let labels: Vec<Value> = names.iter().map(|name| json!({ "name": name })).collect();
        let input = json!({ "text": "Where is my parcel?", "labels": labels });
        let line = run(&sandbox, "classify", &input.to_string())
            .expect(0)
            .json();
        let scores = line["scores"].as_object().unwrap();
        assert_eq!(scores.len(), names.len());
        let best = scores[line["label"].as_str().unwrap()].as_f64().unwrap();
        assert!(scores.values().all(|score| score.as_f64().unwrap() <= best));
    }
}

#[test]
fn a_group_chat_gets_a_reply() {
    let Some(sandbox) = Sandbox::with_all() else {
        return;
    };
    let output = sample(&sandbox, "draft-reply");
    let words = output.split_whitespace().count();
    assert!((1..=60).contains(&words), "{output}");
    // Two people, few words; then one who would answer himself.
    let input = r#"{"max_words": 12, "messages": [{"role": "user", "content": "Are you open on Sunday?"}]}"#;
    let reply = run(&sandbox, "draft-reply", input).expect(0).stdout;
    assert!(
        (1..=12).contains(&reply.split_whitespace().count()),
        "{reply}"
    );
    let own = input.replace("user", "assistant");
    let says = "the last message has the role `assistant`";
    run(&sandbox, "draft-reply", &own).expect(1).says(says);
}

#[test]
fn documents_are_found_by_meaning() {
    let Some(sandbox) = Sandbox::with_all() else {
        return;
    };
    if !sandbox.link_model_named("minilm") {
        crate::fixture::missing("the model minilm", "REQUIRE_MODEL");
        return;
    }
    let hits: Value = serde_json::from_str(&sample(&sandbox, "embed-search")).unwrap();
    assert_eq!(hits[0]["id"], "guide");
    let passage = hits[0]["passage"]["text"].as_str().unwrap();
    assert!(passage.contains("The ferry to the island"), "{passage}");

    // No word in common with the query; then a long text in which one sentence answers.
    let documents = [
        "The stock market fell sharply this morning.",
        "Simmer the tomatoes with garlic for twenty minutes.",
        "A kitten slept on the warm windowsill.",
    ];
    let filler = "The committee met again and spoke about the colour of the new curtains. ";
    let answer = "Our cat weighs four kilos, says the vet. ";
    let long = [filler.repeat(30), answer.to_owned(), filler.repeat(30)].concat();
    let ranked = |query: &str, documents: &[&str]| {
        let input = json!({ "query": query, "documents": documents }).to_string();
        run(&sandbox, "embed-search", &input).expect(0).json()
    };
    for (query, best) in [
        ("share prices and trading", 0),
        ("How do I cook pasta sauce?", 1),
        ("pets at home", 2),
    ] {
        assert_eq!(ranked(query, &documents)[0]["index"], best, "{query}");
    }
    let hits = ranked("How heavy is the animal?", &[&long]);
    let passage = &hits[0]["passage"];
    let text = passage["text"].as_str().unwrap();
    assert!(text.contains(answer.trim()), "{text}");
    let place = |at: usize| usize::try_from(passage["bytes"][at].as_u64().unwrap()).unwrap();
    assert_eq!(&long[place(0)..place(1)], text);

    let twice =
        r#"{"query": "q", "documents": [{"id": "a", "text": "x"}, {"id": "a", "text": "y"}]}"#;
    let says = "documents[1].id: documents[0] has the same, \"a\"";
    run(&sandbox, "embed-search", twice).expect(1).says(says);
}

/// The values of a job's lines of JSON.
#[track_caller]
fn lines(output: &str) -> Vec<Value> {
    let line = |line| serde_json::from_str(line).unwrap();
    output.lines().map(line).collect()
}

/// The text of a chat's lines, and its last line.
#[track_caller]
fn chat(output: &str) -> (String, Value) {
    let mut lines = lines(output);
    let last = lines.pop().unwrap();
    let pieces = lines.iter().map(|line| line["text"].as_str().unwrap());
    (pieces.collect(), last)
}

#[test]
fn a_chat_is_answered_in_the_shape_of_an_api() {
    let Some(sandbox) = Sandbox::with_all() else {
        return;
    };
    let (manifest, output) = audited(&sandbox, "chat");
    shown("chat", "", &output);
    let (text, last) = chat(&output);
    assert!(text.contains("silk"), "{text}");
    assert!(last["completion_tokens"].as_u64().unwrap() <= 40, "{last}");

    assert_eq!(page(&sandbox, "chat", &manifest), 6);

    let ask = |fields: Value| {
        let mut input = json!({ "messages": [{ "role": "user", "content": "Describe a moth." }] });
        for (name, value) in fields.as_object().unwrap() {
            input[name] = value.clone();
        }
        let ended = run_built(&sandbox, &manifest, &input.to_string());
        chat(&ended.expect(0).stdout)
    };
    let (whole, _) = ask(json!({ "max_tokens": 30, "temperature": 0 }));
    let stop = whole.split(' ').nth(3).unwrap();
    let (text, last) = ask(json!({ "max_tokens": 30, "temperature": 0, "stop": [stop] }));
    assert_eq!(text, whole.split_once(stop).unwrap().0);
    assert_eq!(last["finish"], "stop");

    // However wild the draws and however few the tokens.
    let schema = json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "minLength": 1 },
            "wings": { "type": "integer", "minimum": 0, "maximum": 4 },
            "colours": { "type": "array", "items": { "type": "string" }, "maxItems": 3 }
        },
        "required": ["name", "wings", "colours"],
        "additionalProperties": false
    });
    let judge = jsonschema::options().build(&schema).unwrap();
    let format = json!({ "type": "json_schema", "schema": schema });
    for (tokens, temperature) in [(24, 2.0), (40, 1.0), (200, 0.0)] {
        let fields = json!({
            "response_format": format, "max_tokens": tokens, "temperature": temperature,
        });
        let (text, last) = ask(fields);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert!(judge.is_valid(&value), "{text}");
        assert!(last["completion_tokens"].as_u64().unwrap() <= tokens);
    }
    for (input, says) in [
        (r#"{"messages": [], "n": 2}"#, "`n`: unknown field `n`"),
        (r#"{"prompt": "x", "max_tokens": 0}"#, "`max_tokens`: is 0"),
    ] {
        run_built(&sandbox, &manifest, input).expect(1).says(says);
    }
}

#[test]
fn texts_get_their_embeddings() {
    let Some(sandbox) = Sandbox::with_all() else {
        return;
    };
    if !sandbox.link_model_named("minilm") {
        crate::fixture::missing("the model minilm", "REQUIRE_MODEL");
        return;
    }
    let (manifest, output) = audited(&sandbox, "embeddings");
    let begins = output.lines().map(|line| {
        let begin: String = line.chars().take(72).collect();
        begin + "\n"
    });
    shown("embeddings", " | cut -c 1-72", &begins.collect::<String>());
    let mut lines = lines(&output);
    let last = lines.pop().unwrap();
    assert_eq!(lines.len(), 2);
    assert_eq!(last["finish"], "stop");
    for line in lines {
        // 384 values of 4 bytes each, 3 bytes to 4 letters.
        assert_eq!(line["embedding"].as_str().unwrap().len(), 2048);
    }
    let long = json!({ "input": ["moth", "moth ".repeat(300)] }).to_string();
    let says = "`input[1]`: 302 tokens, the model reads 256 at once";
    run_built(&sandbox, &manifest, &long).expect(1).says(says);
    assert_eq!(page(&sandbox, "embeddings", &manifest), 1);
}

/// Runs the examples of docs/openai-jobs.md for one job, which answers as the page shows; how
/// many there are.
#[track_caller]
fn page(sandbox: &Sandbox, job: &str, manifest: &str) -> usize {
    let page = fs::read_to_string(repository().join("docs/openai-jobs.md")).unwrap();
    let mut seen = 0;
    for block in page.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap();
        let (command, expected) = block.split_once('\n').unwrap();
        let input = command.strip_prefix("$ echo '").unwrap();
        let (input, command) = input.split_once("' | tussah run jobs/").unwrap();
        let of = command.strip_suffix(" --input -").unwrap();
        assert!(["chat", "embeddings"].contains(&of), "no test runs {of}");
        if of != job {
            continue;
        }
        let ended = run_built(sandbox, manifest, input);
        match expected.strip_prefix("error: ") {
            Some(message) => {
                ended.expect(1).says(message.trim_end());
            }
            None => assert_eq!(ended.expect(0).stdout, expected, "{input}"),
        }
        seen += 1;
    }
    seen
}
