//! What people say to the bot, and what it says to them besides answers.
//!
//! In: a message's text. Out: the command in it; texts for people, kind ones, without anything
//! that was said in a chat.

use crate::provider::ProviderError;

/// What is asked of the bot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Help,
    Remember,
    Forget,
    Summary,
    Draft,
}

/// The command of a text; of a group's `/command@name` only where the name is this bot's.
pub(crate) fn command(text: &str, bot: &str) -> Option<Command> {
    let word = text.split_whitespace().next()?.strip_prefix('/')?;
    let word = match word.split_once('@') {
        Some((word, name)) if name.eq_ignore_ascii_case(bot) => word,
        Some(_) => return None,
        None => word,
    };
    match word {
        "start" | "help" | "privacy" => Some(Command::Help),
        "remember" => Some(Command::Remember),
        "forget" => Some(Command::Forget),
        "summary" => Some(Command::Summary),
        "draft" => Some(Command::Draft),
        _ => None,
    }
}

pub(crate) const HELP: &str = "\
I summarise this chat and draft replies. A language model on a provider's machine writes them, and each \
comes with the id of the receipt that the provider signed for it.

/remember – from now on I keep this chat's last 100 messages, for a day at most, in memory alone
/forget – I forget them, and keep no more
/summary – a summary of what I remember
/draft, as a reply to a message – a draft of an answer to it

Privacy: until somebody says /remember I keep nothing of what is said here. In a group only its administrators \
can say it. What I remember, and the message that you reply to with /draft, goes to the provider that this bot \
was set up with, each time you ask, and nowhere else.";

pub(crate) const REMEMBERS: &str = "\
From now on I remember this chat's last 100 messages, for a day at most, so that /summary has something to \
summarise. They go to the provider when somebody asks for a summary. /forget ends it.";
pub(crate) const FORGOT: &str = "All forgotten. I keep nothing of this chat any more.";
pub(crate) const KNEW_NOTHING: &str = "There is nothing to forget: I keep nothing of this chat.";
pub(crate) const FULL: &str =
    "I am in too many chats at the moment to remember another one. Sorry! Please try later.";
pub(crate) const ADMINS: &str =
    "In a group, only an administrator can ask me to remember or to forget.";
pub(crate) const ASK_FIRST: &str = "\
I keep nothing of this chat, so there is nothing to summarise. Say /remember first; /help says what that means.";
pub(crate) const NOTHING_YET: &str =
    "Nothing was said since I began to remember. Ask me again later.";
pub(crate) const REPLY_TO: &str = "Say /draft as a reply to the message that you want to answer.";
pub(crate) const ENOUGH: &str =
    "That is all I can write for this chat in one hour. Please try later.";
pub(crate) const BUSY_HERE: &str =
    "I am writing as much as I can at once. Please ask again in a moment.";

pub(crate) const SUMMARISE: &str = "\
You summarise conversations. Say in two or three short sentences what was discussed and what was decided. Use only \
what is in the conversation.";
pub(crate) const DRAFT: &str = "\
You write replies to messages. Write one short, friendly reply to the message, as the person who got it. Write the \
reply alone.";

/// What went wrong, in words for people; the details go to the log.
pub(crate) fn sorry(error: &ProviderError) -> &'static str {
    match error {
        ProviderError::Busy => {
            "The provider has too much to do at the moment. Please try again in a minute."
        }
        ProviderError::Refused { code, .. } if code == "limit_reached" => {
            "That was too long for the model. Please try again with less."
        }
        ProviderError::Key | ProviderError::Refused { .. } => {
            "The provider would not do that. Whoever runs this bot can see why in its log."
        }
        ProviderError::Unreachable(_) => {
            "The provider cannot be reached at the moment. Please try again later."
        }
        ProviderError::Broken(_) => {
            "The answer broke off, so what came of it has no receipt and I took it back. Please try again."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_this_bots_alone() {
        for (text, expected) in [
            ("/summary", Some(Command::Summary)),
            ("/summary please", Some(Command::Summary)),
            ("/draft@Silk_Bot", Some(Command::Draft)),
            ("/draft@other_bot", None),
            ("summary", None),
            ("see /summary", None),
            ("/unknown", None),
            ("", None),
        ] {
            assert_eq!(command(text, "silk_bot"), expected, "{text}");
        }
    }
}
