//! The subset of regular expressions that patterns may use, as a tree.
//!
//! In: a pattern in the syntax of ECMA-262, which JSON Schema uses. Out: a tree of character
//! sets, or what in the pattern is not supported, by name and place. A pattern matches
//! anywhere in a text unless `^` and `$` say otherwise.
//!
//! Supported: literals, `.`, sets `[a-z]` and `[^a-z]`, `\d \w \s \D \W \S`, `\t \n \r \f \v
//! \0 \xHH \uHHHH`, groups, `|`, `* + ? {n} {n,} {n,m}` (also lazy: the language is the same),
//! and `^` and `$` at the ends of the pattern or of one of its alternatives. Not supported:
//! look-around, back references, `\b`, `\p`, flags.

/// The longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 4096;
/// The largest number in `{n,m}`.
const REPEAT_MAX: u32 = 1000;
/// Groups within groups.
const NESTING_MAX: usize = 64;

const LAST: u32 = 0x10_ffff;
const DIGIT: &[(u32, u32)] = &[(0x30, 0x39)];
const WORD: &[(u32, u32)] = &[(0x30, 0x39), (0x41, 0x5a), (0x5f, 0x5f), (0x61, 0x7a)];
/// White space that every dialect knows: what `\s` may generate.
const SPACE: &[(u32, u32)] = &[(0x09, 0x0d), (0x20, 0x20)];
/// White space that some dialect knows: what `\S` never generates.
const SPACE_WIDE: &[(u32, u32)] = &[
    (0x09, 0x0d),
    (0x20, 0x20),
    (0x85, 0x85),
    (0xa0, 0xa0),
    (0x1680, 0x1680),
    (0x2000, 0x200a),
    (0x2028, 0x2029),
    (0x202f, 0x202f),
    (0x205f, 0x205f),
    (0x3000, 0x3000),
    (0xfeff, 0xfeff),
];
const LINE_ENDS: &[(u32, u32)] = &[(0x0a, 0x0a), (0x0d, 0x0d), (0x2028, 0x2029)];

/// Ranges of characters, ascending and apart, without the surrogates.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Chars(pub(super) Vec<(u32, u32)>);

impl Chars {
    pub(super) fn new(ranges: &[(u32, u32)]) -> Self {
        let mut ranges = ranges.to_vec();
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::new();
        for (low, high) in ranges {
            match merged.last_mut() {
                Some(last) if low <= last.1.saturating_add(1) => last.1 = last.1.max(high),
                _ => merged.push((low, high)),
            }
        }
        // Surrogates are no characters: a range over them is cut in two.
        let mut found = Vec::new();
        for (low, high) in merged {
            for (from, to) in [(low, high.min(0xd7ff)), (low.max(0xe000), high)] {
                if from <= to {
                    found.push((from, to));
                }
            }
        }
        found.dedup();
        Self(found)
    }

    pub(super) fn all() -> Self {
        Self::new(&[(0, LAST)])
    }

    fn except(ranges: &[(u32, u32)]) -> Self {
        let mut found = Vec::new();
        let mut next = 0;
        for (low, high) in Self::new(ranges).0 {
            if next < low {
                found.push((next, low - 1));
            }
            next = high + 1;
        }
        if next <= LAST {
            found.push((next, LAST));
        }
        Self::new(&found)
    }
}

/// A pattern as a tree.
#[derive(Debug, Clone)]
pub(super) enum Tree {
    Empty,
    One(Chars),
    Each(Vec<Tree>),
    Either(Vec<Tree>),
    Repeat(Box<Tree>, u32, Option<u32>),
    /// `^` and `$`, until [`anchor`] has taken them away.
    Start,
    End,
}

/// Reads a pattern.
///
/// # Errors
/// What is not supported or wrong, in words, with the character's place.
pub(super) fn read(pattern: &str) -> Result<Tree, String> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(format!("a pattern of more than {PATTERN_BYTES_MAX} bytes"));
    }
    let mut reader = Reader {
        rest: pattern.chars().collect(),
        at: 0,
    };
    let tree = reader.alternatives(0)?;
    if reader.at < reader.rest.len() {
        return Err(reader.problem("`)` without its `(`"));
    }
    let tree = anchor(tree);
    if anchored_inside(&tree) {
        return Err(
            "`^` and `$` stand only at the ends of a pattern or of its alternatives".into(),
        );
    }
    Ok(tree)
}

/// Makes the meaning of `^` and `$` explicit: without them, anything may be around a match.
fn anchor(tree: Tree) -> Tree {
    let anything = || Tree::Repeat(Box::new(Tree::One(Chars::all())), 0, None);
    match tree {
        Tree::Either(alternatives) => Tree::Either(alternatives.into_iter().map(anchor).collect()),
        Tree::Each(mut parts) => {
            // One group around it all: what is inside counts.
            if let [Tree::Either(_) | Tree::Each(_)] = parts.as_slice() {
                return parts.pop().map_or(Tree::Empty, anchor);
            }
            if matches!(parts.first(), Some(Tree::Start)) {
                parts.remove(0);
            } else {
                parts.insert(0, anything());
            }
            if matches!(parts.last(), Some(Tree::End)) {
                parts.pop();
            } else {
                parts.push(anything());
            }
            Tree::Each(parts)
        }
        other => anchor(Tree::Each(vec![other, Tree::Empty])),
    }
}

fn anchored_inside(tree: &Tree) -> bool {
    match tree {
        Tree::Start | Tree::End => true,
        Tree::Empty | Tree::One(_) => false,
        Tree::Each(parts) | Tree::Either(parts) => parts.iter().any(anchored_inside),
        Tree::Repeat(inner, ..) => anchored_inside(inner),
    }
}

struct Reader {
    rest: Vec<char>,
    at: usize,
}

impl Reader {
    fn peek(&self) -> Option<char> {
        self.rest.get(self.at).copied()
    }

    fn take(&mut self) -> Option<char> {
        let next = self.peek();
        self.at += usize::from(next.is_some());
        next
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn problem(&self, what: &str) -> String {
        format!("in the pattern at character {}: {what}", self.at + 1)
    }

    fn alternatives(&mut self, nesting: usize) -> Result<Tree, String> {
        if nesting > NESTING_MAX {
            return Err(self.problem("too many groups within groups"));
        }
        let mut alternatives = vec![self.sequence(nesting)?];
        while self.eat('|') {
            alternatives.push(self.sequence(nesting)?);
        }
        match alternatives.len() {
            1 => Ok(alternatives.pop().unwrap_or(Tree::Empty)),
            _ => Ok(Tree::Either(alternatives)),
        }
    }

    fn sequence(&mut self, nesting: usize) -> Result<Tree, String> {
        let mut parts = Vec::new();
        while let Some(next) = self.peek() {
            if matches!(next, '|' | ')') {
                break;
            }
            let atom = self.atom(nesting)?;
            parts.push(self.repeated(atom)?);
        }
        Ok(Tree::Each(parts))
    }

    fn atom(&mut self, nesting: usize) -> Result<Tree, String> {
        let one = |character: char| {
            let code = u32::from(character);
            Ok(Tree::One(Chars::new(&[(code, code)])))
        };
        match self.take() {
            Some('^') => Ok(Tree::Start),
            Some('$') => Ok(Tree::End),
            Some('.') => Ok(Tree::One(Chars::except(LINE_ENDS))),
            Some('(') => self.group(nesting),
            Some('[') => self.set(),
            Some('\\') => {
                let (ranges, _) = self.escape()?;
                Ok(Tree::One(Chars::new(&ranges)))
            }
            Some(lone @ ('*' | '+' | '?' | '{' | '}' | ']')) => {
                self.at -= 1;
                Err(self.problem(&format!("write `\\{lone}` for the character itself")))
            }
            Some(character) => one(character),
            None => Err(self.problem("it ends too early")),
        }
    }

    fn group(&mut self, nesting: usize) -> Result<Tree, String> {
        if self.eat('?') {
            match self.take() {
                Some(':') => {}
                Some('<') if !matches!(self.peek(), Some('=' | '!')) => {
                    while self.take().is_some_and(|character| character != '>') {}
                }
                Some('=' | '!' | '<') => return Err(self.problem("look-around is not supported")),
                _ => return Err(self.problem("flags are not supported")),
            }
        }
        let inner = self.alternatives(nesting + 1)?;
        if self.eat(')') {
            Ok(inner)
        } else {
            Err(self.problem("a group without its `)`"))
        }
    }

    fn repeated(&mut self, atom: Tree) -> Result<Tree, String> {
        let (least, most) = match self.peek() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            Some('{') => {
                self.at += 1;
                let least = self.number()?;
                let most = match (self.eat(','), self.peek()) {
                    (false, _) => Some(least),
                    (true, Some('}')) => None,
                    (true, _) => Some(self.number()?),
                };
                if self.peek() != Some('}') {
                    return Err(self.problem("expected `}`"));
                }
                (least, most)
            }
            _ => return Ok(atom),
        };
        self.at += 1;
        self.eat('?');
        if matches!(atom, Tree::Start | Tree::End) {
            return Err(self.problem("`^` and `$` cannot be repeated"));
        }
        if most.is_some_and(|most| most < least) {
            return Err(self.problem("`{n,m}` needs n to be at most m"));
        }
        if matches!(self.peek(), Some('*' | '+' | '?' | '{')) {
            return Err(self.problem("two repetitions in a row"));
        }
        Ok(Tree::Repeat(Box::new(atom), least, most))
    }

    fn number(&mut self) -> Result<u32, String> {
        let mut number: u32 = 0;
        let start = self.at;
        while let Some(digit) = self.peek().and_then(|character| character.to_digit(10)) {
            self.at += 1;
            number = number.saturating_mul(10).saturating_add(digit);
        }
        match number {
            _ if self.at == start => Err(self.problem("expected a number")),
            number if number > REPEAT_MAX => {
                Err(self.problem(&format!("a repetition of more than {REPEAT_MAX}")))
            }
            number => Ok(number),
        }
    }

    fn set(&mut self) -> Result<Tree, String> {
        let negated = self.eat('^');
        // What the set holds, and what it must be taken to hold where it is negated.
        let (mut narrow, mut wide) = (Vec::new(), Vec::new());
        loop {
            let (ranges, ranges_wide) = match self.take() {
                Some(']') => break,
                Some('\\') => self.escape()?,
                Some(character) => {
                    let code = u32::from(character);
                    (vec![(code, code)], vec![(code, code)])
                }
                None => return Err(self.problem("a set without its `]`")),
            };
            let range = self.peek() == Some('-') && self.rest.get(self.at + 1) != Some(&']');
            if !range {
                narrow.extend(ranges);
                wide.extend(ranges_wide);
                continue;
            }
            self.at += 1;
            let (end, _) = match self.take() {
                Some('\\') => self.escape()?,
                Some(character) => (vec![(u32::from(character), u32::from(character))], vec![]),
                None => return Err(self.problem("a set without its `]`")),
            };
            match (ranges.as_slice(), end.as_slice()) {
                ([(low, same)], [(high, end)]) if low == same && high == end && low <= high => {
                    narrow.push((*low, *high));
                    wide.push((*low, *high));
                }
                _ => return Err(self.problem("a range whose ends are not in order")),
            }
        }
        if narrow.is_empty() {
            return Err(self.problem("an empty set"));
        }
        Ok(Tree::One(if negated {
            Chars::except(&wide)
        } else {
            Chars::new(&narrow)
        }))
    }

    /// What follows a backslash: the characters to generate, and the characters that any
    /// dialect takes it for.
    #[expect(
        clippy::type_complexity,
        reason = "two lists of ranges, taken apart at once"
    )]
    fn escape(&mut self) -> Result<(Vec<(u32, u32)>, Vec<(u32, u32)>), String> {
        let same = |ranges: Vec<(u32, u32)>| Ok((ranges.clone(), ranges));
        let one = |code: u32| Ok((vec![(code, code)], vec![(code, code)]));
        match self.take() {
            Some('d') => same(DIGIT.to_vec()),
            Some('D') => same(Chars::except(DIGIT).0),
            Some('w') => same(WORD.to_vec()),
            Some('W') => same(Chars::except(WORD).0),
            Some('s') => Ok((SPACE.to_vec(), SPACE_WIDE.to_vec())),
            Some('S') => Ok((Chars::except(SPACE_WIDE).0, Chars::except(SPACE).0)),
            Some('t') => one(0x09),
            Some('n') => one(0x0a),
            Some('v') => one(0x0b),
            Some('f') => one(0x0c),
            Some('r') => one(0x0d),
            Some('0') if !self.peek().is_some_and(|next| next.is_ascii_digit()) => one(0),
            Some('x') => one(self.hex(2)?),
            Some('u') => match self.hex(4)? {
                0xd800..=0xdfff => Err(self.problem("half a character; write it directly")),
                code => one(code),
            },
            Some('0'..='9') => Err(self.problem("back references are not supported")),
            Some('b' | 'B') => Err(self.problem("`\\b` is not supported")),
            Some('p' | 'P') => Err(self.problem("`\\p` is not supported; list the characters")),
            Some('c' | 'k') => Err(self.problem("this escape is not supported")),
            Some(letter) if letter.is_alphanumeric() => {
                Err(self.problem(&format!("`\\{letter}` means nothing")))
            }
            Some(character) => one(u32::from(character)),
            None => Err(self.problem("it ends in a backslash")),
        }
    }

    fn hex(&mut self, digits: usize) -> Result<u32, String> {
        let mut code = 0;
        for _ in 0..digits {
            match self.take().and_then(|character| character.to_digit(16)) {
                Some(digit) => code = code * 16 + digit,
                None => return Err(self.problem(&format!("expected {digits} hexadecimal digits"))),
            }
        }
        Ok(code)
    }
}
