//! A deterministic automaton over characters.
//!
//! In: a pattern's tree. Out: states and arcs, without any state from which no text ends.
//! Sizes are bounded, so that no pattern takes more than its share of time and memory.

use std::collections::BTreeMap;

use super::regex::{Chars, Tree};

/// Steps of the machine that a pattern is first turned into.
const PARTS_MAX: usize = 8_000;
/// States of an automaton.
const STATES_MAX: usize = 2_000;
/// Arcs of all states together.
const ARCS_MAX: usize = 60_000;
/// Work of making an automaton deterministic, in visited parts.
const WORK_MAX: usize = 8_000_000;

/// Which texts match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Automaton {
    /// The first is where a text begins; none where nothing matches.
    pub(super) states: Vec<State>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) accepts: bool,
    /// Characters from, to, and the next state; ascending.
    pub(super) arcs: Vec<(u32, u32, u32)>,
}

impl Automaton {
    /// All texts.
    pub(super) fn any() -> Self {
        let arcs = Chars::all()
            .0
            .into_iter()
            .map(|(low, high)| (low, high, 0))
            .collect();
        Self {
            states: vec![State {
                accepts: true,
                arcs,
            }],
        }
    }

    /// The texts that a pattern matches.
    ///
    /// # Errors
    /// In words, if the pattern is too large.
    pub(super) fn of(tree: &Tree) -> Result<Self, String> {
        let mut machine = Machine {
            parts: vec![Part::default()],
        };
        let end = machine.build(tree, 0)?;
        machine.determine(end)
    }

    /// The texts that both match.
    ///
    /// # Errors
    /// In words, if the result is too large.
    pub(super) fn and(&self, other: &Self) -> Result<Self, String> {
        if self.states.is_empty() || other.states.is_empty() {
            return Ok(Self { states: Vec::new() });
        }
        let mut numbers: BTreeMap<(u32, u32), u32> = BTreeMap::from([((0, 0), 0)]);
        let mut order = vec![(0_u32, 0_u32)];
        let mut states: Vec<State> = Vec::new();
        let mut arcs_all = 0;
        while let Some((a, b)) = order.get(states.len()).copied() {
            let (left, right) = (&self.states[a as usize], &other.states[b as usize]);
            let mut arcs = Vec::new();
            for (low, high, to) in &left.arcs {
                let begin = right.arcs.partition_point(|arc| arc.1 < *low);
                for (from, until, other) in
                    right.arcs[begin..].iter().take_while(|arc| arc.0 <= *high)
                {
                    let pair = (*to, *other);
                    let count = number(order.len())?;
                    let next = *numbers.entry(pair).or_insert_with(|| {
                        order.push(pair);
                        count
                    });
                    arcs.push((*low.max(from), *high.min(until), next));
                }
            }
            arcs_all += arcs.len();
            check(order.len() <= STATES_MAX && arcs_all <= ARCS_MAX)?;
            states.push(State {
                accepts: left.accepts && right.accepts,
                arcs,
            });
        }
        Ok(Self { states }.trimmed())
    }

    /// Whether a text matches.
    pub(super) fn matches(&self, text: &str) -> bool {
        let mut state = 0;
        for character in text.chars() {
            match self.next(state, u32::from(character)) {
                Some(next) => state = next,
                None => return false,
            }
        }
        self.states
            .get(state as usize)
            .is_some_and(|state| state.accepts)
    }

    /// Where a character leads.
    pub(super) fn next(&self, state: u32, character: u32) -> Option<u32> {
        let arcs = &self.states.get(state as usize)?.arcs;
        let arc = arcs.get(arcs.partition_point(|arc| arc.1 < character))?;
        (arc.0 <= character).then_some(arc.2)
    }

    /// Takes away the states from which no text ends.
    fn trimmed(mut self) -> Self {
        let count = self.states.len();
        let mut into: Vec<Vec<usize>> = vec![Vec::new(); count];
        for (from, state) in self.states.iter().enumerate() {
            for arc in &state.arcs {
                into[arc.2 as usize].push(from);
            }
        }
        let mut alive: Vec<bool> = self.states.iter().map(|state| state.accepts).collect();
        let mut todo: Vec<usize> = (0..count).filter(|state| alive[*state]).collect();
        while let Some(state) = todo.pop() {
            for from in &into[state] {
                if !alive[*from] {
                    alive[*from] = true;
                    todo.push(*from);
                }
            }
        }
        if alive.first() != Some(&true) {
            return Self { states: Vec::new() };
        }
        for state in &mut self.states {
            state.arcs.retain(|arc| alive[arc.2 as usize]);
        }
        self
    }
}

fn check(fits: bool) -> Result<(), String> {
    if fits {
        Ok(())
    } else {
        Err("the pattern has too many states".to_owned())
    }
}

fn number(count: usize) -> Result<u32, String> {
    u32::try_from(count).map_err(|_| "the pattern has too many states".to_owned())
}

/// A machine that may be in many parts at once.
struct Machine {
    parts: Vec<Part>,
}

#[derive(Default)]
struct Part {
    /// Where it goes without a character.
    free: Vec<usize>,
    /// Where it goes with one of these.
    on: Option<(Chars, usize)>,
}

impl Machine {
    fn part(&mut self) -> Result<usize, String> {
        check(self.parts.len() < PARTS_MAX)?;
        self.parts.push(Part::default());
        Ok(self.parts.len() - 1)
    }

    /// Adds a tree behind the part `from`; returns where it ends.
    fn build(&mut self, tree: &Tree, from: usize) -> Result<usize, String> {
        match tree {
            Tree::Empty | Tree::Start | Tree::End => Ok(from),
            Tree::One(chars) => {
                let (begin, end) = (self.part()?, self.part()?);
                self.parts[from].free.push(begin);
                self.parts[begin].on = Some((chars.clone(), end));
                Ok(end)
            }
            Tree::Each(parts) => parts.iter().try_fold(from, |at, part| self.build(part, at)),
            Tree::Either(alternatives) => {
                let end = self.part()?;
                for alternative in alternatives {
                    let begin = self.part()?;
                    self.parts[from].free.push(begin);
                    let at = self.build(alternative, begin)?;
                    self.parts[at].free.push(end);
                }
                Ok(end)
            }
            Tree::Repeat(inner, least, most) => self.repeat(inner, *least, *most, from),
        }
    }

    fn repeat(
        &mut self,
        inner: &Tree,
        least: u32,
        most: Option<u32>,
        from: usize,
    ) -> Result<usize, String> {
        let mut at = from;
        for _ in 0..least {
            at = self.build(inner, at)?;
        }
        match most {
            None => {
                let hub = self.part()?;
                self.parts[at].free.push(hub);
                let back = self.build(inner, hub)?;
                self.parts[back].free.push(hub);
                Ok(hub)
            }
            Some(most) => {
                let end = self.part()?;
                self.parts[at].free.push(end);
                for _ in least..most {
                    // A fresh part, so that what is inside cannot run back past this point.
                    let begin = self.part()?;
                    self.parts[at].free.push(begin);
                    at = self.build(inner, begin)?;
                    self.parts[at].free.push(end);
                }
                Ok(end)
            }
        }
    }

    /// All parts that are reached from these without a character, ascending.
    fn closed(&self, parts: &[usize], work: &mut usize) -> Vec<usize> {
        let mut seen = std::collections::BTreeSet::new();
        let mut todo = parts.to_vec();
        while let Some(part) = todo.pop() {
            if seen.insert(part) {
                *work += 1 + self.parts[part].free.len();
                todo.extend(&self.parts[part].free);
            }
        }
        // Only parts that wait for a character, or end, make a difference.
        seen.into_iter().collect()
    }

    fn determine(&self, end: usize) -> Result<Automaton, String> {
        let mut work = 0;
        let first = self.closed(&[0], &mut work);
        let mut numbers = BTreeMap::from([(first.clone(), 0_u32)]);
        let mut order = vec![first];
        let mut states: Vec<State> = Vec::new();
        let mut arcs_all = 0;
        while let Some(parts) = order.get(states.len()).cloned() {
            let waiting: Vec<&(Chars, usize)> = parts
                .iter()
                .filter_map(|part| self.parts[*part].on.as_ref())
                .collect();
            let mut arcs: Vec<(u32, u32, u32)> = Vec::new();
            for (low, high) in pieces(&waiting) {
                let to: Vec<usize> = waiting
                    .iter()
                    .filter(|(chars, _)| contains(chars, low))
                    .map(|(_, to)| *to)
                    .collect();
                work += waiting.len();
                if to.is_empty() {
                    continue;
                }
                let to = self.closed(&to, &mut work);
                let count = number(order.len())?;
                let next = match numbers.get(&to) {
                    Some(next) => *next,
                    None => {
                        numbers.insert(to.clone(), count);
                        order.push(to);
                        count
                    }
                };
                match arcs.last_mut() {
                    Some(last) if last.2 == next && last.1 + 1 == low => last.1 = high,
                    _ => arcs.push((low, high, next)),
                }
                check(work <= WORK_MAX && order.len() <= STATES_MAX)?;
            }
            arcs_all += arcs.len();
            check(arcs_all <= ARCS_MAX)?;
            let accepts = parts.binary_search(&end).is_ok();
            states.push(State { accepts, arcs });
        }
        Ok(Automaton { states }.trimmed())
    }
}

/// Ranges within which all sets say the same.
fn pieces(sets: &[&(Chars, usize)]) -> Vec<(u32, u32)> {
    let mut begins: Vec<u32> = Vec::new();
    let mut covered: Vec<(u32, u32)> = Vec::new();
    for (low, high) in sets.iter().flat_map(|(chars, _)| &chars.0) {
        begins.extend([*low, high + 1]);
        covered.push((*low, *high));
    }
    begins.sort_unstable();
    begins.dedup();
    let covered = Chars::new(&covered);
    begins
        .windows(2)
        .map(|pair| (pair[0], pair[1] - 1))
        .filter(|(low, _)| contains(&covered, *low))
        .collect()
}

fn contains(chars: &Chars, character: u32) -> bool {
    let at = chars.0.partition_point(|range| range.1 < character);
    chars.0.get(at).is_some_and(|range| range.0 <= character)
}

#[cfg(test)]
mod tests {
    use super::{super::regex, *};

    fn automaton(pattern: &str) -> Automaton {
        Automaton::of(&regex::read(pattern).unwrap()).unwrap()
    }

    #[track_caller]
    fn check(pattern: &str, yes: &[&str], no: &[&str]) {
        let automaton = automaton(pattern);
        for text in yes {
            assert!(automaton.matches(text), "{pattern} should match {text:?}");
        }
        for text in no {
            assert!(
                !automaton.matches(text),
                "{pattern} should not match {text:?}"
            );
        }
    }

    #[test]
    fn patterns_match_what_they_say() {
        check(
            "^[A-Z]{2,3}-\\d+$",
            &["AB-1", "ABC-007"],
            &["A-1", "ABCD-1", "AB-", "xAB-1"],
        );
        check("b", &["b", "abc", "\nb"], &["", "ac"]);
        check("^a", &["a", "abc"], &["ba"]);
        check("^(a|bc)*$", &["", "abca"], &["b", "ac"]);
        check("^a$|^b$", &["a", "b"], &["ab", "c"]);
        check("(^a$|^b$)", &["a", "b"], &["ab"]);
        check("^(?:ab?){2}$", &["aa", "aba", "abab"], &["a", "abb"]);
        check("^(a?){3}$", &["", "aaa"], &["aaaa"]);
        check("^(a*b?){0,2}$", &["", "aab", "abab", "bb"], &["bbb"]);
        check("^[^\\s,]+$", &["é😀"], &["a b", "a,b", "", "a\u{a0}b"]);
        check("^.$", &["é", "😀", "\u{7f}"], &["\n", "", "ab"]);
        check("^[\\w.-]+$", &["a.b-c_9"], &["a b"]);
        check("^[a\\]-]$", &["a", "]", "-"], &["b"]);
        check("^\\x41\\u00e9$", &["Aé"], &["A"]);
        check("", &["", "anything"], &[]);
        check("^$", &[""], &["a"]);
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (pattern, expected) in [
            ("(?=a)", "look-around"),
            ("(?<!a)b", "look-around"),
            ("(a)\\1", "back references"),
            ("\\bword\\b", "`\\b`"),
            ("\\p{L}", "`\\p`"),
            ("(?i)a", "flags"),
            ("a{2,1}", "n to be at most m"),
            ("a{1001}", "more than 1000"),
            ("a**", "two repetitions"),
            ("(a", "without its `)`"),
            ("a)", "without its `(`"),
            ("[a", "without its `]`"),
            ("[z-a]", "not in order"),
            ("a^b", "`^` and `$`"),
            ("x{", "expected a number"),
            ("\\q", "means nothing"),
        ] {
            let problem = regex::read(pattern).unwrap_err();
            assert!(problem.contains(expected), "{pattern}: {problem}");
        }
    }

    #[test]
    fn hostile_patterns_are_refused_in_bounded_time() {
        for pattern in [
            "(a{1000}){1000}",
            "(.*a.{12}b.{12}c)",
            "(x+x+)+y",
            "^(a|b)*a(a|b){20}$",
        ] {
            match regex::read(pattern).and_then(|tree| Automaton::of(&tree)) {
                Ok(automaton) => assert!(automaton.states.len() <= STATES_MAX),
                Err(problem) => assert!(problem.contains("too many states"), "{problem}"),
            }
        }
        assert!(regex::read(&"(".repeat(5000)).is_err());
        assert!(regex::read(&"(".repeat(4000)).is_err());
    }

    #[test]
    fn both_of_two_patterns() {
        let both = automaton("^[a-m]+$").and(&automaton("^[k-z]{2}$")).unwrap();
        assert!(both.matches("km") && !both.matches("kn") && !both.matches("k"));
        let none = automaton("^a$").and(&automaton("^b$")).unwrap();
        assert!(none.states.is_empty());
    }
}
