//! A conversation in, a draft of the next reply out, streamed.
//!
//! In: JSON with the messages so far and, if wanted, a tone. Out: the reply as text. A
//! conversation that does not fit the model's context loses its oldest messages, never the
//! last one.

use serde::Deserialize;
use tussah_sdk::{Error, Json, Message, Model, job, log};

/// The name that `tussah.toml` maps to a model.
const MODEL: &str = "smollm2";
/// Room for the reply, in tokens.
const REPLY_TOKENS: u32 = 200;
/// Tokens of context, conversation and reply together.
const CONTEXT_TOKENS: u32 = 2048;
/// A reply is wanted to what these say.
const OTHERS: &str = "user";

/// What the job takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Conversation {
    messages: Vec<Turn>,
    /// How the reply shall sound, such as `friendly and short`.
    #[serde(default = "polite")]
    tone: String,
}

/// One message of the conversation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Turn {
    role: Role,
    content: String,
}

/// Who wrote a message.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    User,
    Assistant,
}

fn polite() -> String {
    "polite and short".to_owned()
}

#[job]
fn run(Json(conversation): Json<Conversation>) -> Result<(), Error> {
    let messages = messages(&conversation)?;
    let model = Model::load(MODEL)?;
    let context = CONTEXT_TOKENS.min(model.info().context_tokens_max);
    let messages = fitting(&model, messages, context.saturating_sub(REPLY_TOKENS))?;
    let mut session = model
        .session()
        .context_tokens_max(context)
        .generated_tokens_max(REPLY_TOKENS)
        .repetition_penalty(1.05)
        .open_chat(&messages)?;
    session.stream()?;
    tussah_sdk::emit("\n")
}

/// The conversation as the model is shown it: what it shall do, then the messages.
fn messages(conversation: &Conversation) -> Result<Vec<Message>, Error> {
    match conversation.messages.last() {
        Some(last) if matches!(last.role, Role::User) && !last.content.trim().is_empty() => {}
        _ => {
            return Err(Error::bad_input(format!(
                "the last message must be one of the role `{OTHERS}`, with text to reply to"
            )));
        }
    }
    let tone = &conversation.tone;
    let system = format!("You write the assistant's next reply. It is {tone}.");
    let turns = conversation.messages.iter().map(|turn| match turn.role {
        Role::User => Message::user(&turn.content),
        Role::Assistant => Message::assistant(&turn.content),
    });
    Ok([Message::system(system)].into_iter().chain(turns).collect())
}

/// Leaves out the oldest messages behind the first until the rest fits.
fn fitting(model: &Model, mut messages: Vec<Message>, room: u32) -> Result<Vec<Message>, Error> {
    let mut dropped = 0;
    while model.count_chat_tokens(&messages)? > room {
        if messages.len() <= 2 {
            return Err(Error::bad_input(format!(
                "the last message is too long: it does not fit {room} tokens"
            )));
        }
        messages.remove(1);
        dropped += 1;
    }
    if dropped > 0 {
        log(format_args!("{dropped} of the oldest messages did not fit"));
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use tussah_sdk::{ErrorCode, testing::Scripted};

    use super::*;

    const SAMPLE: &str = include_str!("../sample.json");

    #[test]
    fn the_reply_follows_the_conversation() {
        let ran = Scripted::model(MODEL)
            .reply("It will be there on Friday.")
            .run(run, SAMPLE);
        ran.result.unwrap();
        assert_eq!(ran.output.text(), "It will be there on Friday.\n");
        assert!(ran.output.pieces.len() > 3, "it is streamed");
        let prompt = &ran.output.prompts[0];
        assert!(prompt.starts_with("system: You write"), "{prompt}");
        assert!(prompt.trim_end().ends_with("before my trip?"), "{prompt}");
    }

    #[test]
    fn the_oldest_messages_go_first() {
        let input = r#"{"messages": [
            {"role": "user", "content": "a a a a a a a a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"}
        ]}"#;
        let script = Scripted::model(MODEL)
            .context_tokens_max(REPLY_TOKENS + 28)
            .reply("d");
        let ran = script.run(run, input);
        ran.result.unwrap();
        let prompt = &ran.output.prompts[0];
        assert!(
            !prompt.contains("a a a") && prompt.contains("assistant: b\nuser: c"),
            "{prompt}"
        );
        assert_eq!(ran.output.log, ["1 of the oldest messages did not fit"]);
    }

    #[test]
    fn what_cannot_be_replied_to_is_refused() {
        for (input, expected) in [
            ("", "EOF while parsing"),
            (r#"{"messages": []}"#, "the last message"),
            (
                r#"{"messages": [{"role": "assistant", "content": "x"}]}"#,
                "the last message",
            ),
            (
                r#"{"messages": [{"role": "user", "content": " "}]}"#,
                "the last message",
            ),
            (
                r#"{"messages": [{"role": "boss", "content": "x"}]}"#,
                "`messages[0].role`: unknown variant `boss`",
            ),
            (
                r#"{"messages": [{"role": "user"}]}"#,
                "missing field `content`",
            ),
            (r#"{"message": []}"#, "unknown field `message`"),
        ] {
            let error = Scripted::model(MODEL).run(run, input).result.unwrap_err();
            assert_eq!(error.code(), ErrorCode::BadInput, "{input}");
            assert!(error.message().contains(expected), "{input}: {error}");
        }
        let long = format!(
            r#"{{"messages": [{{"role": "user", "content": "{}"}}]}}"#,
            "x ".repeat(3000)
        );
        let error = Scripted::model(MODEL).run(run, long).result.unwrap_err();
        assert!(error.message().contains("too long"), "{error}");
    }
}
