//! The bot's loop: updates in, commands done.
//!
//! In: updates of the Bot API, by long polling. Out: replies; at most so many answers are written
//! at a time, and so many for a chat in an hour. An update is confirmed before it is acted on: after
//! a crash nobody is answered twice, and nothing is paid for twice.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use frankenstein::TelegramApi as _;
use frankenstein::methods::{GetChatMemberParams, GetUpdatesParams};
use frankenstein::types::{AllowedUpdate, ChatMember, ChatType, Message};
use frankenstein::updates::UpdateContent;

use crate::answer::{Question, answer, say};
use crate::chat::{self, Command, command};
use crate::config::Config;
use crate::provider::Provider;
use crate::store::Store;
use crate::telegram::{Telegram, TelegramError};

/// Answers that are written at a time.
const AT_ONCE: usize = 4;
/// How long Telegram waits for an update before it says that there is none.
const POLL_SECONDS: u32 = 30;
/// The longest pause after a failure.
const PAUSE_MAX: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// The bot.
#[derive(Debug)]
pub struct Bot {
    shared: Arc<Shared>,
    hourly_max: u32,
    store: Store,
    /// When answers of a chat were begun, within the last hour.
    begun: HashMap<i64, Vec<Instant>>,
    /// Without `@`, in lower case.
    name: String,
}

/// What threads that write answers have in common.
#[derive(Debug)]
struct Shared {
    telegram: Telegram,
    provider: Provider,
    page_url: Option<String>,
    writing: AtomicUsize,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

impl Bot {
    /// A bot that remembers nothing yet.
    pub fn new(config: Config) -> Self {
        Self {
            shared: Arc::new(Shared {
                telegram: Telegram::new(&config),
                provider: Provider::new(&config),
                page_url: config.page_url.clone(),
                writing: AtomicUsize::new(0),
                threads: Mutex::default(),
            }),
            hourly_max: config.hourly_max,
            store: Store::default(),
            begun: HashMap::new(),
            name: String::new(),
        }
    }

    /// Serves until it is told to end, and brings what it writes to its end.
    pub fn run(mut self, end: &AtomicBool) {
        let (mut offset, mut pause) = (None, Duration::from_millis(500));
        while !end.load(Ordering::Relaxed) {
            match self.poll(&mut offset, end) {
                Ok(()) => pause = Duration::from_millis(500),
                Err(error) => {
                    eprintln!("telegram: {error}");
                    let asked = match error {
                        TelegramError::TooOften { seconds } => Duration::from_secs(seconds),
                        _ => pause,
                    };
                    std::thread::sleep(asked.min(PAUSE_MAX));
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
        let mut threads = self
            .shared
            .threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }

    fn poll(&mut self, offset: &mut Option<i64>, end: &AtomicBool) -> Result<(), TelegramError> {
        if self.name.is_empty() {
            let me = self.shared.telegram.get_me()?.result;
            self.name = me.username.unwrap_or_default().to_ascii_lowercase();
            eprintln!("serving as @{}", self.name);
        }
        let updates = self.updates(*offset, POLL_SECONDS)?;
        let Some(last) = updates.iter().map(|update| update.update_id).max() else {
            return Ok(());
        };
        let behind = Some(i64::from(last) + 1);
        // Asking for those behind them confirms these; what comes then comes again. Where that
        // fails, these come again.
        self.updates(behind, 0)?;
        *offset = behind;
        for update in updates {
            if let UpdateContent::Message(message) = update.content
                && !end.load(Ordering::Relaxed)
            {
                self.hear(&message);
            }
        }
        Ok(())
    }

    fn updates(
        &self,
        offset: Option<i64>,
        seconds: u32,
    ) -> Result<Vec<frankenstein::updates::Update>, TelegramError> {
        let params = GetUpdatesParams {
            offset,
            limit: Some(100),
            timeout: Some(seconds),
            allowed_updates: Some(vec![AllowedUpdate::Message]),
        };
        Ok(self.shared.telegram.get_updates(&params)?.result)
    }

    fn hear(&mut self, message: &Message) {
        let Some(text) = message.text.as_deref().or(message.caption.as_deref()) else {
            return;
        };
        let is_bot = message.from.as_ref().is_none_or(|from| from.is_bot);
        match command(text, &self.name) {
            Some(asked) if !is_bot => self.act(asked, message),
            Some(_) => {}
            None if text.starts_with('/') || is_bot => {}
            None => {
                let name = message
                    .from
                    .as_ref()
                    .map_or("", |from| from.first_name.as_str());
                self.store.add(message.chat.id, name, text, Instant::now());
            }
        }
    }

    fn act(&mut self, asked: Command, message: &Message) {
        let chat = message.chat.id;
        let words = match asked {
            Command::Help => chat::HELP,
            Command::Remember | Command::Forget if !self.may_decide(message) => chat::ADMINS,
            Command::Remember if self.store.begin(chat) => chat::REMEMBERS,
            Command::Remember => chat::FULL,
            Command::Forget if self.store.forget(chat) => chat::FORGOT,
            Command::Forget => chat::KNEW_NOTHING,
            Command::Summary if !self.store.knows(chat) => chat::ASK_FIRST,
            Command::Summary => match self.store.recent(chat, Instant::now()) {
                None => chat::NOTHING_YET,
                Some(recent) => return self.write(message, chat::SUMMARISE, recent),
            },
            Command::Draft => {
                let of = message.reply_to_message.as_ref();
                match of.and_then(|of| of.text.as_deref().or(of.caption.as_deref())) {
                    None => chat::REPLY_TO,
                    Some(text) => {
                        let text = crate::store::cut(text, 2000);
                        return self.write(message, chat::DRAFT, text);
                    }
                }
            }
        };
        say(&self.shared.telegram, chat, message.message_id, words);
    }

    /// Whether who wrote this may decide for the chat.
    fn may_decide(&self, message: &Message) -> bool {
        if message.chat.type_field == ChatType::Private {
            return true;
        }
        let Some(from) = &message.from else {
            return false;
        };
        let params = GetChatMemberParams::builder()
            .chat_id(message.chat.id)
            .user_id(from.id)
            .build();
        match self.shared.telegram.get_chat_member(&params) {
            Ok(found) => matches!(
                found.result,
                ChatMember::Creator(_) | ChatMember::Administrator(_)
            ),
            Err(error) => {
                eprintln!("telegram: {error}");
                false
            }
        }
    }

    fn write(&mut self, message: &Message, system: &'static str, user: String) {
        let (chat, id) = (message.chat.id, message.message_id);
        let now = Instant::now();
        self.begun.retain(|_, begun| {
            begun.retain(|at| now.saturating_duration_since(*at) < HOUR);
            !begun.is_empty()
        });
        let begun = self.begun.get(&chat).map_or(0, Vec::len);
        if begun >= self.hourly_max as usize {
            say(&self.shared.telegram, chat, id, chat::ENOUGH);
            return;
        }
        if self.shared.writing.load(Ordering::Acquire) >= AT_ONCE {
            say(&self.shared.telegram, chat, id, chat::BUSY_HERE);
            return;
        }
        self.begun.entry(chat).or_default().push(now);
        self.shared.writing.fetch_add(1, Ordering::AcqRel);
        let question = Question {
            chat,
            message: id,
            system,
            user,
        };
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::spawn(move || {
            let writing = Writing(&shared.writing);
            let page = shared.page_url.as_deref();
            answer(&shared.telegram, &shared.provider, page, &question);
            drop(writing);
        });
        let mut threads = self
            .shared
            .threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
    }
}

/// Counts an answer until it is written, or its thread has panicked.
struct Writing<'a>(&'a AtomicUsize);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
