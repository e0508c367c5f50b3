//! Answers under a schema through a session, whatever its model wants.

use tussah_sdk::{
    Ended, ErrorCode, Message, Model, Session,
    json_schema::Schema,
    testing::{HostCall, Scripted},
};

use crate::schemas::{NAMED, Random};

const PERSON: &str = r#"{
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 150}
    },
    "required": ["name", "age"],
    "additionalProperties": false
}"#;

fn session() -> Session {
    let model = Model::load("m").unwrap();
    model.session().open_chat(&[Message::user("Who?")]).unwrap()
}

#[track_caller]
fn check(reply: &str, expected: &str) {
    let schema = Schema::parse(PERSON).unwrap();
    let script = Scripted::model("m").reply(reply);
    let (text, _) = script.scope(|| session().json(&schema).tokens_max(60).text().unwrap());
    assert_eq!(text, expected);
}

#[test]
fn what_fits_is_taken_and_what_does_not_is_put_right() {
    check(r#"{"name":"Ada","age":36}"#, r#"{"name":"Ada","age":36}"#);
    check(
        r#"{"name": "Ada", "age": 36} And so on."#,
        r#"{"name": "Ada", "age": 36}"#,
    );
    check(
        "{\"name\":\"Zoë 😀\",\"age\":7}",
        "{\"name\":\"Zoë 😀\",\"age\":7}",
    );
    // A number that would pass its bound ends before it does.
    check(r#"{"name":"Ada","age":15}"#, r#"{"name":"Ada","age":15}"#);
}

#[test]
fn any_model_gives_valid_answers_to_every_schema() {
    for (name, text) in NAMED {
        let schema = Schema::parse(text).unwrap();
        let document: serde_json::Value = serde_json::from_str(text).unwrap();
        let judge = jsonschema::options()
            .should_validate_formats(true)
            .build(&document)
            .unwrap();
        for seed in 0..8 {
            let mut random = Random(seed);
            // From models that know some letters to those whose tokens never fit.
            let script = Scripted::model("m")
                .context_tokens_max(120)
                .candidates_with(move |_| {
                    let letters = b"{}[]\":,01a \xc3\xa9";
                    let mut list: Vec<(Vec<u8>, f32)> = Vec::new();
                    for rank in 0..random.below(12_u8.into()) {
                        let length = 1 + random.below(3);
                        let bytes = (0..length)
                            .map(|_| letters[random.below(letters.len())])
                            .collect();
                        list.push((bytes, -(u8::try_from(rank).map_or(0.0, f32::from))));
                    }
                    list.push((Vec::new(), -5.0));
                    list
                });
            let tokens_max = [0, 1, 7, 30, 80, 500][usize::try_from(seed % 6).unwrap()];
            let temperature = if seed % 2 == 0 { 0.0 } else { 0.8 };
            let (answer, _) = script.scope(|| {
                let mut session = session();
                let shortest = String::from_utf8(schema.matcher().completion()).unwrap();
                let shortest = u32::try_from(session.tokenize(&shortest).unwrap().len()).unwrap();
                let constrained = session.json(&schema).tokens_max(tokens_max);
                let constrained = constrained.temperature(temperature).top_p(0.9).seed(seed);
                let answer = constrained.text().unwrap();
                let taken = session.usage().generated_tokens;
                let most = tokens_max.max(shortest);
                assert!(taken <= most, "{name}: {taken} of {most} tokens: {answer}");
                answer
            });
            let value: serde_json::Value = serde_json::from_str(&answer)
                .unwrap_or_else(|error| panic!("{name}, seed {seed}: {error}: {answer}"));
            if let Err(error) = judge.validate(&value) {
                panic!("{name}, seed {seed}: {error}: {answer}");
            }
        }
    }
}

#[test]
fn an_answer_says_why_it_ended() {
    let schema = Schema::parse(PERSON).unwrap();
    let ended = |tokens_max: u32, context: u32| {
        let script = Scripted::model("m")
            .context_tokens_max(context)
            .reply(r#"{"name":"Ada Byron","age":36}"#);
        let mut text = String::new();
        let ended = script.scope(|| {
            let mut session = session();
            let constrained = session.json(&schema).tokens_max(tokens_max);
            constrained.generate_with(|piece| {
                text.push_str(piece);
                Ok(())
            })
        });
        (ended.0.unwrap(), text)
    };
    let complete = (Ended::Complete, r#"{"name":"Ada Byron","age":36}"#.into());
    assert_eq!(ended(60, 100), complete);
    assert_eq!(ended(16, 100), complete);
    // Of 15 tokens, 14 are those of the shortest answer; the 15th is the name.
    assert_eq!(
        ended(15, 100),
        (Ended::TokensMax, r#"{"name":"Ada","age":0}"#.into())
    );
    for too_few in [0, 1, 13, 14] {
        assert_eq!(
            ended(too_few, 100),
            (Ended::TokensMax, r#"{"name":"","age":0}"#.into())
        );
    }
    assert_eq!(
        ended(60, 14),
        (Ended::ContextFull, r#"{"name":"Ada","age":0}"#.into())
    );
}

#[test]
fn draws_follow_from_the_seed() {
    let draw = |seed: u64| {
        let schema = Schema::parse(r#"{"enum": ["a", "b", "c", "d", "e", "f"]}"#).unwrap();
        let script = Scripted::model("m")
            .candidates_with(|_| b"\"abcdef".iter().map(|byte| (vec![*byte], 0.0)).collect());
        script
            .scope(|| {
                session()
                    .json(&schema)
                    .temperature(1.0)
                    .seed(seed)
                    .text()
                    .unwrap()
            })
            .0
    };
    assert_eq!(draw(1), draw(1));
    let all: std::collections::BTreeSet<String> = (0..40).map(draw).collect();
    assert!(all.len() > 3, "{all:?}");
}

#[test]
fn top_p_leaves_the_likeliest() {
    let draw = |seed: u64, top_p: f32| {
        let schema = Schema::parse(r#"{"enum": ["a", "b", "c"]}"#).unwrap();
        // Shares of 0.5, 0.3 and 0.2, each between its quotes.
        let script = Scripted::model("m").candidates_with(|written| match written {
            b"" => vec![(b"\"".to_vec(), 0.0)],
            b"\"" => [("a", 0.5_f32), ("b", 0.3), ("c", 0.2)]
                .map(|(text, share)| (text.into(), share.ln()))
                .to_vec(),
            _ => vec![(b"\"".to_vec(), 0.0)],
        });
        let answer = || {
            let mut session = session();
            let constrained = session.json(&schema).temperature(1.0);
            constrained.top_p(top_p).seed(seed).text()
        };
        script.scope(answer).0
    };
    for (top_p, expected) in [(0.0, 1), (0.5, 1), (0.6, 2), (0.79, 2), (0.9, 3), (1.0, 3)] {
        let drawn: std::collections::BTreeSet<String> =
            (0..60).map(|seed| draw(seed, top_p).unwrap()).collect();
        assert_eq!(drawn.len(), expected, "{top_p}: {drawn:?}");
    }
    for refused in [-0.1, 1.1, f32::NAN] {
        let error = draw(0, refused).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
        assert!(error.message().contains("top_p"), "{error}");
    }
}

#[test]
fn errors_of_the_host_are_the_jobs() {
    let schema = Schema::parse("true").unwrap();
    let script = Scripted::model("m").reply("1").fails(
        HostCall::Candidates,
        ErrorCode::ModelFailed,
        "not a number",
    );
    let (error, _) = script.scope(|| session().json(&schema).text().unwrap_err());
    assert_eq!(
        (error.code(), error.message()),
        (ErrorCode::ModelFailed, "not a number")
    );
    let (error, _) = Scripted::model("m").scope(|| {
        session()
            .json(&schema)
            .temperature(f32::NAN)
            .text()
            .unwrap_err()
    });
    assert_eq!(error.code(), ErrorCode::InvalidArgument);
}

#[test]
fn labels_are_chosen_by_their_probabilities() {
    let choose = |script: Scripted, labels: &[&str]| {
        script.scope(|| session().choose(labels)).0.map(|choice| {
            let shares = choice
                .probabilities
                .iter()
                .map(|share| format!("{share:.2}"));
            (
                labels[choice.index].to_owned(),
                shares.collect::<Vec<_>>().join(" "),
            )
        })
    };
    let candidates =
        || Scripted::model("m").candidates([("yes", 2.0), ("no", 2.0), (" x", 9.0), ("not", 1.0)]);
    assert_eq!(
        choose(candidates(), &["yes", "no"]).unwrap(),
        ("yes".into(), "0.50 0.50".into())
    );
    assert_eq!(
        choose(candidates(), &["no", "yes"]).unwrap(),
        ("no".into(), "0.50 0.50".into())
    );
    assert_eq!(choose(candidates(), &["not", "yes"]).unwrap().0, "yes");
    // A label that is no candidate at all loses, and one alone needs no model.
    assert_eq!(choose(candidates(), &["maybe", "not"]).unwrap().0, "not");
    assert_eq!(
        choose(Scripted::model("m"), &["only"]).unwrap(),
        ("only".into(), "1.00".into())
    );
    // Labels that begin alike part where they differ; one may be the beginning of another.
    let script = Scripted::model("m").candidates([(" news", 0.0), (" offer", 1.0)]);
    assert_eq!(
        choose(script, &["good news", "good offer"]).unwrap().0,
        "good offer"
    );
    let script = Scripted::model("m").candidates([(" news", 0.0), ("", 3.0)]);
    assert_eq!(choose(script, &["good news", "good"]).unwrap().0, "good");
    for labels in [&[][..], &[""], &["a", "a"]] {
        let error = choose(Scripted::model("m"), labels).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument, "{labels:?}");
    }
}
