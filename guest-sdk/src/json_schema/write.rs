//! The shortest way to the end of an answer.
//!
//! In: a way to read what is written. Out: the bytes that end it by its plans: first the
//! value that is being written, then each array and object around it.

use super::{
    Compiled,
    grammar::{Items, Members, Node, NodeId, PlaceId},
    keys::{Choice, other_key},
    matcher::{Around, Between, Frame, Inside, Way},
    number::Digits,
    plan::NESTING_MAX,
    text::Written,
};

pub(super) struct Writer<'a> {
    pub(super) schema: &'a Compiled,
}

impl Writer<'_> {
    /// What completes a way.
    pub(super) fn rest(&self, way: &Way) -> Vec<u8> {
        let mut out = Vec::new();
        let mut depth = way.depth;
        let mut next: Option<(&Frame, &Option<std::rc::Rc<Around>>)> =
            way.top.as_ref().map(|frame| (frame, &way.around));
        while let Some((frame, around)) = next {
            self.frame(frame, depth, &mut out);
            depth -= u32::from(matches!(frame, Frame::Array { .. } | Frame::Object { .. }));
            next = around
                .as_ref()
                .map(|around| (&around.frame, &around.around));
        }
        out
    }

    fn node(&self, node: NodeId) -> &Node {
        &self.schema.grammar.nodes[node as usize]
    }

    /// Ends one frame.
    fn frame(&self, frame: &Frame, depth: u32, out: &mut Vec<u8>) {
        match frame {
            Frame::Value(place) => self.value(*place, depth, out),
            Frame::Literal(node, at) => {
                if let Node::Literals(spellings, _) = self.node(*node) {
                    out.extend_from_slice(spellings.rest(*at));
                }
            }
            Frame::Number(node, digits) => {
                if let Node::Number(numbers) = self.node(*node)
                    && !numbers.complete(digits)
                {
                    out.extend(numbers.rest(digits));
                }
            }
            Frame::Text(node, written) => {
                if let Node::Text(texts) = self.node(*node) {
                    out.extend(texts.rest(written));
                }
            }
            Frame::Array { node, count, at } => {
                if let Node::Array(items) = self.node(*node) {
                    self.array(items, *count, *at, depth, out);
                }
            }
            Frame::Object {
                node,
                next,
                count,
                others,
                at,
            } => {
                if let Node::Object(members) = self.node(*node) {
                    let others = others.as_deref().cloned().unwrap_or_default();
                    self.object(members, *next, *count, others, at, depth, out);
                }
            }
        }
    }

    /// A whole value, by its plan.
    fn value(&self, place: PlaceId, depth: u32, out: &mut Vec<u8>) {
        let Some(plan) = self.schema.plans.places[place as usize] else {
            return;
        };
        match self.node(plan.node) {
            Node::Literals(spellings, _) => {
                out.extend_from_slice(spellings.rest(spellings.start()))
            }
            Node::Number(numbers) => out.extend(numbers.rest(&Digits::default())),
            Node::Text(texts) => {
                out.push(b'"');
                out.extend(texts.rest(&Written::default()));
            }
            Node::Array(items) => {
                out.push(b'[');
                self.array(items, 0, Between::Open, depth + 1, out);
            }
            Node::Object(members) => {
                out.push(b'{');
                self.object(members, 0, 0, Vec::new(), &Inside::Open, depth + 1, out);
            }
        }
    }

    fn array(&self, items: &Items, count: u64, at: Between, depth: u32, out: &mut Vec<u8>) {
        // Behind a comma there must be one more.
        let least = items
            .least
            .max(count + u64::from(matches!(at, Between::Comma(_))));
        for index in count..least {
            if index > count || at == Between::Behind {
                out.push(b',');
            }
            if let Some(place) = items.at(index) {
                self.value(place, depth, out);
            }
        }
        out.push(b']');
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one frame")]
    fn object(
        &self,
        members: &Members,
        next: usize,
        count: u64,
        mut others: Vec<Vec<u8>>,
        at: &Inside,
        depth: u32,
        out: &mut Vec<u8>,
    ) {
        let (mut next, mut count) = (next, count);
        let choice = |next, count| Choice {
            schema: self.schema,
            members,
            next,
            count,
            depth,
        };
        // What has been begun is ended first.
        let mut comma = match at {
            Inside::Open | Inside::Comma(_) => false,
            Inside::Behind => true,
            Inside::Key(_) | Inside::Other(_) | Inside::Colon(_) | Inside::Gap(..) => {
                let place = match at {
                    Inside::Key(narrowed) => {
                        let allowed = (narrowed.from..narrowed.to)
                            .map(|key| members.by_key[key as usize] as usize)
                            .filter(|named| choice(next, count).named(*named))
                            .min_by_key(|named| members.named[*named].key.len());
                        let Some(named) = allowed else { return };
                        out.extend_from_slice(
                            &members.named[named].key[narrowed.written as usize..],
                        );
                        next = named + 1;
                        Some(members.named[named].value)
                    }
                    Inside::Other(begin) => {
                        let key = other_key(members, &others, begin);
                        out.extend_from_slice(&key[begin.len()..]);
                        out.push(b'"');
                        others.push(key);
                        next = members.named.len();
                        members.other
                    }
                    Inside::Colon(place) | Inside::Gap(place, _) => Some(*place),
                    _ => None,
                };
                if !matches!(at, Inside::Gap(..)) {
                    out.push(b':');
                }
                if let Some(place) = place {
                    self.value(place, depth, out);
                }
                count += 1;
                true
            }
        };
        let room = NESTING_MAX + 1 - depth;
        let mut needed = self
            .schema
            .plans
            .needed(members, next, count, room)
            .unwrap_or_default();
        if needed.is_empty() && matches!(at, Inside::Comma(_)) {
            needed.push(self.flattest(members, next, count, depth));
        }
        for member in needed {
            if std::mem::replace(&mut comma, true) {
                out.push(b',');
            }
            out.push(b'"');
            let place = match member {
                Some(named) => {
                    out.extend_from_slice(&members.named[named].key);
                    Some(members.named[named].value)
                }
                None => {
                    let key = other_key(members, &others, b"");
                    out.extend_from_slice(&key);
                    out.push(b'"');
                    others.push(key);
                    members.other
                }
            };
            out.push(b':');
            if let Some(place) = place {
                self.value(place, depth, out);
            }
        }
        out.push(b'}');
    }

    /// The member that costs least where one must come and none is needed.
    fn flattest(&self, members: &Members, next: usize, count: u64, depth: u32) -> Option<usize> {
        let choice = Choice {
            schema: self.schema,
            members,
            next,
            count,
            depth,
        };
        let allowed = (next..members.named.len()).filter(|named| choice.named(*named));
        allowed.min_by_key(|named| self.schema.plans.places[members.named[*named].value as usize])
    }
}
