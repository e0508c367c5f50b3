//! An answer as it is written, byte by byte.
//!
//! In: bytes. Out: whether the answer can still become one that satisfies the schema,
//! whether it is one already, and the shortest way to one. Where alternatives begin alike,
//! all of them are followed at once; each of them can always be ended, so any may be
//! dropped when they become too many.

use std::{rc::Rc, sync::Arc};

use super::{
    Compiled,
    grammar::{Node, NodeId, PlaceId},
    keys::{Choice, alive, free},
    literals::Narrowed,
    number::Digits,
    plan::NESTING_MAX,
    text::{Step, Written},
    write::Writer,
};

/// Ways to read what is written that are followed at once.
const WAYS_MAX: usize = 64;

/// Follows an answer and says what may come next.
///
/// ```
/// use tussah_sdk::json_schema::Schema;
///
/// let schema = Schema::parse(r#"{"type": "array", "items": {"enum": ["a", "ab"]}}"#)?;
/// let mut matcher = schema.matcher();
/// assert!(matcher.advance(br#"["a"#));
/// assert!(!matcher.advance(b"c"), "nothing goes on like this, and nothing has changed");
/// assert!(matcher.advance(br#"b""#) && !matcher.is_complete());
/// assert_eq!(matcher.completion(), b"]");
/// # Ok::<(), tussah_sdk::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Matcher {
    pub(super) schema: Arc<Compiled>,
    ways: Vec<Way>,
}

/// One way to read what is written: what is being written, and what is around it.
#[derive(Debug, Clone)]
pub(super) struct Way {
    /// None when the answer is complete.
    pub(super) top: Option<Frame>,
    pub(super) around: Option<Rc<Around>>,
    /// Arrays and objects that are open.
    pub(super) depth: u32,
}

#[derive(Debug)]
pub(super) struct Around {
    pub(super) frame: Frame,
    pub(super) around: Option<Rc<Around>>,
}

impl PartialEq for Way {
    fn eq(&self, other: &Self) -> bool {
        let same = match (&self.around, &other.around) {
            (None, None) => true,
            (Some(a), Some(b)) => Rc::ptr_eq(a, b),
            _ => false,
        };
        same && self.top == other.top
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    Value(PlaceId),
    Literal(NodeId, Narrowed),
    Number(NodeId, Digits),
    Text(NodeId, Written),
    Array {
        node: NodeId,
        count: u64,
        at: Between,
    },
    Object {
        node: NodeId,
        next: usize,
        count: u64,
        others: Option<Rc<Vec<Vec<u8>>>>,
        at: Inside,
    },
}

/// Where an array stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Between {
    Open,
    /// Behind an item.
    Behind,
    /// Behind a comma, and whether a space may follow.
    Comma(bool),
}

/// Where an object stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Inside {
    Open,
    Behind,
    Comma(bool),
    /// In a key that the schema names.
    Key(Narrowed),
    /// In a key that it does not name.
    Other(Vec<u8>),
    /// Before a colon, then the value of this place.
    Colon(PlaceId),
    /// Behind a colon, and whether a space may follow.
    Gap(PlaceId, bool),
}

impl Matcher {
    pub(super) fn new(schema: Arc<Compiled>) -> Self {
        let ways = vec![Way {
            top: Some(Frame::Value(0)),
            around: None,
            depth: 0,
        }];
        Self { schema, ways }
    }

    /// Takes bytes if the answer can go on so; otherwise nothing changes.
    pub fn advance(&mut self, bytes: &[u8]) -> bool {
        let Some((first, rest)) = bytes.split_first() else {
            return true;
        };
        let mut ways = self.step(&self.ways, *first);
        for byte in rest {
            if ways.is_empty() {
                return false;
            }
            ways = self.step(&ways, *byte);
        }
        if ways.is_empty() {
            return false;
        }
        self.ways = ways;
        true
    }

    /// Whether `advance` would take these bytes.
    pub fn allows(&self, bytes: &[u8]) -> bool {
        let Some((first, rest)) = bytes.split_first() else {
            return true;
        };
        let mut ways = self.step(&self.ways, *first);
        for byte in rest {
            if ways.is_empty() {
                return false;
            }
            ways = self.step(&ways, *byte);
        }
        !ways.is_empty()
    }

    /// Whether what is written satisfies the schema as it is.
    pub fn is_complete(&self) -> bool {
        self.ways
            .iter()
            .any(|way| way.around.is_none() && self.can_end(way))
    }

    /// Whether nothing can follow.
    pub fn is_closed(&self) -> bool {
        self.ways.iter().all(|way| way.top.is_none())
    }

    /// The bytes of which one must come next if the answer goes on.
    pub fn next_bytes(&self) -> Vec<u8> {
        (0..=u8::MAX)
            .filter(|byte| !self.step(&self.ways, *byte).is_empty())
            .collect()
    }

    /// The byte that must come next if the answer goes on, where there is only one.
    pub(crate) fn only_byte(&self) -> Option<u8> {
        let mut next = (0..=u8::MAX).filter(|byte| !self.step(&self.ways, *byte).is_empty());
        let only = next.next()?;
        next.next().is_none().then_some(only)
    }

    /// A short rest that completes the answer; empty if it is complete.
    pub fn completion(&self) -> Vec<u8> {
        let writer = Writer {
            schema: &self.schema,
        };
        let rests = self.ways.iter().map(|way| writer.rest(way));
        rests.min_by_key(Vec::len).unwrap_or_default()
    }

    /// Whether the innermost value of a way may end here.
    fn can_end(&self, way: &Way) -> bool {
        match &way.top {
            None => true,
            Some(Frame::Literal(node, at)) => match &self.schema.grammar.nodes[*node as usize] {
                Node::Literals(spellings, _) => spellings.complete(*at).0,
                _ => false,
            },
            Some(Frame::Number(node, digits)) => match &self.schema.grammar.nodes[*node as usize] {
                Node::Number(numbers) => numbers.complete(digits),
                _ => false,
            },
            Some(_) => false,
        }
    }

    fn step(&self, ways: &[Way], byte: u8) -> Vec<Way> {
        let mut found = Found { ways: Vec::new() };
        for way in ways {
            if found.ways.len() >= WAYS_MAX {
                break;
            }
            self.step_way(way, byte, &mut found);
        }
        found.ways
    }

    fn step_way(&self, way: &Way, byte: u8, found: &mut Found) {
        let Some(top) = &way.top else { return };
        match top {
            Frame::Value(place) => self.begin(way, *place, byte, found),
            Frame::Literal(node, at) => {
                if let Node::Literals(spellings, _) = self.node(*node)
                    && let Some(next) = spellings.step(*at, byte)
                {
                    let next_way = way.with(Frame::Literal(*node, next));
                    match spellings.complete(next) {
                        (true, false) => found.add(next_way.popped()),
                        _ => found.add(next_way),
                    }
                }
            }
            Frame::Number(node, digits) => {
                if let Node::Number(numbers) = self.node(*node)
                    && let Some(next) = numbers.step(digits, byte)
                {
                    found.add(way.with(Frame::Number(*node, next)));
                }
            }
            Frame::Text(node, written) => {
                if let Node::Text(texts) = self.node(*node) {
                    match texts.step(written, byte) {
                        Some(Step::Inside(next)) => found.add(way.with(Frame::Text(*node, next))),
                        Some(Step::Closed) => found.add(way.popped()),
                        None => {}
                    }
                }
            }
            Frame::Array { node, count, at } => self.array(way, *node, *count, *at, byte, found),
            Frame::Object { .. } => self.object(way, byte, found),
        }
        // A number or a literal that may end here: then the byte belongs to what is around.
        if way.around.is_some() && self.can_end(way) {
            self.step_way(&way.popped(), byte, found);
        }
    }

    fn node(&self, node: NodeId) -> &Node {
        &self.schema.grammar.nodes[node as usize]
    }

    /// The first byte of a value.
    fn begin(&self, way: &Way, place: PlaceId, byte: u8, found: &mut Found) {
        let room = NESTING_MAX - way.depth;
        for id in &self.schema.grammar.places[place as usize].alternatives {
            let plan = self.schema.plans.nodes[*id as usize];
            if plan.is_none_or(|plan| plan.height > room) {
                continue;
            }
            let first = match self.node(*id) {
                Node::Literals(spellings, _) => Frame::Literal(*id, spellings.start()),
                Node::Number(_) => Frame::Number(*id, Digits::default()),
                Node::Text(_) if byte == b'"' => {
                    found.add(way.with(Frame::Text(*id, Written::default())));
                    continue;
                }
                Node::Array(_) if byte == b'[' => {
                    let frame = Frame::Array {
                        node: *id,
                        count: 0,
                        at: Between::Open,
                    };
                    found.add(way.opened(frame));
                    continue;
                }
                Node::Object(_) if byte == b'{' => {
                    let frame = Frame::Object {
                        node: *id,
                        next: 0,
                        count: 0,
                        others: None,
                        at: Inside::Open,
                    };
                    found.add(way.opened(frame));
                    continue;
                }
                _ => continue,
            };
            self.step_way(&way.with(first), byte, found);
        }
    }

    fn array(&self, way: &Way, node: NodeId, count: u64, at: Between, byte: u8, found: &mut Found) {
        let Node::Array(items) = self.node(node) else {
            return;
        };
        let next = items
            .at(count)
            .filter(|place| count < items.most && self.schema.fits(*place, way.depth));
        match (at, byte) {
            (Between::Open | Between::Behind, b']') if count >= items.least => {
                found.add(way.closed());
            }
            (Between::Open, b']') => {}
            (Between::Behind, b',') if next.is_some() => {
                found.add(way.with(Frame::Array {
                    node,
                    count,
                    at: Between::Comma(true),
                }));
            }
            (Between::Comma(true), b' ') => {
                found.add(way.with(Frame::Array {
                    node,
                    count,
                    at: Between::Comma(false),
                }));
            }
            (Between::Open | Between::Comma(_), _) => {
                if let Some(place) = next {
                    let behind = Frame::Array {
                        node,
                        count: count + 1,
                        at: Between::Behind,
                    };
                    self.begin(&way.inside(behind, place), place, byte, found);
                }
            }
            (Between::Behind, _) => {}
        }
    }

    fn object(&self, way: &Way, byte: u8, found: &mut Found) {
        let Some(Frame::Object {
            node,
            next,
            count,
            others,
            at,
        }) = &way.top
        else {
            return;
        };
        let Node::Object(members) = self.node(*node) else {
            return;
        };
        let object = |next: usize, count: u64, at: Inside| Frame::Object {
            node: *node,
            next,
            count,
            others: others.clone(),
            at,
        };
        let here = |at: Inside| way.with(object(*next, *count, at));
        let choice = Choice {
            schema: &self.schema,
            members,
            next: *next,
            count: *count,
            depth: way.depth,
        };
        match (at, byte) {
            (Inside::Open | Inside::Behind, b'}')
                if members.next_required[*next].is_none() && *count >= members.least =>
            {
                found.add(way.closed());
            }
            (Inside::Behind, b',') if choice.other() || choice.any_named(members.keys.start()) => {
                found.add(here(Inside::Comma(true)));
            }
            (Inside::Comma(true), b' ') => found.add(here(Inside::Comma(false))),
            (Inside::Open | Inside::Comma(_), b'"') => {
                if choice.any_named(members.keys.start()) {
                    found.add(here(Inside::Key(members.keys.start())));
                }
                if choice.other() {
                    found.add(here(Inside::Other(Vec::new())));
                }
            }
            (Inside::Key(at), _) => {
                let Some(narrowed) = members.keys.step(*at, byte) else {
                    return;
                };
                if !choice.any_named(narrowed) {
                    return;
                }
                match members.keys.complete(narrowed) {
                    (true, _) => {
                        let named = members.by_key[narrowed.from as usize] as usize;
                        let colon = Inside::Colon(members.named[named].value);
                        found.add(way.with(object(named + 1, *count, colon)));
                    }
                    (false, _) => found.add(here(Inside::Key(narrowed))),
                }
            }
            (Inside::Other(key), b'"') => {
                if let Some(place) = members
                    .other
                    .filter(|_| free(members, others.as_deref(), key))
                {
                    let mut all = others.as_deref().cloned().unwrap_or_default();
                    all.push(key.clone());
                    let frame = Frame::Object {
                        node: *node,
                        next: members.named.len(),
                        count: *count,
                        others: Some(Rc::new(all)),
                        at: Inside::Colon(place),
                    };
                    found.add(way.with(frame));
                }
            }
            (Inside::Other(key), b' '..=b'~') if byte != b'\\' => {
                let mut key = key.clone();
                key.push(byte);
                if alive(members, others.as_deref(), &mut key) {
                    found.add(here(Inside::Other(key)));
                }
            }
            (Inside::Colon(place), b':') => found.add(here(Inside::Gap(*place, true))),
            (Inside::Gap(place, true), b' ') => found.add(here(Inside::Gap(*place, false))),
            (Inside::Gap(place, _), _) => {
                let behind = object(*next, *count + 1, Inside::Behind);
                self.begin(&way.inside(behind, *place), *place, byte, found);
            }
            _ => {}
        }
    }
}

struct Found {
    ways: Vec<Way>,
}

impl Found {
    fn add(&mut self, way: Way) {
        if self.ways.len() < WAYS_MAX && !self.ways.contains(&way) {
            self.ways.push(way);
        }
    }
}

impl Way {
    fn with(&self, frame: Frame) -> Self {
        Self {
            top: Some(frame),
            around: self.around.clone(),
            depth: self.depth,
        }
    }

    fn opened(&self, frame: Frame) -> Self {
        Self {
            depth: self.depth + 1,
            ..self.with(frame)
        }
    }

    /// A value inside this array or object, which stands as `behind` when the value has ended.
    fn inside(&self, behind: Frame, place: PlaceId) -> Self {
        let around = Rc::new(Around {
            frame: behind,
            around: self.around.clone(),
        });
        Self {
            top: Some(Frame::Value(place)),
            around: Some(around),
            depth: self.depth,
        }
    }

    /// After a value has ended.
    fn popped(&self) -> Self {
        match &self.around {
            None => Self {
                top: None,
                around: None,
                depth: self.depth,
            },
            Some(around) => Self {
                top: Some(around.frame.clone()),
                around: around.around.clone(),
                depth: self.depth,
            },
        }
    }

    fn closed(&self) -> Self {
        let popped = self.popped();
        Self {
            depth: popped.depth.saturating_sub(1),
            ..popped
        }
    }
}
