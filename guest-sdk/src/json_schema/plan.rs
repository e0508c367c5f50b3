//! The flattest, then shortest value for each place.
//!
//! In: a grammar. Out: for each place the alternative whose value needs the fewest arrays
//! and objects inside each other, with its length; none where no value ends. Recursion
//! without a way out ends here. Whoever follows a plan never nests deeper than it says.

use super::{
    SchemaError,
    grammar::{Grammar, Items, Members, Node, NodeId, PlaceId},
    number::Digits,
};

/// Arrays and objects inside each other, at most: what every reader of JSON takes.
pub(super) const NESTING_MAX: u32 = 64;
/// The longest that the shortest answer may be, in bytes.
const SHORTEST_BYTES_MAX: u64 = 1 << 16;
/// Bytes of a key that no schema names, with what is around it.
const OTHER_KEY_BYTES: u64 = 8;

/// How a value can be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Plan {
    /// Arrays and objects inside each other.
    pub(super) height: u32,
    /// About how many bytes it takes.
    pub(super) bytes: u64,
    pub(super) node: NodeId,
}

/// A plan for each place and the height of each node.
#[derive(Debug)]
pub(super) struct Plans {
    pub(super) places: Vec<Option<Plan>>,
    pub(super) nodes: Vec<Option<Plan>>,
}

/// Plans every place.
///
/// # Errors
/// If no value satisfies the whole, or the shortest that does is too long.
pub(super) fn plan(grammar: &Grammar) -> Result<Plans, SchemaError> {
    let mut plans = Plans {
        places: vec![None; grammar.places.len()],
        nodes: vec![None; grammar.nodes.len()],
    };
    // Of what is left out because it is too long, the shortest.
    let mut too_long: Option<u64> = None;
    let spelled = grammar.nodes.iter().map(|node| match node {
        Node::Literals(_, height) => *height,
        _ => 0,
    });
    let spelled_height_max = spelled.max().unwrap_or(0);
    // What is planned in a round needs only what was planned in the rounds before.
    for height in 0..=NESTING_MAX {
        let mut fresh = false;
        for (at, node) in (0..).zip(&grammar.nodes) {
            if plans.nodes[at as usize].is_none() {
                let planned = plans.node(at, node).filter(|plan| plan.height <= height);
                let found = planned.filter(|plan| plan.bytes <= SHORTEST_BYTES_MAX);
                if let (Some(planned), None) = (planned, found) {
                    too_long =
                        Some(too_long.map_or(planned.bytes, |bytes| bytes.min(planned.bytes)));
                }
                fresh |= found.is_some();
                plans.nodes[at as usize] = found;
            }
        }
        for (at, place) in grammar.places.iter().enumerate() {
            if plans.places[at].is_none() {
                plans.places[at] = place
                    .alternatives
                    .iter()
                    .filter_map(|node| plans.nodes[*node as usize])
                    .min();
            }
        }
        if !fresh && height > spelled_height_max {
            break;
        }
    }
    match (plans.places[0], too_long) {
        (Some(_), _) => Ok(plans),
        (None, Some(bytes)) => Err(SchemaError::TooComplex {
            what: format!(
                "a value that it needs has about {bytes} bytes, at most {SHORTEST_BYTES_MAX} are possible"
            ),
        }),
        (None, None) => Err(plans.unsatisfiable(grammar)),
    }
}

impl Plans {
    pub(super) fn height(&self, place: PlaceId) -> Option<u32> {
        self.places[place as usize].map(|plan| plan.height)
    }

    fn node(&self, id: NodeId, node: &Node) -> Option<Plan> {
        let plan = |height, bytes| {
            Some(Plan {
                height,
                bytes,
                node: id,
            })
        };
        match node {
            Node::Literals(spellings, height) => {
                plan(*height, spellings.rest(spellings.start()).len() as u64)
            }
            Node::Number(numbers) => plan(0, numbers.rest(&Digits::default()).len() as u64),
            Node::Text(texts) => plan(0, texts.shortest_bytes()),
            Node::Array(items) => self
                .array(items)
                .and_then(|(height, bytes)| plan(height, bytes)),
            Node::Object(members) => self
                .object(members)
                .and_then(|(height, bytes)| plan(height, bytes)),
        }
    }

    fn array(&self, items: &Items) -> Option<(u32, u64)> {
        let (mut height, mut bytes) = (0, 2_u64);
        let named = items.least.min(items.prefix.len() as u64);
        for at in 0..named {
            let plan = self.places[items.at(at)? as usize]?;
            height = height.max(plan.height);
            bytes = bytes.saturating_add(plan.bytes + 1);
        }
        if items.least > named {
            let plan = self.places[items.rest? as usize]?;
            height = height.max(plan.height);
            bytes = bytes
                .saturating_add((plan.bytes.saturating_add(1)).saturating_mul(items.least - named));
        }
        Some((height + 1, bytes))
    }

    fn object(&self, members: &Members) -> Option<(u32, u64)> {
        let (mut height, mut bytes) = (0, 2_u64);
        for member in self.needed(members, 0, 0, NESTING_MAX)?.iter() {
            let (key, place) = match member {
                Some(at) => (
                    members.named[*at].key.len() as u64 + 3,
                    members.named[*at].value,
                ),
                None => (OTHER_KEY_BYTES, members.other?),
            };
            let plan = self.places[place as usize]?;
            height = height.max(plan.height);
            bytes = bytes.saturating_add(key).saturating_add(plan.bytes);
        }
        Some((height + 1, bytes))
    }

    /// The members that an object needs yet, from the `next` named one on, when it has
    /// `count`: places in `named`, and `None` for each with a key of no name. The flattest
    /// optional ones are taken where there must be more than the required ones.
    pub(super) fn needed(
        &self,
        members: &Members,
        next: usize,
        count: u64,
        room: u32,
    ) -> Option<Vec<Option<usize>>> {
        let mut needed: Vec<usize> = Vec::new();
        let mut optional: Vec<(Plan, usize)> = Vec::new();
        for (at, member) in members.named.iter().enumerate().skip(next) {
            let plan = self.places[member.value as usize].filter(|plan| plan.height < room);
            match (member.required, plan) {
                (true, None) => return None,
                (true, Some(_)) => needed.push(at),
                (false, Some(plan)) => optional.push((plan, at)),
                (false, None) => {}
            }
        }
        let missing = members.least.saturating_sub(count + needed.len() as u64);
        if missing == 0 {
            return Some(needed.into_iter().map(Some).collect());
        }
        let missing = usize::try_from(missing)
            .ok()
            .filter(|missing| *missing as u64 <= SHORTEST_BYTES_MAX)?;
        optional.sort_unstable();
        optional.truncate(missing);
        needed.extend(optional.iter().map(|(_, at)| *at));
        needed.sort_unstable();
        let other = members
            .other
            .and_then(|place| self.places[place as usize])
            .filter(|plan| plan.height < room);
        let more = missing - optional.len();
        if more > 0 && other.is_none() {
            return None;
        }
        Some(
            needed
                .into_iter()
                .map(Some)
                .chain(std::iter::repeat_n(None, more))
                .collect(),
        )
    }

    /// Says where no value can end, and why.
    fn unsatisfiable(&self, grammar: &Grammar) -> SchemaError {
        let mut at: PlaceId = 0;
        for _ in 0..grammar.places.len() {
            let place = &grammar.places[at as usize];
            if let Some(reason) = &place.reason {
                return SchemaError::Unsatisfiable {
                    pointer: place.pointer.clone(),
                    reason: reason.clone(),
                };
            }
            // What the first alternative cannot do without.
            let Some(node) = place.alternatives.first() else {
                break;
            };
            let open = |place: &PlaceId| self.places[*place as usize].is_none();
            let next = match &grammar.nodes[*node as usize] {
                Node::Array(items) => (0..=items.prefix.len() as u64)
                    .filter_map(|at| items.at(at))
                    .find(open),
                Node::Object(members) => members
                    .named
                    .iter()
                    .filter(|member| member.required)
                    .map(|member| member.value)
                    .chain(members.other)
                    .find(open),
                _ => None,
            };
            match next {
                Some(next) => at = next,
                None => break,
            }
        }
        SchemaError::Unsatisfiable {
            pointer: grammar.places[at as usize].pointer.clone(),
            reason: format!("it contains itself without an end within {NESTING_MAX} levels"),
        }
    }
}
