//! Strings between two lengths that match a pattern, byte by byte.
//!
//! In: an automaton, lengths in characters, and the bytes so far. Out: whether some string
//! still begins so, and the shortest way to the closing quote. Each character has one
//! spelling: itself, or the escape that JSON needs for it.

use super::{automaton::Automaton, value::spell};

/// Characters of a string where the schema sets no bound.
pub(super) const CHARS_DEFAULT: u32 = 1024;
/// The same for a string with a pattern.
const PATTERN_CHARS_DEFAULT: u32 = 256;
/// A string with a pattern is never longer.
const PATTERN_CHARS_MAX: u32 = 4096;
/// Work of finding the lengths from which a pattern can end.
const WORK_MAX: usize = 20_000_000;

/// Which strings are allowed.
#[derive(Debug, Clone)]
pub(super) struct Texts {
    automaton: Automaton,
    chars_min: u32,
    chars_max: u32,
    /// For each number of characters, the states from which a text of that length ends, as
    /// bits; empty where every state ends with every length.
    ends: Vec<Vec<u64>>,
}

/// What has been written of a string, from its opening quote on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Written {
    state: u32,
    chars: u32,
    /// The beginning of a character that takes more than one byte.
    partial: [u8; 6],
    partial_len: u8,
}

/// What a byte does to a string.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Inside(Written),
    /// It was the closing quote.
    Closed,
}

impl Texts {
    /// Strings of these lengths, which match the automaton if there is one.
    ///
    /// # Errors
    /// In words, if the pattern and the lengths together are too large.
    pub(super) fn new(
        pattern: Option<Automaton>,
        chars_min: u32,
        chars_max: Option<u32>,
    ) -> Result<Self, String> {
        let Some(automaton) = pattern else {
            let chars_max = chars_max.unwrap_or_else(|| CHARS_DEFAULT.max(chars_min));
            return Ok(Self {
                automaton: Automaton::any(),
                chars_min,
                chars_max,
                ends: Vec::new(),
            });
        };
        let shortest = shortest(&automaton).unwrap_or(0).max(chars_min);
        let chars_max = chars_max
            .unwrap_or(u32::MAX)
            .min(PATTERN_CHARS_DEFAULT.max(shortest.saturating_add(64)));
        if shortest > PATTERN_CHARS_MAX {
            return Err(format!(
                "a string of {shortest} characters with a pattern, at most {PATTERN_CHARS_MAX} are possible"
            ));
        }
        let arcs: usize = automaton
            .states
            .iter()
            .map(|state| state.arcs.len() + 1)
            .sum();
        if arcs.saturating_mul(chars_max as usize) > WORK_MAX {
            return Err("the pattern is too large for strings of this length".to_owned());
        }
        let ends = ends(&automaton, chars_max as usize);
        Ok(Self {
            automaton,
            chars_min,
            chars_max,
            ends,
        })
    }

    /// Whether any string is allowed.
    pub(super) fn any(&self) -> bool {
        !self.automaton.states.is_empty() && self.alive(0, 0)
    }

    /// Whether a text ends from this state within the lengths; the shortest such length.
    fn left(&self, state: u32, chars: u32) -> Option<u32> {
        let (least, most) = (
            self.chars_min.saturating_sub(chars),
            self.chars_max.checked_sub(chars)?,
        );
        if self.ends.is_empty() {
            return (least <= most).then_some(least);
        }
        (least..=most).find(|length| self.ends_after(state, *length))
    }

    fn ends_after(&self, state: u32, length: u32) -> bool {
        let bits = self.ends.get(length as usize);
        bits.is_some_and(|bits| bits[state as usize / 64] >> (state % 64) & 1 == 1)
    }

    fn alive(&self, state: u32, chars: u32) -> bool {
        self.left(state, chars).is_some()
    }

    /// One whole character more.
    fn character(&self, written: &Written, character: u32) -> Option<Written> {
        let state = self.automaton.next(written.state, character)?;
        let chars = written.chars + 1;
        self.alive(state, chars).then_some(Written {
            state,
            chars,
            ..Written::default()
        })
    }

    /// One more byte; `None` where no allowed string goes on so.
    pub(super) fn step(&self, written: &Written, byte: u8) -> Option<Step> {
        let inside = |written| Some(Step::Inside(written));
        if written.partial_len == 0 {
            match byte {
                b'"' => {
                    let ends = written.chars >= self.chars_min
                        && self.automaton.states[written.state as usize].accepts;
                    return ends.then_some(Step::Closed);
                }
                0x20..=0x5b | 0x5d..=0x7f => return inside(self.character(written, byte.into())?),
                b'\\' | 0xc2..=0xf4 => {}
                _ => return None,
            }
        }
        let mut next = *written;
        *next.partial.get_mut(usize::from(next.partial_len))? = byte;
        next.partial_len += 1;
        let partial = &next.partial[..usize::from(next.partial_len)];
        if partial[0] == b'\\' {
            let mut unfinished = false;
            for character in escaped() {
                let spelling = spelling(character);
                if spelling == partial {
                    return inside(self.character(written, character)?);
                }
                unfinished |=
                    spelling.starts_with(partial) && self.character(written, character).is_some();
            }
            return if unfinished { inside(next) } else { None };
        }
        let (low, high) = utf8_range(partial)?;
        if low == high && partial.len() == char::from_u32(low)?.len_utf8() {
            return inside(self.character(written, low)?);
        }
        self.in_range(written, low, high)?;
        inside(next)
    }

    /// The first allowed character between two, and where it leads.
    fn in_range(&self, written: &Written, low: u32, high: u32) -> Option<(u32, Written)> {
        let arcs = &self.automaton.states.get(written.state as usize)?.arcs;
        let begin = arcs.partition_point(|arc| arc.1 < low);
        arcs[begin..]
            .iter()
            .take_while(|arc| arc.0 <= high)
            .find_map(|arc| {
                let character = arc.0.max(low);
                Some((character, self.character(written, character)?))
            })
    }

    /// The shortest rest of the string, with its closing quote.
    pub(super) fn rest(&self, written: &Written) -> Vec<u8> {
        let mut out = Vec::new();
        let mut at = *written;
        if at.partial_len > 0 {
            let partial = &at.partial[..usize::from(at.partial_len)];
            let found = if partial[0] == b'\\' {
                escaped()
                    .filter(|character| spelling(*character).starts_with(partial))
                    .find_map(|character| Some((character, self.character(written, character)?)))
            } else {
                utf8_range(partial).and_then(|(low, high)| self.in_range(written, low, high))
            };
            if let Some((character, next)) = found {
                out.extend_from_slice(&spelling(character)[partial.len()..]);
                at = next;
            }
        }
        let mut left = self.left(at.state, at.chars).unwrap_or(0);
        while left > 0 {
            left -= 1;
            let Some((character, state)) = self.plain_arc(at.state, left) else {
                break;
            };
            out.extend_from_slice(&spelling(character));
            at.state = state;
        }
        out.push(b'"');
        out
    }

    /// A character that leads to a state with `left` characters to its end; a plain one if
    /// there is one.
    fn plain_arc(&self, state: u32, left: u32) -> Option<(u32, u32)> {
        const PLAIN: [u32; 5] = [0x61, 0x30, 0x41, 0x20, 0x2d];
        let arcs = &self.automaton.states.get(state as usize)?.arcs;
        let open = |to: u32| self.ends.is_empty() || self.ends_after(to, left);
        for plain in PLAIN {
            if let Some(to) = self.automaton.next(state, plain).filter(|to| open(*to)) {
                return Some((plain, to));
            }
        }
        let (low, high, to) = arcs.iter().find(|arc| open(arc.2))?;
        Some(((*low).max(0x21).min(*high), *to))
    }

    /// Bytes of the shortest string, quotes included; 6 bytes a character at most.
    pub(super) fn shortest_bytes(&self) -> u64 {
        match self.left(0, 0) {
            // A pattern's strings are short enough to be spelled out.
            Some(_) if !self.ends.is_empty() => self.rest(&Written::default()).len() as u64 + 1,
            Some(chars) => u64::from(chars) + 2,
            None => u64::MAX,
        }
    }
}

/// Characters of the shortest text.
fn shortest(automaton: &Automaton) -> Option<u32> {
    let mut seen = vec![false; automaton.states.len()];
    let mut now = vec![0_u32];
    let mut length = 0;
    while !now.is_empty() {
        let mut next = Vec::new();
        for state in now {
            let Some(entry) = automaton.states.get(state as usize) else {
                continue;
            };
            if std::mem::replace(&mut seen[state as usize], true) {
                continue;
            }
            if entry.accepts {
                return Some(length);
            }
            next.extend(entry.arcs.iter().map(|arc| arc.2));
        }
        now = next;
        length += 1;
    }
    None
}

fn ends(automaton: &Automaton, chars_max: usize) -> Vec<Vec<u64>> {
    let words = automaton.states.len().div_ceil(64);
    let has = |bits: &[u64], state: u32| bits[state as usize / 64] >> (state % 64) & 1 == 1;
    let mut ends: Vec<Vec<u64>> = Vec::with_capacity(chars_max + 1);
    for length in 0..=chars_max {
        let mut bits = vec![0_u64; words];
        for (at, state) in automaton.states.iter().enumerate() {
            let ends = match length.checked_sub(1).map(|before| &ends[before]) {
                None => state.accepts,
                Some(before) => state.arcs.iter().any(|arc| has(before, arc.2)),
            };
            bits[at / 64] |= u64::from(ends) << (at % 64);
        }
        ends.push(bits);
    }
    ends
}

/// The characters that JSON escapes.
fn escaped() -> impl Iterator<Item = u32> {
    [0x22, 0x5c].into_iter().chain(0..0x20)
}

fn spelling(character: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(6);
    if let Some(character) = char::from_u32(character) {
        spell(character, &mut out);
    }
    out
}

/// The characters whose UTF-8 begins with these bytes; `None` if there are none.
fn utf8_range(partial: &[u8]) -> Option<(u32, u32)> {
    let lead = u32::from(partial[0]);
    let (length, least, bits) = match lead {
        0xc2..=0xdf => (2, 0x80, lead & 0x1f),
        0xe0..=0xef => (3, 0x800, lead & 0x0f),
        0xf0..=0xf4 => (4, 0x1_0000, lead & 0x07),
        _ => return None,
    };
    let (mut low, mut high) = (bits, bits);
    for at in 1..length {
        let (least, most) = match partial.get(at) {
            Some(byte @ 0x80..=0xbf) => (u32::from(byte & 0x3f), u32::from(byte & 0x3f)),
            Some(_) => return None,
            None => (0, 0x3f),
        };
        low = low << 6 | least;
        high = high << 6 | most;
    }
    (low, high) = (low.max(least), high.min(0x10_ffff));
    // Surrogates are no characters.
    if (0xd800..=0xdfff).contains(&low) {
        low = 0xe000;
    }
    if (0xd800..=0xdfff).contains(&high) {
        high = 0xd7ff;
    }
    (low <= high).then_some((low, high))
}

#[cfg(test)]
mod tests {
    use super::{super::regex, *};

    fn texts(pattern: Option<&str>, chars_min: u32, chars_max: Option<u32>) -> Texts {
        let automaton =
            pattern.map(|pattern| Automaton::of(&regex::read(pattern).unwrap()).unwrap());
        Texts::new(automaton, chars_min, chars_max).unwrap()
    }

    /// What becomes of a string that begins so (without its opening quote).
    fn completed(texts: &Texts, begin: &[u8]) -> Option<String> {
        let mut written = Written::default();
        for (at, byte) in begin.iter().enumerate() {
            match texts.step(&written, *byte)? {
                Step::Inside(next) => written = next,
                Step::Closed => {
                    assert_eq!(at + 1, begin.len());
                    return Some(String::from_utf8(begin.to_vec()).unwrap());
                }
            }
        }
        let mut all = begin.to_vec();
        all.extend(texts.rest(&written));
        Some(String::from_utf8(all).unwrap())
    }

    #[track_caller]
    fn check(texts: &Texts, begin: &[u8], expected: Option<&str>) {
        assert_eq!(completed(texts, begin).as_deref(), expected, "{begin:?}");
    }

    #[test]
    fn plain_strings_keep_their_lengths() {
        let short = texts(None, 2, Some(3));
        check(&short, b"", Some("aa\""));
        check(&short, b"x\"", None);
        check(&short, b"xy\"", Some("xy\""));
        check(&short, b"xyzz", None);
        check(&short, "éß".as_bytes(), Some("éß\""));
        assert!(!texts(None, 4, Some(3)).any());
        check(&texts(None, 0, Some(0)), b"", Some("\""));
        check(&texts(None, 0, Some(0)), b"a", None);
    }

    #[test]
    fn only_whole_characters_in_one_spelling() {
        let any = texts(None, 0, None);
        check(&any, b"\xc3", Some("\u{c0}\""));
        check(&any, b"\xc0", None);
        check(&any, b"\xed\xa0", None);
        check(&any, b"\xed\x9f\xbf", Some("\u{d7ff}\""));
        check(&any, b"\xf4\x90", None);
        check(&any, b"\xf0\x9f\x98", Some("\u{1f600}\""));
        check(&any, b"\xf0\x80", None);
        check(&any, b"\n", None);
        check(&any, b"\\", Some("\\\"\""));
        check(&any, b"\\n\\u00", Some("\\n\\u0000\""));
        check(&any, b"\\u0041", None);
        check(&any, b"\\/", None);
        check(&any, b"\\u001f", Some("\\u001f\""));
    }

    #[test]
    fn patterns_and_lengths_hold_together() {
        let pattern = texts(Some("^(ab|c)*$"), 3, Some(4));
        check(&pattern, b"", Some("abc\""));
        check(&pattern, b"ccca", None);
        check(&pattern, b"abab\"", Some("abab\""));
        check(&pattern, b"ab\"", None);
        assert!(!texts(Some("^(ab)*$"), 3, Some(3)).any());
        let long = texts(Some("^x{500}$"), 0, None);
        assert_eq!(completed(&long, b"").unwrap().len(), 501);
        let control = texts(Some("^\\n[\"\\\\]$"), 0, None);
        check(&control, b"", Some("\\n\\\"\""));
        check(&control, b"\\t", None);
        check(&texts(Some("^[а-я]$"), 0, None), b"\xd0", Some("а\""));
        check(&texts(Some("^[а-я]$"), 0, None), b"\xd2", None);
        check(&texts(Some("^[а-я]$"), 0, None), b"\\", None);
    }
}
