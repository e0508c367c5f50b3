//! Cuts text into the pieces inside which byte-pair merges happen.
//! In: text. Out: ranges that cover it without gaps, in order.
//! It is a scanner, not a regular expression, so its time is linear whatever the text.

use std::ops::Range;
use std::sync::LazyLock;

/// How a model's training cut its text; the metadata key `tokenizer.ggml.pre` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// GPT-2's expression:
    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.
    Gpt2,
    /// Every digit alone, then GPT-2's expression on what lies between.
    DigitsThenGpt2,
    /// Qwen 2 and 3; Llama 3's expression, but with every digit alone.
    Qwen2,
    /// Llama 3's expression, digits in threes:
    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`.
    Llama3,
}

impl Cut {
    /// By the name in the metadata.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "gpt-2" | "gpt2" => Some(Self::Gpt2),
            "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone"
            | "minerva-7b" => Some(Self::DigitsThenGpt2),
            "qwen2" | "deepseek-r1-qwen" | "megrez" => Some(Self::Qwen2),
            "llama-bpe" | "llama3" | "llama-v3" => Some(Self::Llama3),
            _ => None,
        }
    }

    /// Whether a piece that is a token is taken as it stands, without merging.
    pub(super) fn takes_whole_pieces(self) -> bool {
        self == Self::Llama3
    }

    /// Calls `piece` for each piece of `text`, in order; an error ends it.
    pub(super) fn each<E>(
        self,
        text: &str,
        mut piece: impl FnMut(&str) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Self::Gpt2 => gpt2(text, &mut piece),
            Self::Qwen2 => llama3(text, 1, &mut piece),
            Self::Llama3 => llama3(text, 3, &mut piece),
            Self::DigitsThenGpt2 => {
                let mut begin = 0;
                for (at, digit) in text
                    .char_indices()
                    .filter(|(_, letter)| letter.is_numeric())
                {
                    gpt2(&text[begin..at], &mut piece)?;
                    begin = at + digit.len_utf8();
                    piece(&text[at..begin])?;
                }
                gpt2(&text[begin..], &mut piece)
            }
        }
    }
}

/// What the expression tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    Number,
    Space,
    Other,
}

fn class(letter: char) -> Class {
    match letter {
        'a'..='z' | 'A'..='Z' => Class::Letter,
        '0'..='9' => Class::Number,
        _ if letter.is_whitespace() => Class::Space,
        _ if letter.is_ascii() => Class::Other,
        _ if letter.is_numeric() => Class::Number,
        _ if is_letter(letter) => Class::Letter,
        _ => Class::Other,
    }
}

/// Unicode's general category L. `char::is_alphabetic` is another set: it has marks in it.
fn is_letter(letter: char) -> bool {
    static LETTERS: LazyLock<Vec<(char, char)>> = LazyLock::new(|| {
        let parsed = regex_syntax::parse(r"\p{L}").map(regex_syntax::hir::Hir::into_kind);
        match parsed {
            Ok(regex_syntax::hir::HirKind::Class(regex_syntax::hir::Class::Unicode(class))) => {
                class
                    .iter()
                    .map(|range| (range.start(), range.end()))
                    .collect()
            }
            other => unreachable!("`\\p{{L}}` parses to a class of characters, not {other:?}"),
        }
    });
    let after = LETTERS.partition_point(|(start, _)| *start <= letter);
    after
        .checked_sub(1)
        .is_some_and(|at| letter <= LETTERS[at].1)
}

fn gpt2<E>(text: &str, piece: &mut impl FnMut(&str) -> Result<(), E>) -> Result<(), E> {
    let mut begin = 0;
    while begin < text.len() {
        let range = next_piece(text, begin);
        begin = range.end;
        piece(&text[range])?;
    }
    Ok(())
}

/// The expression's leftmost match at `begin`, which is inside `text`.
fn next_piece(text: &str, begin: usize) -> Range<usize> {
    let rest = &text[begin..];
    for contraction in ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"] {
        if rest.starts_with(contraction) {
            return begin..begin + contraction.len();
        }
    }
    let word = rest.strip_prefix(' ').unwrap_or(rest);
    if let Some(kind) = word
        .chars()
        .next()
        .map(class)
        .filter(|kind| *kind != Class::Space)
    {
        let run = word
            .find(|letter| class(letter) != kind)
            .unwrap_or(word.len());
        return begin..begin + (rest.len() - word.len()) + run;
    }
    // White space: all of it at the end of the text, else all but the last character,
    // which the next word may take; a single one stands alone.
    let run = rest
        .find(|letter| class(letter) != Class::Space)
        .unwrap_or(rest.len());
    let last = rest[..run].chars().next_back().map_or(0, char::len_utf8);
    if run == rest.len() || run == last {
        begin..begin + run
    } else {
        begin..begin + run - last
    }
}

fn llama3<E>(
    text: &str,
    digits: usize,
    piece: &mut impl FnMut(&str) -> Result<(), E>,
) -> Result<(), E> {
    let mut rest = text;
    while !rest.is_empty() {
        let (first, after) = rest.split_at(llama3_piece(rest, digits));
        rest = after;
        piece(first)?;
    }
    Ok(())
}

/// The length of Llama 3's leftmost match in `rest`, which is not empty.
fn llama3_piece(rest: &str, digits: usize) -> usize {
    if let Some(length) = contraction(rest) {
        return length;
    }
    let run = |from: usize, is_in: &dyn Fn(char) -> bool| {
        rest[from..]
            .find(|letter| !is_in(letter))
            .map_or(rest.len(), |length| from + length)
    };
    let is_break = |letter: char| matches!(letter, '\r' | '\n');
    let mut letters = rest.chars();
    let first = letters.next().unwrap_or_default();
    let second = letters.next().map(class);
    match class(first) {
        Class::Letter => return run(0, &|it| class(it) == Class::Letter),
        Class::Number => {
            let numbers = rest.char_indices().map(|(_, letter)| letter);
            let numbers = numbers.take_while(|it| class(*it) == Class::Number);
            return numbers.take(digits).map(char::len_utf8).sum();
        }
        // One character that is no break may go before a word.
        Class::Space | Class::Other if second == Some(Class::Letter) && !is_break(first) => {
            return run(first.len_utf8(), &|it| class(it) == Class::Letter);
        }
        Class::Other => return run(run(0, &|it| class(it) == Class::Other), &is_break),
        Class::Space if first == ' ' && second == Some(Class::Other) => {
            return run(run(1, &|it| class(it) == Class::Other), &is_break);
        }
        Class::Space => {}
    }
    // White space up to and with its last break; else all of it at the end of the text, else all but
    // the last character, which the next piece may take; a single one stands alone.
    let spaces = run(0, &|it| class(it) == Class::Space);
    if let Some(last) = rest[..spaces].rfind(is_break) {
        return last + 1;
    }
    let last = rest[..spaces].chars().next_back().map_or(0, char::len_utf8);
    if spaces == rest.len() || spaces == last {
        spaces
    } else {
        spaces - last
    }
}

/// The length of a contraction in letters of either case at the beginning.
fn contraction(rest: &str) -> Option<usize> {
    let tail = rest.strip_prefix('\'')?;
    ["s", "t", "re", "ve", "m", "ll", "d"]
        .into_iter()
        .find(|it| {
            tail.get(..it.len())
                .is_some_and(|head| head.eq_ignore_ascii_case(it))
        })
        .map(|it| 1 + it.len())
        // The long s is an s in another case.
        .or_else(|| tail.starts_with('\u{17f}').then_some(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(cut: Cut, text: &str) -> Vec<String> {
        let mut found = Vec::new();
        let done: Result<(), ()> = cut.each(text, |piece| {
            found.push(piece.to_owned());
            Ok(())
        });
        done.unwrap();
        found
    }

    #[test]
    fn pieces_follow_the_expression() {
        let table: [(&str, &[&str]); 16] = [
            ("", &[]),
            (" ", &[" "]),
            ("Hello world", &["Hello", " world"]),
            ("a  b", &["a", " ", " b"]),
            ("a \n b", &["a", " \n", " b"]),
            ("a\nb", &["a", "\n", "b"]),
            ("a\n\nb", &["a", "\n", "\n", "b"]),
            ("end  ", &["end", "  "]),
            ("it's they'll'x", &["it", "'s", " they", "'ll", "'", "x"]),
            ("''s", &["''", "s"]),
            (" 's", &[" '", "s"]),
            ("x=1, y", &["x", "=", "1", ",", " y"]),
            ("\u{3000}x", &["\u{3000}", "x"]),
            ("naïve Ελλάς 東京", &["naïve", " Ελλάς", " 東京"]),
            // A combining mark is alphabetic in Unicode's sense but not in category L.
            ("\u{0915}\u{093e}x", &["\u{0915}", "\u{093e}", "x"]),
            ("\t\tx", &["\t", "\t", "x"]),
        ];
        for (text, wanted) in table {
            assert_eq!(pieces(Cut::Gpt2, text), wanted, "{text:?}");
        }
    }

    #[test]
    fn digits_stand_alone_where_the_model_says_so() {
        assert_eq!(pieces(Cut::Gpt2, "in 1868!"), ["in", " 1868", "!"]);
        assert_eq!(
            pieces(Cut::DigitsThenGpt2, "in 18!"),
            ["in", " ", "1", "8", "!"]
        );
        assert_eq!(pieces(Cut::DigitsThenGpt2, "x  7"), ["x", "  ", "7"]);
        assert_eq!(pieces(Cut::DigitsThenGpt2, "½²"), ["½", "²"]);
    }

    #[test]
    fn pieces_are_those_of_the_expressions() {
        let cases: Vec<(String, Vec<String>, Vec<String>)> =
            serde_json::from_str(include_str!("../../tests/goldens/cuts.json")).unwrap();
        for (text, qwen2, llama3) in cases {
            assert_eq!(pieces(Cut::Qwen2, &text), qwen2, "{text:?}");
            assert_eq!(pieces(Cut::Llama3, &text), llama3, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn pieces_cover_the_text(text in ".*") {
            for cut in [Cut::Gpt2, Cut::DigitsThenGpt2, Cut::Qwen2, Cut::Llama3] {
                assert_eq!(pieces(cut, &text).concat(), text);
            }
        }
    }
}
