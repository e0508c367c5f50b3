//! Documents as passages that a model reads whole.
//!
//! In: a text, and how many tokens a part of it has. Out: where its passages begin and end.
//! Passages end at ends of sentences where they can, and each begins with the last sentences
//! of the one before it, so what stands at a border is seen whole by one of them.

use std::ops::Range;

use tussah_sdk::Error;

/// Sizes in tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Of a passage, at most.
    pub(crate) passage: usize,
    /// Of what two neighbours share, at most, unless a single sentence is longer.
    pub(crate) overlap: usize,
}

/// A part of a text that is not divided further, and its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Unit {
    bytes: Range<usize>,
    tokens: usize,
}

/// The passages of a text, in its order, as ranges of bytes without the white space around
/// them; none of a text that is nothing but white space.
///
/// # Errors
/// Those of `count`, which gives the tokens of a text.
pub(crate) fn split(
    text: &str,
    sizes: Sizes,
    count: &dyn Fn(&str) -> Result<usize, Error>,
) -> Result<Vec<Range<usize>>, Error> {
    let all = trimmed(text, 0..text.len());
    if all.is_empty() {
        return Ok(vec![]);
    }
    if count(&text[all.clone()])? <= sizes.passage {
        return Ok(vec![all]);
    }
    // Half a passage at most: two of them always fit, so each passage has something new.
    let most = (sizes.passage / 2).max(1);
    let mut units = Vec::new();
    for sentence in sentences(text) {
        divide(text, sentence, most, count, &mut units)?;
    }
    let mut passages = Vec::new();
    let mut begin = 0;
    while begin < units.len() {
        let end = filled(&units, begin, sizes.passage);
        passages.push(units[begin].bytes.start..units[end - 1].bytes.end);
        if end == units.len() {
            break;
        }
        begin = shared(&units, begin, end, sizes.overlap);
    }
    Ok(passages)
}

/// Behind the last unit of a passage that begins with this one; at least one is in it.
fn filled(units: &[Unit], begin: usize, most: usize) -> usize {
    let mut tokens = 0;
    let fit = units[begin..].iter().take_while(|unit| {
        tokens += unit.tokens;
        tokens <= most
    });
    begin + fit.count().max(1)
}

/// Where the next passage begins: at the last unit, or before it while the overlap fits.
fn shared(units: &[Unit], begin: usize, end: usize, most: usize) -> usize {
    let mut next = end - 1;
    let mut tokens = units[next].tokens;
    while next > begin + 1 && tokens + units[next - 1].tokens <= most {
        next -= 1;
        tokens += units[next].tokens;
    }
    // A passage of a single unit: its neighbour begins behind it.
    next.max(begin + 1)
}

/// Cuts a part in two until none has more tokens than `most`: at white space, or where there
/// is none between characters.
fn divide(
    text: &str,
    part: Range<usize>,
    most: usize,
    count: &dyn Fn(&str) -> Result<usize, Error>,
    units: &mut Vec<Unit>,
) -> Result<(), Error> {
    // Parts that wait, the next one on top: their number grows with the logarithm of the text.
    let mut waiting = vec![part];
    while let Some(part) = waiting.pop() {
        let bytes = trimmed(text, part);
        if bytes.is_empty() {
            continue;
        }
        let tokens = count(&text[bytes.clone()])?;
        match middle(&text[bytes.clone()]).filter(|_| tokens > most) {
            Some(at) => {
                waiting.push(bytes.start + at..bytes.end);
                waiting.push(bytes.start..bytes.start + at);
            }
            None => units.push(Unit { bytes, tokens }),
        }
    }
    Ok(())
}

/// The white space nearest to the middle of a part, else the character border; none in a
/// single character.
fn middle(part: &str) -> Option<usize> {
    let half = part.len() / 2;
    let nearest = |borders: &mut dyn Iterator<Item = usize>| {
        let inside = borders.filter(|at| (1..part.len()).contains(at));
        inside.min_by_key(|at| at.abs_diff(half))
    };
    let mut spaces = part
        .char_indices()
        .filter(|(_, character)| character.is_whitespace())
        .map(|(at, _)| at);
    let mut characters = part.char_indices().map(|(at, _)| at);
    nearest(&mut spaces).or_else(|| nearest(&mut characters))
}

/// The sentences of a text: all of it, with the white space behind each.
fn sentences(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let (mut begin, mut after_stop) = (0, false);
    for (at, character) in text.char_indices() {
        let next = at + character.len_utf8();
        let full = matches!(character, '。' | '！' | '？');
        if full || character == '\n' || character.is_whitespace() && after_stop {
            found.push(begin..next);
            begin = next;
        }
        let closes = matches!(character, '"' | '\'' | ')' | '”' | '’' | '»');
        after_stop = matches!(character, '.' | '!' | '?' | '…') || after_stop && closes;
    }
    found.push(begin..text.len());
    found
}

/// The same range without white space at its ends.
fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let part = &text[range.clone()];
    let begin = range.start + (part.len() - part.trim_start().len());
    begin..begin + part.trim().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes {
        passage: 10,
        overlap: 4,
    };

    /// Words are tokens; of a word of more than 4 characters each 4 are one.
    fn words(text: &str) -> usize {
        text.split_whitespace()
            .map(|word| word.chars().count().div_ceil(4))
            .sum()
    }

    #[track_caller]
    fn check(text: &str) -> Vec<&str> {
        let ranges = split(text, SIZES, &|part| Ok(words(part))).unwrap();
        let mut covered = 0;
        for (at, range) in ranges.iter().enumerate() {
            assert!(words(&text[range.clone()]) <= SIZES.passage, "{range:?}");
            assert_eq!(trimmed(text, range.clone()), *range);
            // Nothing but white space is left out, and each has something new.
            let gap = text.get(covered..range.start).unwrap_or("");
            assert!(gap.trim().is_empty(), "{gap:?}");
            assert!(at == 0 || range.end > covered, "{ranges:?}");
            covered = range.end;
        }
        assert!(text[covered..].trim().is_empty());
        ranges
            .into_iter()
            .map(|range| text.get(range).unwrap())
            .collect()
    }

    #[test]
    fn what_fits_is_one_passage() {
        assert_eq!(check("One. Two."), ["One. Two."]);
        assert_eq!(check("  a b c d e f g h i j \n"), ["a b c d e f g h i j"]);
        assert_eq!(check(" \n "), Vec::<&str>::new());
    }

    #[test]
    fn passages_are_sentences_and_share_the_last_ones() {
        let passages = check("a b c. d e f. g h i. j k l. m n o. p q r.");
        assert_eq!(
            passages,
            [
                "a b c. d e f. g h i.",
                "g h i. j k l. m n o.",
                "m n o. p q r."
            ]
        );
        // Several short ones fit the overlap.
        let passages = check("a b c d e f. g. h. i. j. k. l. m.");
        assert_eq!(
            passages,
            ["a b c d e f. g. h. i. j.", "g. h. i. j. k. l. m."]
        );
    }

    #[test]
    fn sentences_that_are_too_long_are_cut_at_spaces_words_anywhere() {
        let passages = check("a b c d e f g h i j k l m n o p.");
        assert!(
            passages.len() > 1 && passages[0].starts_with("a b c"),
            "{passages:?}"
        );
        assert!(check(&"x".repeat(200)).len() > 4);
        assert!(check(&"日本語".repeat(50)).len() > 3);
        let lines = check("one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\nten\neleven");
        assert!(lines[0].ends_with("seven"), "{lines:?}");
    }

    #[test]
    fn a_character_of_more_tokens_than_a_passage_ends_too() {
        let count = |part: &str| Ok(20 * part.chars().count());
        let ranges = split("ab", SIZES, &count).unwrap();
        assert_eq!(ranges, [0..1, 1..2]);
    }
}
