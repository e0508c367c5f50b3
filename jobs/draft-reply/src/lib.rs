//! A conversation in, a draft of the next reply out, streamed.
//!
//! In: JSON with the messages so far, of two people or of a group, and what the reply shall
//! be like. Out: the reply as text, sentence by sentence. A conversation that does not fit the
//! model's context loses its oldest messages, never the last one.

mod conversation;
mod reply;

use conversation::Conversation;
use reply::Reply;
use tussah_sdk::{Error, FinishReason, Json, Message, Model, emit, job, log};

/// The name that `tussah.toml` maps to a model.
const MODEL: &str = "smollm2";
/// Tokens of context, conversation and reply together.
const CONTEXT_TOKENS: u32 = 2048;
/// Stop texts that a session takes.
const STOPS_MAX: usize = 16;

#[job]
fn run(Json(conversation): Json<Conversation>) -> Result<(), Error> {
    conversation.check()?;
    let model = Model::load(MODEL)?;
    let context = CONTEXT_TOKENS.min(model.info().context_tokens_max);
    let (me, others) = (conversation.me(), conversation.others());
    // In a group each line has its writer's name, so the reply's line begins with one too.
    let opening = match conversation.is_group() {
        true => format!("{me}:"),
        false => String::new(),
    };
    let opening_tokens = u32::try_from(model.tokenize(&opening)?.len()).unwrap_or(u32::MAX);
    let reserved = conversation.reply_tokens().saturating_add(opening_tokens);
    let (prompt, left_out) = fit(&model, &conversation, context.saturating_sub(reserved))?;
    if left_out > 0 {
        log(format_args!(
            "{left_out} of the oldest messages did not fit"
        ));
    }
    let mut session = model
        .session()
        .context_tokens_max(context)
        .generated_tokens_max(conversation.reply_tokens())
        .repetition_penalty(1.05);
    for name in others.iter().chain([&me]).take(STOPS_MAX) {
        session = session.stop(format!("\n{name}:"));
    }
    let mut session = session.open_chat(&prompt)?;
    session.append(&opening)?;

    let mut reply = Reply::new(me, others, conversation.max_words());
    while !reply.ended()
        && let Some(chunk) = session.next_chunk()?
    {
        show(reply.take(&chunk.text))?;
    }
    let whole = session.finish_reason() != Some(FinishReason::Length);
    show(reply.rest(whole))?;
    if reply.is_empty() {
        return Err(Error::new(
            "the model wrote nothing that is a reply: say the last message in other words",
        ));
    }
    emit("\n")
}

/// Nothing is no piece of output.
fn show(text: String) -> Result<(), Error> {
    match text.is_empty() {
        true => Ok(()),
        false => emit(text),
    }
}

/// The prompt with as many of the newest messages as take at most `room` tokens, and how many
/// of the oldest are left out. The instruction always stays.
fn fit(
    model: &Model,
    conversation: &Conversation,
    room: u32,
) -> Result<(Vec<Message>, usize), Error> {
    let tokens = |left_out| model.count_chat_tokens(&conversation.prompt(left_out));
    let newest = conversation.messages.len().saturating_sub(1);
    // Bisection: the fewest that have to go. Usually all fit, which is asked first.
    let (mut low, mut high) = (0, if tokens(0)? <= room { 0 } else { newest });
    while low < high {
        let middle = low + (high - low) / 2;
        if tokens(middle)? <= room {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    let taken = tokens(low)?;
    if taken > room {
        return Err(Error::bad_input(format!(
            "the last message is too long: with the instruction it takes {taken} tokens, \
             and there is room for {room}"
        )));
    }
    Ok((conversation.prompt(low), low))
}

#[cfg(test)]
mod tests;
