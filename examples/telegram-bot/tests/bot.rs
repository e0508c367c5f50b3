//! The bot against a Bot API and a provider of the test's own, on loopback; and, where `TUSSAH_URL`
//! and `TUSSAH_KEY` name one, against a provider that was started.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what surprises a test ends it"
)]

mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use server::{Answer, Server};
use tussah_telegram_bot::{Bot, config::Config};

const TOKEN: &str = "1:token";
const KEY: &str = "tsk_key";

fn id() -> String {
    format!("blake3:{}", "ab".repeat(32))
}

/// A Bot API: updates that are to come, and what the bot did.
#[derive(Default)]
struct Api {
    updates: Vec<Value>,
    /// Answers to give before the usual ones, each to the next call of its method.
    odd: Vec<(&'static str, Answer)>,
    calls: Vec<(String, Value, Instant)>,
    sent: i64,
}

impl Api {
    fn call(&mut self, path: &str, body: &Value) -> Answer {
        let method = path
            .strip_prefix(&format!("/bot{TOKEN}/"))
            .unwrap()
            .to_owned();
        self.calls
            .push((method.clone(), body.clone(), Instant::now()));
        if let Some(at) = self.odd.iter().position(|(of, _)| *of == method) {
            return self.odd.remove(at).1;
        }
        let result = match method.as_str() {
            "getMe" => {
                json!({"id": 1, "is_bot": true, "first_name": "Silk", "username": "silk_bot"})
            }
            "getUpdates" => {
                let offset = body["offset"].as_i64().unwrap_or(0);
                self.updates
                    .retain(|it| it["update_id"].as_i64().unwrap() >= offset);
                json!(self.updates)
            }
            "getChatMember" => {
                let user = json!({"id": body["user_id"], "is_bot": false, "first_name": "A"});
                match body["user_id"].as_i64() {
                    Some(7) => json!({"status": "creator", "user": user, "is_anonymous": false}),
                    _ => json!({"status": "member", "user": user}),
                }
            }
            "sendMessage" | "editMessageText" => {
                self.sent += i64::from(method == "sendMessage");
                let id = body["message_id"].as_i64().unwrap_or(1000 + self.sent);
                json!({"message_id": id, "date": 1, "chat": {"id": body["chat_id"], "type": "private"}, "text": body["text"]})
            }
            other => panic!("the bot called {other}"),
        };
        // A poll for nothing takes a while, as Telegram's does.
        let idle = method == "getUpdates" && body["timeout"] != 0 && result == json!([]);
        let pause = Duration::from_millis(if idle { 50 } else { 0 });
        Answer::json(200, &json!({"ok": true, "result": result})).slowly(pause)
    }

    fn texts(&self, method: &str) -> Vec<String> {
        let calls = self.calls.iter().filter(|(of, ..)| of == method);
        calls
            .map(|(_, body, _)| body["text"].as_str().unwrap().to_owned())
            .collect()
    }
}

fn said(update: i64, chat: i64, user: i64, text: &str) -> Value {
    let kind = if chat < 0 { "supergroup" } else { "private" };
    json!({"update_id": update, "message": {
        "message_id": update, "date": 1, "chat": {"id": chat, "type": kind, "title": "Silk"},
        "from": {"id": user, "is_bot": false, "first_name": "Ada"}, "text": text,
    }})
}

/// A stream of an answer in these pieces.
fn streamed(pieces: &[&str]) -> Answer {
    let mut text = String::new();
    for piece in pieces {
        let chunk = json!({"choices": [{"delta": {"content": piece}}], "tussah": {"job_id": id(), "receipt": null}});
        text.push_str(&format!("data: {chunk}\n\n"));
    }
    let last = json!({"choices": [{"delta": {}, "finish_reason": "stop"}], "tussah": {"job_id": id(), "receipt": id()}});
    text.push_str(&format!("data: {last}\n\ndata: [DONE]\n\n"));
    Answer::new(200, "text/event-stream", text)
}

struct World {
    telegram: Server<Api>,
    end: Arc<AtomicBool>,
    bot: Option<std::thread::JoinHandle<()>>,
}

impl World {
    fn start(api: Api, provider: &str, key: &str, more: &[(&str, &str)]) -> Self {
        let telegram = Server::start(api, |api, request| {
            let body = serde_json::from_slice(&request.body).unwrap_or_default();
            api.call(&request.path, &body)
        });
        let mut set = vec![
            ("TELEGRAM_TOKEN", TOKEN.to_owned()),
            ("TELEGRAM_URL", telegram.url.clone()),
            ("TUSSAH_URL", provider.to_owned()),
            ("TUSSAH_KEY", key.to_owned()),
        ];
        set.extend(
            more.iter()
                .map(|(name, value)| (*name, (*value).to_owned())),
        );
        let get = move |name: &str| Some(set.iter().find(|(key, _)| *key == name)?.1.clone());
        let bot = Bot::new(Config::from_env(get).unwrap());
        let end = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&end);
        Self {
            telegram,
            end,
            bot: Some(std::thread::spawn(move || bot.run(&told))),
        }
    }

    /// Waits until the bot did what is looked for.
    fn until(&self, what: &str, found: impl Fn(&Api) -> bool) {
        let begun = Instant::now();
        while !self.telegram.with(|api| found(api)) {
            let calls = || {
                self.telegram.with(|api| {
                    format!("{:#?}", api.calls.iter().rev().take(9).collect::<Vec<_>>())
                })
            };
            assert!(
                begun.elapsed() < Duration::from_secs(120),
                "not seen: {what}\n{}",
                calls()
            );
            std::thread::yield_now();
        }
    }

    fn say(&self, update: Value) {
        self.telegram.with(|api| api.updates.push(update));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        let joined = self.bot.take().map(std::thread::JoinHandle::join);
        if !std::thread::panicking() {
            joined.unwrap().unwrap();
        }
    }
}

/// A provider that gives these answers, one after the other, and keeps what it was asked.
fn provider(answers: Vec<Answer>) -> Server<(Vec<Answer>, Vec<Value>)> {
    Server::start((answers, Vec::new()), |(answers, asked), request| {
        assert_eq!(request.path, "/v1/chat/completions");
        assert_eq!(request.header("authorization"), Some("Bearer tsk_key"));
        asked.push(serde_json::from_slice(&request.body).unwrap());
        answers.remove(0)
    })
}

#[test]
fn a_chat_that_said_so_gets_its_summary_with_the_receipt() {
    let provider = provider(vec![streamed(&["They like ", "silk."])]);
    let world = World::start(
        Api::default(),
        &provider.url,
        KEY,
        &[("TUSSAH_PAGE_URL", "https://a.example/")],
    );
    let sends = |count: usize| move |api: &Api| api.texts("sendMessage").len() == count;
    world.say(said(1, 5, 7, "a secret of before"));
    world.say(said(2, 5, 7, "/summary"));
    world.until("it asks first", sends(1));
    world.say(said(3, 5, 7, "/remember"));
    world.say(said(4, 5, 7, "Silk is soft."));
    world.say(said(5, 5, 7, "/summary@silk_bot"));
    world.until("the answer", |api| {
        api.texts("editMessageText")
            .iter()
            .any(|it| it.contains("receipt"))
    });
    world.telegram.with(|api| {
        let sent = api.texts("sendMessage");
        assert!(sent[0].contains("/remember first"), "{sent:?}");
        assert!(sent[1].contains("last 100 messages"), "{sent:?}");
        assert_eq!(sent[2], "…");
        let last = api.texts("editMessageText").pop().unwrap();
        assert!(last.starts_with("They like silk.\n\n"), "{last}");
        assert!(last.contains(&format!("receipt {}", id())), "{last}");
        assert!(last.contains("https://a.example/#job=blake3:"), "{last}");
    });
    provider.with(|(_, asked)| {
        assert_eq!(asked[0]["messages"][1]["content"], "Ada: Silk is soft.");
        assert_eq!(asked[0]["stream"], true);
    });
    world.say(said(6, 5, 7, "/forget"));
    world.say(said(7, 5, 7, "/summary"));
    world.until("it forgot", sends(5));
}

#[test]
fn a_draft_answers_the_message_that_was_replied_to() {
    let provider = provider(vec![streamed(&["Yes!"])]);
    let world = World::start(Api::default(), &provider.url, KEY, &[]);
    world.say(said(1, -5, 8, "/draft"));
    let mut draft = said(2, -5, 8, "/draft");
    draft["message"]["reply_to_message"] = said(0, -5, 9, "Do you like silk?")["message"].clone();
    world.say(draft);
    world.until("the draft", |api| {
        api.texts("editMessageText")
            .iter()
            .any(|it| it.starts_with("Yes!"))
    });
    provider.with(|(_, asked)| assert_eq!(asked[0]["messages"][1]["content"], "Do you like silk?"));
    // Only an administrator decides for a group.
    world.say(said(3, -5, 8, "/remember"));
    world.until("it refuses", |api| {
        api.texts("sendMessage")
            .iter()
            .any(|it| it.contains("administrator can ask"))
    });
    world.say(said(4, -5, 7, "/remember"));
    world.until("it does", |api| {
        api.texts("sendMessage")
            .iter()
            .any(|it| it.contains("From now on"))
    });
}

#[test]
fn what_telegram_does_to_a_bot_is_lived_through() {
    let too_often = json!({"ok": false, "error_code": 429, "description": "Too Many Requests",
        "parameters": {"retry_after": 1}});
    let api = Api {
        updates: vec![said(1, 5, 7, "/help")],
        odd: vec![
            ("getMe", Answer::new(200, "application/json", "{\"ok\": tr")),
            ("getMe", Answer::json(429, &too_often)),
            (
                "getUpdates",
                Answer::new(502, "text/html", "<h1>Bad Gateway</h1>"),
            ),
            // Broken off: as where the server was started again.
            ("getUpdates", Answer::broken()),
            ("sendMessage", Answer::json(429, &too_often)),
        ],
        ..Api::default()
    };
    let world = World::start(api, "http://127.0.0.1:1", KEY, &[]);
    world.until("help", |api| {
        api.calls
            .iter()
            .filter(|(of, ..)| of == "sendMessage")
            .count()
            == 2
    });
    world.telegram.with(|api| {
        let sends: Vec<&Instant> = api
            .calls
            .iter()
            .filter(|(of, ..)| of == "sendMessage")
            .map(|(_, _, at)| at)
            .collect();
        assert!(sends[1].duration_since(*sends[0]) >= Duration::from_secs(1));
        assert!(api.texts("sendMessage")[1].contains("Privacy"));
    });
    // It was answered once, and nothing of it comes again.
    world.say(said(2, 5, 7, "/help"));
    world.until("once more", |api| api.texts("sendMessage").len() == 3);
}

#[test]
fn a_provider_that_fails_is_told_of_kindly() {
    let refusal = |code: &str| json!({"error": {"message": "tsk_key is no good", "code": code}});
    let mut wait = Answer::json(429, &refusal("rate_limited"));
    wait.headers.push(("retry-after", "1".to_owned()));
    let mut cut = streamed(&["Half an"]);
    cut.body.truncate(cut.body.len() - 30);
    let provider = provider(vec![
        wait,
        streamed(&["After a while."]),
        Answer::json(401, &refusal("invalid_api_key")),
        cut,
    ]);
    let world = World::start(
        Api::default(),
        &provider.url,
        KEY,
        &[("BOT_ANSWERS_PER_HOUR", "3")],
    );
    let draft = |update: i64| {
        let mut draft = said(update, 5, 7, "/draft");
        draft["message"]["reply_to_message"] = said(0, 5, 9, "Well?")["message"].clone();
        draft
    };
    let edited = |says: &'static str| {
        move |api: &Api| {
            api.texts("editMessageText")
                .last()
                .is_some_and(|it| it.contains(says))
        }
    };
    world.say(draft(1));
    world.until("it waited", edited("After a while."));
    world.say(draft(2));
    world.until("a refusal", edited("would not do that"));
    world.say(draft(3));
    world.until("taken back", edited("I took it back"));
    world.telegram.with(|api| {
        assert!(
            !api.texts("editMessageText")
                .iter()
                .any(|it| it.contains("tsk_"))
        )
    });
    // Three in an hour were allowed.
    world.say(draft(4));
    world.until("enough", |api| {
        api.texts("sendMessage")
            .last()
            .is_some_and(|it| it.contains("in one hour"))
    });
}

#[test]
fn a_stream_is_shown_at_most_once_a_second() {
    let pieces = ["word "; 200];
    let provider = provider(vec![streamed(&pieces).slowly(Duration::from_millis(15))]);
    let world = World::start(Api::default(), &provider.url, KEY, &[]);
    let mut draft = said(1, 5, 7, "/draft");
    draft["message"]["reply_to_message"] = said(0, 5, 9, "Well?")["message"].clone();
    world.say(draft);
    world.until("the end", |api| {
        api.texts("editMessageText")
            .iter()
            .any(|it| it.contains("receipt"))
    });
    world.telegram.with(|api| {
        let edits: Vec<&Instant> = api
            .calls
            .iter()
            .filter(|(of, ..)| of == "editMessageText")
            .map(|(_, _, at)| at)
            .collect();
        assert!(
            edits.len() >= 3,
            "{} edits of a stream of three seconds",
            edits.len()
        );
        for pair in edits.windows(2) {
            assert!(pair[1].duration_since(*pair[0]) >= Duration::from_secs(1));
        }
    });
}

#[test]
fn a_provider_that_was_started_writes_a_draft() {
    let get = |name| std::env::var(name).ok();
    let (Some(url), Some(key)) = (get("TUSSAH_URL"), get("TUSSAH_KEY")) else {
        assert!(
            get("REQUIRE_PROVIDER").is_none(),
            "TUSSAH_URL and TUSSAH_KEY are not set"
        );
        println!("skipped: TUSSAH_URL and TUSSAH_KEY name no provider");
        return;
    };
    let world = World::start(Api::default(), &url, &key, &[]);
    let mut draft = said(1, 5, 7, "/draft");
    draft["message"]["reply_to_message"] =
        said(0, 5, 9, "Shall we meet at the silk market at noon?")["message"].clone();
    world.say(draft);
    world.until("the draft", |api| {
        api.texts("editMessageText")
            .iter()
            .any(|it| it.contains("receipt blake3:"))
    });
}
