//! The job as its user sees it, with a model that answers as scripted.

use serde_json::{Value, json};
use tussah_sdk::testing::{Ran, Scripted};

use super::*;

const SAMPLE: &str = include_str!("../sample.json");

fn script(reply: &str) -> Scripted {
    Scripted::model(MODEL).reply(reply)
}

/// The text of all pieces, and the last line.
#[track_caller]
fn answer(ran: &Ran) -> (String, Value) {
    ran.result.as_ref().unwrap();
    let lines = ran.output.text().lines();
    let mut lines: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let last = lines.pop().unwrap();
    let pieces = lines.iter().map(|line| line["text"].as_str().unwrap());
    (pieces.collect(), last)
}

/// One question, with further fields.
fn asking(fields: Value) -> String {
    let mut input = json!({ "messages": [{ "role": "user", "content": "Who?" }] });
    for (name, value) in fields.as_object().unwrap() {
        input[name] = value.clone();
    }
    input.to_string()
}

#[test]
fn an_answer_comes_in_pieces_and_says_what_it_took() {
    let ran = script("The silk \"moth\".").run(run, SAMPLE);
    let (text, last) = answer(&ran);
    assert_eq!(text, "The silk \"moth\".");
    assert_eq!(last["finish"], "stop");
    assert_eq!(last["completion_tokens"], 7);
    assert!(last["prompt_tokens"].as_u64().unwrap() > 10, "{last}");
    assert_eq!(ran.output.pieces.len(), 8, "a line a token, and the last");
    assert_eq!(
        ran.output.prompts,
        ["system: Answer in one short sentence.\nuser: Which animal makes silk?\n"]
    );
}

#[test]
fn a_prompt_is_gone_on_with_as_it_is() {
    let ran = script(" is blue.").run(run, r#"{"prompt": "The sky"}"#);
    let (text, last) = answer(&ran);
    assert_eq!(text, " is blue.");
    assert_eq!(
        last,
        json!({ "finish": "stop", "prompt_tokens": 2, "completion_tokens": 3 })
    );
    assert_eq!(ran.output.prompts, ["The sky"]);
}

#[test]
fn every_role_is_the_templates() {
    let roles = ["system", "developer", "user", "assistant", "user"];
    let messages = roles.map(|role| json!({ "role": role, "content": role }));
    let ran = script("Yes.").run(run, json!({ "messages": messages }).to_string());
    ran.result.as_ref().unwrap();
    assert_eq!(
        ran.output.prompts,
        ["system: system\nsystem: developer\nuser: user\nassistant: assistant\nuser: user\n"]
    );
}

#[test]
fn an_answer_ends_at_a_stop_text_or_at_its_tokens() {
    for (fields, expected, finish, tokens) in [
        (json!({ "stop": ["three"] }), "one two ", "stop", 3),
        (json!({ "stop": ["x", " two"] }), "one", "stop", 2),
        (json!({ "stop": [] }), "one two three", "stop", 3),
        (json!({ "max_tokens": 2 }), "one two", "length", 2),
        // The model's end is a token of its own, which there is no room for.
        (json!({ "max_tokens": 3 }), "one two three", "length", 3),
        (json!({ "max_tokens": 4 }), "one two three", "stop", 3),
        (json!({ "max_tokens": null }), "one two three", "stop", 3),
        // As much as there is room for.
        (
            json!({ "max_tokens": 4_000_000 }),
            "one two three",
            "stop",
            3,
        ),
    ] {
        let (text, last) = answer(&script("one two three").run(run, asking(fields.clone())));
        assert_eq!(text, expected, "{fields}");
        assert_eq!(last["finish"], finish, "{fields}");
        assert_eq!(last["completion_tokens"], tokens, "{fields}");
    }
}

#[test]
fn the_context_is_the_bound_of_prompt_and_answer() {
    let with = |context: u32| {
        let input = r#"{"prompt": "one two three"}"#;
        let script = script(" four five six").context_tokens_max(context);
        script.run(run, input)
    };
    let (text, last) = answer(&with(5));
    assert_eq!(
        (text.as_str(), &last["finish"]),
        (" four five", &json!("length"))
    );
    let error = with(3).result.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Job(1));
    assert_eq!(
        error.message(),
        "`prompt`: 3 tokens, but prompt and answer together have at most 3"
    );
}

#[test]
fn json_is_what_was_asked_for() {
    let schema = json!({ "type": "json_schema", "schema": {
        "type": "object",
        "properties": { "name": { "type": "string" }, "age": { "type": "integer", "minimum": 0, "maximum": 150 } },
        "required": ["name", "age"],
        "additionalProperties": false
    }});
    for (format, reply, tokens, expected, finish) in [
        (
            &schema,
            r#"{"age":36,"name":"Ada"} So!"#,
            60,
            r#"{"age":36,"name":"Ada"}"#,
            "stop",
        ),
        // A model that only talks, and one whose tokens run out.
        (&schema, "Ada", 17, r#"{"age": 0,"name":"Ada"}"#, "stop"),
        (
            &schema,
            r#"{"age":36,"name":"Ada Lovelace"}"#,
            15,
            r#"{"age":36,"name":"Ada"}"#,
            "length",
        ),
        (
            &json!({ "type": "json_object" }),
            r#"{"a": [1, "b"]} So!"#,
            60,
            r#"{"a": [1, "b"]}"#,
            "stop",
        ),
        (&json!({ "type": "text" }), "Ada", 60, "Ada", "stop"),
    ] {
        let fields = json!({ "response_format": format, "max_tokens": tokens, "temperature": 0 });
        let (text, last) = answer(&script(reply).run(run, asking(fields)));
        assert_eq!(last["finish"], finish, "{reply}: {text}");
        assert_eq!(text, expected, "{reply}");
        assert!(
            last["completion_tokens"].as_u64().unwrap() <= tokens,
            "{text}: {last}"
        );
    }
    let fields = json!({ "response_format": schema, "max_tokens": 13 });
    let error = script("Ada").run(run, asking(fields)).result.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Job(1));
    assert_eq!(
        error.message(),
        "`max_tokens`: the answer has at most 13 tokens, \
         and the shortest that `response_format` allows has 14"
    );
}

#[test]
fn properties_come_in_the_order_of_the_schema() {
    let input = r#"{"prompt": "x", "response_format": {"type": "json_schema", "schema": {
        "type": "object",
        "properties": {"zebra": {"const": 1}, "ant": {"const": 2}},
        "required": ["zebra", "ant"]
    }}}"#;
    let (text, _) = answer(&script("").run(run, input));
    assert_eq!(text, r#"{"zebra":1,"ant":2}"#);
}

#[test]
fn what_is_not_taken_is_refused_by_its_field() {
    let stops = ["a", "b", "c", "d", "e"];
    let format = |format: Value| json!({ "response_format": format });
    for (fields, says) in [
        (json!({ "max_tokens": 0 }), "`max_tokens`: is 0"),
        (json!({ "max_tokens": -1 }), "`max_tokens`: invalid value"),
        (
            json!({ "temperature": 2.1 }),
            "`temperature`: is 2.1, 0 to 2 can be",
        ),
        (json!({ "temperature": -0.1 }), "`temperature`: is -0.1"),
        (
            json!({ "temperature": "hot" }),
            "`temperature`: invalid type",
        ),
        (json!({ "top_p": 1.01 }), "`top_p`: is 1.01, 0 to 1 can be"),
        (json!({ "seed": -1 }), "`seed`: invalid value"),
        (json!({ "stop": "x" }), "`stop`: invalid type"),
        (
            json!({ "stop": stops }),
            "`stop`: 5 texts, at most 4 can be",
        ),
        (json!({ "stop": ["a", ""] }), "`stop[1]`: 0 bytes"),
        (
            json!({ "stop": ["a".repeat(1025)] }),
            "`stop[0]`: 1025 bytes",
        ),
        (json!({ "messages": [] }), "`messages`: is empty"),
        (json!({ "messages": null }), "`messages`: is missing"),
        (
            json!({ "messages": [{ "role": "user" }] }),
            "`messages[0]`: missing field `content`",
        ),
        (
            json!({ "messages": [{ "role": "tool", "content": "x" }] }),
            "`messages[0].role`: unknown variant `tool`",
        ),
        (
            json!({ "messages": [{ "role": "user", "content": ["x"] }] }),
            "`messages[0].content`: invalid type",
        ),
        (
            json!({ "prompt": "x" }),
            "`prompt`: give either `messages` or `prompt`",
        ),
        (json!({ "n": 2 }), "`n`: unknown field `n`"),
        (json!({ "logprobs": true }), "`logprobs`: unknown field"),
        (
            format(json!({ "type": "xml" })),
            "`response_format.type`: unknown variant `xml`",
        ),
        (
            format(json!({ "type": "json_schema" })),
            "`response_format.schema`: is missing",
        ),
        (
            format(json!({ "type": "json_object", "schema": {} })),
            "`response_format.schema`: belongs to",
        ),
        (
            format(
                json!({ "type": "json_schema", "schema": { "type": "array", "uniqueItems": true } }),
            ),
            "`response_format.schema`: the schema cannot be used at `#",
        ),
        (
            format(json!({ "type": "json_schema", "schema": false })),
            "`response_format.schema`: no value satisfies the schema",
        ),
        (
            json!({ "response_format": { "type": "json_object" }, "stop": ["}"] }),
            "`stop`: a text to stop at would break the JSON",
        ),
    ] {
        refused(&asking(fields), says);
    }
    refused("", "EOF while parsing");
    refused("[]", "expected an object with `messages` or `prompt`");
    refused("{}", "`messages`: is missing: give `messages` or `prompt`");
    refused(r#"{"prompt": ""}"#, "`prompt`: is empty");
    refused(
        r#"{"prompt": "x", "prompt": "y"}"#,
        "duplicate field `prompt`",
    );
    let turn = json!({ "role": "user", "content": "" });
    let many = json!({ "messages": vec![turn; 2049] }).to_string();
    refused(&many, "`messages`: 2049 messages, at most 2048 can be");
    let deep = format!(r#"{{"prompt": {}}}"#, "[".repeat(100_000));
    refused(&deep, "`prompt`");
}

/// Before a model is loaded.
#[track_caller]
fn refused(input: &str, says: &str) {
    let error = Scripted::nothing().run(run, input).result.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Job(1), "{input}");
    assert!(error.message().contains(says), "{input}: {error}");
}

#[test]
fn a_model_without_a_template_takes_prompts_alone() {
    let script = || script("Yes.").without_chat();
    answer(&script().run(run, r#"{"prompt": "Is it?"}"#));
    let error = script().run(run, SAMPLE).result.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Job(1));
    assert!(error.message().starts_with("`messages`: "), "{error}");
}
