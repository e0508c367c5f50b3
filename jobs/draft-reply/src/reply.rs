//! What of the generated text is the reply.
//!
//! In: chunks as the model generates them. Out: whole sentences, within the number of words.
//! A reply ends where a line begins with a speaker's name and a colon, whoever that is; the
//! name of the one who replies is left out at the very beginning.

use crate::conversation::same;

/// Takes chunks and gives sentences.
#[derive(Debug)]
pub(crate) struct Reply<'a> {
    me: &'a str,
    others: Vec<&'a str>,
    words_left: usize,
    /// What was generated and not yet shown.
    pending: String,
    shown: bool,
    ended: bool,
}

impl<'a> Reply<'a> {
    /// A reply by `me` to `others`, of at most `words_max` words.
    pub(crate) fn new(me: &'a str, others: Vec<&'a str>, words_max: usize) -> Self {
        Self {
            me,
            others,
            words_left: words_max,
            pending: String::new(),
            shown: false,
            ended: false,
        }
    }

    /// Adds a chunk; gives the sentences that are whole by now.
    pub(crate) fn take(&mut self, chunk: &str) -> String {
        self.pending.push_str(chunk);
        let mut ready = String::new();
        while let Some(end) = sentence_end(&self.pending) {
            let sentence: String = self.pending.drain(..end).collect();
            self.add(&sentence, &mut ready);
        }
        ready
    }

    /// What is left when the generation has ended; `whole` says that the model ended it.
    pub(crate) fn rest(&mut self, whole: bool) -> String {
        let mut ready = String::new();
        let last = std::mem::take(&mut self.pending);
        if whole || !self.shown {
            self.add(&last, &mut ready);
        }
        if !whole && !ready.is_empty() && !ready.ends_with('…') {
            ready.push('…');
        }
        ready
    }

    /// Whether nothing more will be shown.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Whether nothing was shown.
    pub(crate) fn is_empty(&self) -> bool {
        !self.shown
    }

    fn add(&mut self, sentence: &str, ready: &mut String) {
        if self.ended {
            return;
        }
        let white = &sentence[..sentence.len() - sentence.trim_start().len()];
        let mut text = sentence.trim();
        if !self.shown || white.contains('\n') {
            match self.speaker(text) {
                Some((who, said)) if !self.shown && same(who, self.me) => text = said,
                Some(_) => {
                    self.ended = true;
                    return;
                }
                None => {}
            }
        }
        let ends = word_ends(text);
        if ends.len() > self.words_left {
            self.ended = true;
            // Better a cut sentence than none.
            if !self.shown {
                let end = self.words_left.checked_sub(1).map_or(0, |last| ends[last]);
                ready.push_str(text[..end].trim_end_matches([',', ';', ':', '-']));
                ready.push('…');
                self.shown = true;
            }
            return;
        }
        if text.is_empty() {
            return;
        }
        self.words_left -= ends.len();
        if self.shown {
            ready.push_str(white);
        }
        ready.push_str(text);
        self.shown = true;
    }

    /// Who speaks and what, of `Name: what`.
    fn speaker<'t>(&self, text: &'t str) -> Option<(&'t str, &'t str)> {
        let (name, said) = text.split_once([':', '：'])?;
        let name = name.trim_matches(|character: char| {
            character.is_whitespace() || matches!(character, '*' | '#' | '[' | ']')
        });
        let mut names = self.others.iter().chain([&self.me]);
        names
            .any(|known| same(known, name))
            .then(|| (name, said.trim_start_matches('*').trim_start()))
    }
}

/// Where the first sentence ends: before the white space that follows it, so that what a
/// chunk's border cuts ("3." and "5 km") is never taken for one.
fn sentence_end(text: &str) -> Option<usize> {
    let mut after_stop = false;
    let mut characters = text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        if character == '\n' && at > 0 {
            return Some(at);
        }
        if character.is_whitespace() && after_stop {
            return Some(at);
        }
        if matches!(character, '。' | '！' | '？') && characters.peek().is_some() {
            return Some(at + character.len_utf8());
        }
        let closes = matches!(character, '"' | '\'' | ')' | '”' | '’' | '»');
        after_stop = matches!(character, '.' | '!' | '?' | '…') || after_stop && closes;
    }
    None
}

/// Where each word ends, in bytes. In scripts that put no spaces between words each
/// character counts as one.
fn word_ends(text: &str) -> Vec<usize> {
    let mut ends = vec![];
    let mut in_word = false;
    for (at, character) in text.char_indices() {
        if in_word && (character.is_whitespace() || stands_alone(character)) {
            ends.push(at);
            in_word = false;
        }
        if stands_alone(character) {
            ends.push(at + character.len_utf8());
        } else if !character.is_whitespace() {
            in_word = true;
        }
    }
    if in_word {
        ends.push(text.len());
    }
    ends
}

/// Kana, ideographs and Thai: the blocks of Unicode that hold most of them.
fn stands_alone(character: char) -> bool {
    matches!(character, '\u{0e00}'..='\u{0e7f}' | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}'
        | '\u{20000}'..='\u{2fa1f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown of a text that comes in chunks of so many characters.
    fn shown(text: &str, words: usize, chunk: usize) -> String {
        let mut reply = Reply::new("Bean & Leaf", vec!["Mara", "Jo"], words);
        let characters: Vec<char> = text.chars().collect();
        let mut all = String::new();
        for part in characters.chunks(chunk) {
            all.push_str(&reply.take(&part.iter().collect::<String>()));
        }
        all + &reply.rest(true)
    }

    #[test]
    fn sentences_come_out_whole_whatever_the_chunks() {
        for (text, words, expected) in [
            ("Yes. At 10!", 9, "Yes. At 10!"),
            ("It is 3.5 km, Mr. X.", 9, "It is 3.5 km, Mr. X."),
            ("  One.\nTwo. ", 9, "One.\nTwo."),
            ("One two. Three four. Five.", 4, "One two. Three four."),
            // The sentence that passes the limit is left out, what follows too.
            ("One two. Three four five. Six.", 4, "One two."),
            ("One two, three four five.", 3, "One two, three…"),
            ("One, two.", 1, "One…"),
            ("はい。行きます。", 3, "はい。"),
            ("はい行きます。", 4, "はい行き…"),
            ("\"Really?\" she asked.", 9, "\"Really?\" she asked."),
            ("", 9, ""),
        ] {
            for chunk in [1, 2, 3, 100] {
                assert_eq!(shown(text, words, chunk), expected, "{text:?} by {chunk}");
            }
        }
    }

    #[test]
    fn no_other_speaker_gets_a_turn() {
        for (text, expected) in [
            ("Bean & Leaf: Yes.", "Yes."),
            ("**bean & leaf:** Yes.", "Yes."),
            ("Yes.\nMara: Great!", "Yes."),
            ("Yes.\n\n mara : Great!", "Yes."),
            ("Yes\nJo： Great!", "Yes"),
            ("Yes.\nBean & Leaf: And you?", "Yes."),
            ("Mara: Great!", ""),
            // Names are names anywhere else.
            ("Yes, Mara: all day.", "Yes, Mara: all day."),
            ("Yes.\nNote: bring cake.", "Yes.\nNote: bring cake."),
        ] {
            for chunk in [1, 4, 100] {
                assert_eq!(shown(text, 20, chunk), expected, "{text:?} by {chunk}");
            }
        }
    }

    #[test]
    fn a_sentence_that_the_model_did_not_end_is_left_out_unless_it_is_all() {
        let mut reply = Reply::new("me", vec!["you"], 20);
        assert_eq!(reply.take("One two. Three"), "One two.");
        assert_eq!(reply.rest(false), "");
        let mut reply = Reply::new("me", vec!["you"], 20);
        assert_eq!(reply.take("One two three"), "");
        assert_eq!(reply.rest(false), "One two three…");
    }
}
