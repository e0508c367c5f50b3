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
            json!({ "messages": [{ "role": "robot", "content": "x" }] }),
            "`messages[0].role`: unknown variant `robot`",
        ),
        (
            json!({ "messages": [{ "role": "tool", "content": "x", "tool_call_id": "a" }] }),
            "`messages[0].tool_call_id`: names no call",
        ),
        (
            json!({ "messages": [{ "role": "user", "content": "x", "tool_call_id": "a" }] }),
            "`messages[0].tool_call_id`: is of the role `tool` alone",
        ),
        (
            json!({ "messages": [{ "role": "user", "content": "x", "tool_calls": [
                { "id": "a", "name": "f", "arguments": "{}" }] }] }),
            "`messages[0].tool_calls`: are of the assistant alone",
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
        (json!({ "logprobs": true }), "`logprobs`: invalid type"),
        (
            json!({ "logprobs": 21 }),
            "`logprobs`: is 21, 0 to 20 can be",
        ),
        (
            json!({ "logprobs": 0, "response_format": { "type": "json_object" } }),
            "`logprobs`: cannot stand beside a JSON",
        ),
        (
            json!({ "tools": [tool("f")], "response_format": { "type": "json_object" } }),
            "`tools`: cannot stand beside a JSON",
        ),
        (
            json!({ "tool_choice": "auto" }),
            "`tool_choice`: there are no `tools`",
        ),
        (
            json!({ "tools": [tool("f")], "tool_choice": { "function": "g" } }),
            "`tool_choice.function`: `tools` has no function `g`",
        ),
        (
            json!({ "tools": [tool("f"), tool("f")] }),
            "`tools[1].name`: a function `f` is there before",
        ),
        (
            json!({ "tools": [tool("f g")] }),
            "`tools[0].name`: is not 1 to 64 letters",
        ),
        (
            json!({ "tools": (0..129).map(|n| tool(&format!("f{n}"))).collect::<Vec<_>>() }),
            "`tools`: 129 functions, at most 128 can be",
        ),
        (
            json!({ "tools": [{ "name": "f", "description": "x".repeat(4097) }] }),
            "`tools[0].description`: 4097 bytes",
        ),
        (
            json!({ "tools": [{ "name": "f", "parameters": { "type": "string" } }] }),
            "`tools[0].parameters`: is not a schema of `\"type\": \"object\"`",
        ),
        (
            json!({ "tools": [{ "name": "f", "parameters": { "type": "object", "not": {} } }] }),
            "`tools[0].parameters`: the schema cannot be used at",
        ),
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

/// A function of a place and, if one likes, of how many days.
fn tool(name: &str) -> Value {
    json!({ "name": name, "description": "Of a \"place\".", "parameters": {
        "type": "object",
        "properties": {
            "days": { "type": "integer", "minimum": 1, "maximum": 9 },
            "place": { "type": "string", "maxLength": 20 },
        },
        "required": ["place"],
        "additionalProperties": false
    }})
}

/// The text, the name of the function called, its arguments as text, and the last line.
#[track_caller]
fn called(ran: &Ran) -> (String, Option<String>, String, Value) {
    ran.result.as_ref().unwrap();
    let lines = ran.output.text().lines();
    let mut lines: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let last = lines.pop().unwrap();
    let (mut text, mut name, mut arguments) = (String::new(), None, String::new());
    for line in &lines {
        let call = &line["tool_call"];
        text.push_str(line["text"].as_str().unwrap_or_default());
        name = call["name"].as_str().map(str::to_owned).or(name);
        arguments.push_str(call["arguments"].as_str().unwrap_or_default());
    }
    (text, name, arguments, last)
}

#[test]
fn a_function_is_called_where_it_has_to_be_or_the_model_does() {
    let tools = json!([tool("weather"), tool("time")]);
    let call = |name: &str, arguments: &str| {
        format!("<tool_call>\n{{\"name\": \"{name}\", \"arguments\": {arguments}}}\n</tool_call>")
    };
    let rome = r#"{"place": "Rome"}"#;
    for (choice, reply, text, name, arguments, finish) in [
        // Whatever the model wants to say.
        (
            json!({ "function": "time" }),
            "Rome".to_owned(),
            "",
            Some("time"),
            r#"{"days": 1,"place":"Rome"}"#,
            "tool_calls",
        ),
        (
            json!("required"),
            call("time", rome),
            "",
            Some("time"),
            rome,
            "tool_calls",
        ),
        // It chooses by itself, also after some words.
        (
            json!("auto"),
            call("weather", rome),
            "",
            Some("weather"),
            rome,
            "tool_calls",
        ),
        (
            json!(null),
            format!("Let me see. {}", call("weather", rome)),
            "Let me see. ",
            Some("weather"),
            rome,
            "tool_calls",
        ),
        (
            json!("auto"),
            "It is <tool> sunny.".to_owned(),
            "It is <tool> sunny.",
            None,
            "",
            "stop",
        ),
        (
            json!("none"),
            "Sunny.".to_owned(),
            "Sunny.",
            None,
            "",
            "stop",
        ),
    ] {
        let fields = json!({ "tools": tools, "tool_choice": choice, "temperature": 0 });
        let ran = script(&reply).run(run, asking(fields));
        let (said, called, given, last) = called(&ran);
        assert_eq!(said, text, "{choice} {reply}");
        assert_eq!(called.as_deref(), name, "{choice} {reply}");
        assert_eq!(given, arguments, "{choice} {reply}");
        assert_eq!(last["finish"], finish, "{choice} {reply}");
        let told = ran.output.prompts[0].contains("\"description\": \"Of a \\\"place\\\".\"");
        assert_eq!(told, choice != "none", "{choice}: {:?}", ran.output.prompts);
    }
}

#[test]
fn arguments_are_whole_however_few_the_tokens() {
    let fields = |tokens: u32, choice: Value| {
        asking(json!({ "tools": [tool("f")], "tool_choice": choice, "max_tokens": tokens }))
    };
    let wordy = r#"<tool_call> {"name": "f", "arguments": {"place": "Very far away from here"#;
    for (tokens, choice) in [(45, json!("required")), (30, json!("auto"))] {
        let ran = script(wordy).run(run, fields(tokens, choice));
        let (_, name, arguments, last) = called(&ran);
        assert_eq!(name.as_deref(), Some("f"));
        let arguments: Value = serde_json::from_str(&arguments).unwrap();
        assert!(arguments["place"].is_string(), "{arguments}");
        assert!(
            last["completion_tokens"].as_u64().unwrap() <= u64::from(tokens),
            "{last}"
        );
    }
    let error = script(wordy)
        .run(run, fields(20, json!("required")))
        .result
        .unwrap_err();
    assert_eq!(error.code(), ErrorCode::Job(1));
    assert!(
        error
            .message()
            .starts_with("`max_tokens`: the answer has at most 20 tokens, and the shortest call"),
        "{error}"
    );
}

#[test]
fn a_function_without_parameters_takes_none() {
    for parameters in [json!(null), json!({})] {
        let tools = json!([{ "name": "now", "parameters": parameters }]);
        let fields = json!({ "tools": tools, "tool_choice": "required" });
        let (_, name, arguments, _) = called(&script("x").run(run, asking(fields)));
        assert_eq!((name.as_deref(), arguments.as_str()), (Some("now"), "{}"));
    }
}

#[test]
fn calls_and_their_results_are_told_in_turns() {
    let call = |id: &str, place: &str| json!({ "id": id, "name": "f", "arguments": format!("{{\"place\":\"{place}\"}}") });
    let input = json!({ "messages": [
        { "role": "system", "content": "Be brief." },
        { "role": "user", "content": "Rome or Oslo?" },
        { "role": "assistant", "content": null, "tool_calls": [call("a", "Rome"), call("b", "Oslo")] },
        { "role": "tool", "tool_call_id": "a", "content": "warm" },
        { "role": "tool", "tool_call_id": "b", "content": "cold" },
    ]});
    let ran = script("Rome.").run(run, input.to_string());
    assert_eq!(answer(&ran).0, "Rome.");
    assert_eq!(
        ran.output.prompts,
        ["system: Be brief.\nuser: Rome or Oslo?\n\
          assistant: <tool_call>\n{\"name\": \"f\", \"arguments\": {\"place\":\"Rome\"}}\n</tool_call>\n\
          <tool_call>\n{\"name\": \"f\", \"arguments\": {\"place\":\"Oslo\"}}\n</tool_call>\n\
          user: <tool_response>\nwarm\n</tool_response>\n<tool_response>\ncold\n</tool_response>\n"]
    );
}

#[test]
fn tokens_come_with_how_likely_they_were() {
    let moth = "🦋".as_bytes();
    let likely = -(1.0 + (-1.0_f64).exp()).ln();
    let position = |first: &[u8]| vec![(first.to_vec(), 2.0), (b"no".to_vec(), 1.0)];
    let tokens = [
        b"yes".to_vec(),
        moth[..2].to_vec(),
        moth[2..].to_vec(),
        vec![],
    ];
    let mut at = 0;
    let script = Scripted::model(MODEL).candidates_with(move |_| {
        at += 1;
        position(&tokens[at - 1])
    });
    let input = json!({ "prompt": "Is it?", "logprobs": 2, "temperature": 0 });
    let ran = script.run(run, input.to_string());
    ran.result.as_ref().unwrap();
    let lines: Vec<Value> = ran
        .output
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let near = |value: &Value| (value.as_f64().unwrap() - likely).abs() < 1e-6;
    assert_eq!(lines[0]["text"], "yes");
    let first = &lines[0]["logprobs"][0];
    assert_eq!(first["token"], "yes");
    assert!(near(&first["logprob"]), "{first}");
    assert_eq!(first["top"].as_array().unwrap().len(), 2);
    // Half a character has no text of its own, and comes with the other half.
    assert_eq!(lines[1]["text"], "🦋");
    let halves = lines[1]["logprobs"].as_array().unwrap();
    assert_eq!(halves.len(), 2);
    assert_eq!(halves[0]["token"], r"bytes:\xf0\x9f");
    assert_eq!(halves[0]["bytes"], json!(moth[..2]));
    // The end of the turn is nobody's token.
    assert_eq!(lines[2]["finish"], "stop");
    assert_eq!(lines.len(), 3);
}

#[test]
fn tokens_of_a_stop_text_are_not_told_of() {
    let fields = json!({ "stop": [" two"], "logprobs": 0, "temperature": 0 });
    let ran = script("one two three").run(run, asking(fields));
    let lines: Vec<Value> = ran
        .output
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["logprobs"].as_array().unwrap().len(), 1);
    assert_eq!(lines[0]["logprobs"][0]["top"], json!([]));
}

#[test]
fn what_was_said_before_is_drawn_less() {
    // Two tokens of one weight: without a penalty the first would come each time.
    let script = || {
        Scripted::model(MODEL)
            .candidates_with(|_| vec![(b"a".to_vec(), 20.0), (b"b".to_vec(), 19.9)])
    };
    let texts = |temperature: f32| {
        let fields = json!({ "prompt": "x", "max_tokens": 2, "temperature": temperature });
        answer(&script().run(run, fields.to_string())).0
    };
    assert_eq!(texts(0.0), "aa");
    let drawn = texts(0.01);
    assert_eq!(drawn, "ab");
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
