//! One answer, from the first piece to the receipt, in one message that grows.
//!
//! In: what to ask. Out: a message, edited at most once a second while the answer comes, and at its
//! end with the ids of its job and receipt. An answer without a receipt is taken back.

use std::time::{Duration, Instant};

use frankenstein::TelegramApi as _;
use frankenstein::methods::{EditMessageTextParams, SendMessageParams};
use frankenstein::types::{LinkPreviewOptions, ReplyParameters};

use crate::chat::sorry;
use crate::provider::{Provider, Source};
use crate::telegram::{Telegram, TelegramError};

/// The least time between two edits of a message.
const EDIT_EVERY: Duration = Duration::from_secs(1);
/// Characters of an answer that are shown; Telegram takes 4,096 with what is below it.
const CHARACTERS_MAX: usize = 3000;
/// How long Telegram is waited for where it asks for it, and how often.
const WAIT_MAX: Duration = Duration::from_secs(60);
const TRIES: u32 = 4;

/// What to ask, and where the answer goes.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) chat: i64,
    pub(crate) message: i32,
    pub(crate) system: &'static str,
    pub(crate) user: String,
}

/// Asks the provider and shows its answer.
pub(crate) fn answer(
    telegram: &Telegram,
    provider: &Provider,
    page: Option<&str>,
    question: &Question,
) {
    let Some(shown) = say(telegram, question.chat, question.message, "…") else {
        return;
    };
    let mut text = String::new();
    let mut edited = Instant::now();
    let piece = |piece: &str| {
        text.push_str(piece);
        if edited.elapsed() >= EDIT_EVERY && !text.trim().is_empty() {
            // One that is not shown is made up for by the next.
            if let Err(TelegramError::TooOften { seconds }) =
                edit(telegram, question.chat, shown, &clip(&text))
            {
                edited = Instant::now() + Duration::from_secs(seconds).min(WAIT_MAX);
            } else {
                edited = Instant::now();
            }
        }
    };
    let asked = provider.ask(question.system, &question.user, piece, std::thread::sleep);
    let last = match &asked {
        Ok(source) => format!(
            "{}\n\n{}",
            clip(text.trim()),
            below(source, page, text.trim())
        ),
        Err(error) => {
            eprintln!("provider: {error}");
            sorry(error).to_owned()
        }
    };
    // Not within a second of the last one.
    std::thread::sleep(EDIT_EVERY.saturating_sub(edited.elapsed()));
    patiently(|| edit(telegram, question.chat, shown, &last));
}

/// What stands below an answer: where it came from, and how to check that.
fn below(source: &Source, page: Option<&str>, text: &str) -> String {
    let Source { job, receipt } = source;
    let mut below = format!(
        "— a language model wrote this\nreceipt {receipt}\n\
         job {job}\nverify: save the provider's /v1/jobs/JOB/receipt as bytes, then `tussah receipt verify FILE`"
    );
    if let Some(page) = page {
        let text = escape(&crate::store::cut(text, 300));
        below.push_str(&format!("\n{page}#job={job}&receipt={receipt}&text={text}"));
    }
    below
}

/// Percent-encoding of all but unreserved characters (RFC 3986, 2.3).
fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let escaped = text.bytes().map(|byte| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    escaped.collect()
}

fn clip(text: &str) -> String {
    crate::store::cut(text, CHARACTERS_MAX)
}

/// Replies to a message; the id of the reply, if it could be sent.
pub(crate) fn say(telegram: &Telegram, chat: i64, message: i32, text: &str) -> Option<i32> {
    let reply = ReplyParameters::builder()
        .message_id(message)
        .allow_sending_without_reply(true)
        .build();
    let params = SendMessageParams::builder()
        .chat_id(chat)
        .text(text)
        .reply_parameters(reply)
        .link_preview_options(LinkPreviewOptions::DISABLED)
        .build();
    patiently(|| telegram.send_message(&params)).map(|sent| sent.result.message_id)
}

fn edit(telegram: &Telegram, chat: i64, message: i32, text: &str) -> Result<(), TelegramError> {
    let params = EditMessageTextParams::builder()
        .chat_id(chat)
        .message_id(message)
        .text(text)
        .link_preview_options(LinkPreviewOptions::DISABLED)
        .build();
    match telegram.edit_message_text(&params) {
        // It stands there already.
        Err(TelegramError::Refused { description, .. }) if description.contains("not modified") => {
            Ok(())
        }
        edited => edited.map(|_| ()),
    }
}

/// Does what Telegram asks to wait for, and tries again where it is not reached.
fn patiently<T>(mut call: impl FnMut() -> Result<T, TelegramError>) -> Option<T> {
    for attempt in 1..=TRIES {
        let wait = match call() {
            Ok(done) => return Some(done),
            Err(TelegramError::TooOften { seconds }) => Duration::from_secs(seconds).min(WAIT_MAX),
            Err(error @ TelegramError::Refused { .. }) => {
                eprintln!("telegram: {error}");
                return None;
            }
            Err(error) => {
                eprintln!("telegram: {error}");
                Duration::from_millis(500 << attempt)
            }
        };
        if attempt < TRIES {
            std::thread::sleep(wait);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_where_it_came_from() {
        let id = format!("blake3:{}", "0".repeat(64));
        let source = Source {
            job: id.clone(),
            receipt: id.clone(),
        };
        let found = below(&source, None, "x");
        assert!(found.contains(&format!("receipt {id}")) && found.contains("receipt verify"));
        let found = below(&source, Some("https://a.example/p.html"), "é & b");
        let link = format!("https://a.example/p.html#job={id}&receipt={id}&text=%C3%A9%20%26%20b");
        assert!(found.ends_with(&link), "{found}");
    }
}
