//! Article in, two-sentence summary out, by a small instruction-tuned model.
//!
//! In: UTF-8 text of any length. Out: the summary, streamed as it is generated. An
//! article that does not fit the model's context is cut into chunks at paragraph or
//! sentence ends, each chunk is condensed, and the condensed text is summarised.

use tussah_sdk::{Error, ErrorCode, Message, Model, Session, emit, job, progress};

/// The name that `tussah.toml` maps to a model.
const MODEL: &str = "smollm2";
/// What the model is asked for in the end.
const SUMMARIZE: &str = "Summarize this article in two sentences.";
/// What it is asked for each chunk of a long article.
const CONDENSE: &str = "Summarize this part of an article in two sentences.";
/// Room for an answer, in tokens; two sentences take 40 to 90.
const ANSWER_TOKENS: u32 = 128;
/// Tokens of context per step, prompt and answer. Longer prompts make a model of this
/// size wander, and attention costs grow with their square.
const CONTEXT_TOKENS: u32 = 1536;
/// An article is condensed at most so many times before it must fit.
const ROUNDS_MAX: usize = 4;

#[job]
fn run(article: String) -> Result<(), Error> {
    let article = article.trim();
    if article.is_empty() {
        return Err(Error::with_code(
            ErrorCode::BadInput,
            "the article is empty: give a text to summarize",
        ));
    }
    let model = Model::load(MODEL)?;
    let context = CONTEXT_TOKENS.min(model.info().context_tokens_max);
    let mut text = article.to_owned();
    for _ in 0..ROUNDS_MAX {
        let chunks = split(&model, &text, context)?;
        if chunks.len() == 1 {
            return summarize(&model, &text, context);
        }
        text = condense(&model, &chunks, context)?;
    }
    Err(Error::new(format!(
        "the article is too long: after condensing it {ROUNDS_MAX} times it still does not fit {context} tokens"
    )))
}

/// The last step: what the client sees.
fn summarize(model: &Model, text: &str, context: u32) -> Result<(), Error> {
    let mut session = ask(model, SUMMARIZE, text, context)?;
    let mut sentences = Sentences::default();
    for chunk in &mut session {
        let text = chunk?.text;
        let (shown, finished) = sentences.take(&text);
        emit(shown)?;
        if finished {
            break;
        }
    }
    emit("\n")
}

/// One answer for each chunk, joined.
fn condense(model: &Model, chunks: &[String], context: u32) -> Result<String, Error> {
    let mut condensed = String::new();
    for (done, chunk) in chunks.iter().enumerate() {
        progress(done as u64, chunks.len() as u64, "condensing");
        let mut session = ask(model, CONDENSE, chunk, context)?;
        let mut sentences = Sentences::default();
        for piece in &mut session {
            let text = piece?.text;
            let (kept, finished) = sentences.take(&text);
            condensed.push_str(kept);
            if finished {
                break;
            }
        }
        condensed.push('\n');
    }
    Ok(condensed)
}

fn messages(instruction: &str, text: &str) -> [Message; 1] {
    [Message::user(format!("{instruction}\n\n{text}"))]
}

fn ask(model: &Model, instruction: &str, text: &str, context: u32) -> Result<Session, Error> {
    let mut session = model
        .session()
        .context_tokens_max(context)
        .generated_tokens_max(ANSWER_TOKENS)
        .repetition_penalty(1.05)
        .open()?;
    session.append_chat(&messages(instruction, text))?;
    Ok(session)
}

/// Cuts a text into as few chunks as fit the context with their instruction and answer.
fn split(model: &Model, text: &str, context: u32) -> Result<Vec<String>, Error> {
    let room = context.saturating_sub(ANSWER_TOKENS);
    let fits = |text: &str| -> Result<bool, Error> {
        Ok(model.count_chat_tokens(&messages(CONDENSE, text))? <= room)
    };
    if fits(text)? {
        return Ok(vec![text.to_owned()]);
    }
    let mut chunks = vec![];
    let mut rest = text;
    while !rest.is_empty() {
        let end = longest_fit(rest, &fits)?;
        let (chunk, tail) = rest.split_at(end);
        chunks.push(chunk.trim().to_owned());
        rest = tail.trim_start();
    }
    Ok(chunks)
}

/// The byte at which the longest chunk that fits ends, by bisection over the places
/// where a text may be cut.
fn longest_fit(text: &str, fits: &dyn Fn(&str) -> Result<bool, Error>) -> Result<usize, Error> {
    let cuts = cuts(text);
    let (mut low, mut high) = (0, cuts.len());
    while low < high {
        let middle = low + (high - low) / 2;
        if fits(&text[..cuts[middle]])? {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    match low.checked_sub(1) {
        Some(last) => Ok(cuts[last]),
        None => Err(Error::with_code(
            ErrorCode::BadInput,
            "the article has a stretch without any space that does not fit the model's context",
        )),
    }
}

/// Where a text may be cut: after paragraphs and sentences, or where there are too few
/// of them, after any white space. Ascending; the last is the text's end.
fn cuts(text: &str) -> Vec<usize> {
    /// Longer stretches without a sentence end are cut at spaces.
    const SENTENCE_BYTES_MAX: usize = 1000;
    let mut cuts = vec![];
    let mut previous = ' ';
    for (at, character) in text.char_indices() {
        if character.is_whitespace() {
            let sentence_ends = matches!(previous, '.' | '!' | '?' | '\n' | '。');
            let last = cuts.last().copied().unwrap_or(0);
            if sentence_ends || at - last > SENTENCE_BYTES_MAX {
                cuts.push(at + character.len_utf8());
            }
        }
        previous = character;
    }
    if cuts.last() != Some(&text.len()) {
        cuts.push(text.len());
    }
    cuts
}

/// Lets two sentences through and stops there: a small model does not always stop by itself.
#[derive(Default)]
struct Sentences {
    seen: usize,
    ended: bool,
    started: bool,
}

impl Sentences {
    const WANTED: usize = 2;

    /// The part of a chunk that is still within the two sentences, and whether they are complete.
    fn take<'a>(&mut self, chunk: &'a str) -> (&'a str, bool) {
        let chunk = if self.started {
            chunk
        } else {
            chunk.trim_start()
        };
        self.started |= !chunk.is_empty();
        for (at, character) in chunk.char_indices() {
            if self.ended && character.is_whitespace() {
                self.seen += 1;
                if self.seen == Self::WANTED {
                    return (&chunk[..at], true);
                }
            }
            self.ended = matches!(character, '.' | '!' | '?')
                || self.ended && matches!(character, '"' | '\'' | ')' | '”');
        }
        (chunk, false)
    }
}

#[cfg(test)]
mod tests {
    use tussah_sdk::testing::{HostCall, Scripted};

    use super::*;

    /// A model that condenses each part to its first word, and says what it summarizes.
    fn model() -> Scripted {
        Scripted::model(MODEL).replies_with(|prompt| {
            let text = prompt.split_once("\n\n").unwrap_or_default().1;
            if prompt.contains(CONDENSE) {
                let word = text.split(' ').next().unwrap_or_default();
                format!("{word}. Kept. Not kept.")
            } else {
                let words = text.split_whitespace().count();
                format!(" It has {words} words. That is all. Not shown.")
            }
        })
    }

    /// So many sentences of six tokens.
    fn article(sentences: usize) -> String {
        (0..sentences)
            .map(|at| format!("Number{at} has four words. "))
            .collect()
    }

    #[test]
    fn a_short_article_is_summarized_at_once() {
        let ran = model().run(run, article(3));
        assert_eq!(ran.result, Ok(()));
        assert_eq!(ran.output.text(), "It has 12 words. That is all.\n");
        assert_eq!(ran.output.prompts.len(), 1);
        assert!(ran.output.prompts[0].contains(SUMMARIZE));
        assert!(ran.output.progress.is_empty());
    }

    #[test]
    fn a_long_article_is_condensed_first() {
        // Room for the answer and 72 tokens, the instruction among them.
        let ran = model()
            .context_tokens_max(ANSWER_TOKENS + 72)
            .run(run, article(20));
        assert_eq!(ran.result, Ok(()));
        let (last, parts) = ran.output.prompts.split_last().unwrap();
        assert!(last.contains(SUMMARIZE) && !last.contains("has four words"));
        assert!(parts.len() > 1 && parts.iter().all(|prompt| prompt.contains(CONDENSE)));
        // Every sentence went into one part, whole and in its place.
        let all: String = parts
            .iter()
            .map(|prompt| prompt.split_once("\n\n").unwrap().1.trim())
            .map(|part| format!("{part} "))
            .collect();
        assert_eq!(all, article(20));
        let done: Vec<(u64, u64)> = ran
            .output
            .progress
            .iter()
            .map(|report| (report.done, report.total))
            .collect();
        let expected: Vec<(u64, u64)> = (0..parts.len() as u64)
            .map(|at| (at, parts.len() as u64))
            .collect();
        assert_eq!(done, expected);
        let words = 2 * parts.len();
        assert_eq!(
            ran.output.text(),
            format!("It has {words} words. That is all.\n")
        );
    }

    #[test]
    fn what_cannot_be_summarized_says_why() {
        for (script, text, code, message) in [
            (model(), " \n", ErrorCode::BadInput, "the article is empty"),
            (
                Scripted::nothing(),
                "Text.",
                ErrorCode::UnknownModel,
                "names no model",
            ),
            (
                model().context_tokens_max(ANSWER_TOKENS + 1),
                "Text.",
                ErrorCode::BadInput,
                "does not fit the model's context",
            ),
            (
                // It never gets shorter.
                Scripted::model(MODEL)
                    .context_tokens_max(ANSWER_TOKENS + 40)
                    .replies_with(|_| "One two three four five six seven eight. ".repeat(3)),
                &article(20),
                ErrorCode::Job(1),
                "after condensing it 4 times",
            ),
            (
                model().fails_at(HostCall::Next, 3, ErrorCode::ModelFailed, "not a number"),
                "Text.",
                ErrorCode::ModelFailed,
                "not a number",
            ),
        ] {
            let error = script.run(run, text).result.unwrap_err();
            assert_eq!(error.code(), code, "{error}");
            assert!(error.message().contains(message), "{error}");
        }
    }

    fn shown(chunks: &[&str]) -> String {
        let mut sentences = Sentences::default();
        let mut shown = String::new();
        for chunk in chunks {
            let (text, finished) = sentences.take(chunk);
            shown.push_str(text);
            if finished {
                break;
            }
        }
        shown
    }

    #[test]
    fn two_sentences_pass_whatever_the_chunks() {
        assert_eq!(shown(&[" One. Two", "! Three."]), "One. Two!");
        assert_eq!(shown(&["One", ".", " Two", ".", " Three"]), "One. Two.");
        assert_eq!(
            shown(&["He said \"stop.\" Then 3.5 km on. More"]),
            "He said \"stop.\" Then 3.5 km on."
        );
        assert_eq!(shown(&["Only one."]), "Only one.");
    }

    #[test]
    fn cuts_fall_on_character_borders_and_end_at_the_end() {
        for text in [
            "",
            "a",
            "a. b",
            "é. ü! ",
            "。 x",
            "word ".repeat(500).as_str(),
        ] {
            let cuts = cuts(text);
            assert_eq!(cuts.last(), Some(&text.len()));
            assert!(
                cuts.windows(2).all(|pair| pair[0] < pair[1]),
                "{text:?}: {cuts:?}"
            );
            assert!(cuts.iter().all(|cut| text.is_char_boundary(*cut)));
        }
    }

    #[test]
    fn the_longest_chunk_that_fits_is_taken() {
        let fits = |text: &str| Ok(text.len() <= 12);
        assert_eq!(longest_fit("One. Two. Three. Four.", &fits), Ok(10));
        let nothing = |_: &str| Ok(false);
        assert!(longest_fit("One.", &nothing).is_err());
    }
}
