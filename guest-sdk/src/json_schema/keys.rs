//! The keys of an object: which may come next.
//!
//! In: an object's members, and how far it is written. Out: whether a key may be written,
//! so that the object can still be ended: nothing required is skipped, the number of
//! members stays between its bounds, and no key comes twice.

use super::{
    Compiled,
    grammar::{Members, PlaceId},
    literals::Narrowed,
    plan::NESTING_MAX,
};

/// Characters of a key that no schema names.
const OTHER_KEY_CHARS_MAX: usize = 64;

impl Compiled {
    /// Whether a value of this place fits below what is open.
    pub(super) fn fits(&self, place: PlaceId, depth: u32) -> bool {
        let height = self.plans.height(place);
        height.is_some_and(|height| height <= NESTING_MAX - depth)
    }
}

/// Whether a key that the schema does not name may end here: not empty, and not there yet.
pub(super) fn free(members: &Members, others: Option<&Vec<Vec<u8>>>, key: &[u8]) -> bool {
    let mut closed = key.to_vec();
    closed.push(b'"');
    let named = members
        .keys
        .all
        .binary_search_by(|named| (**named).cmp(closed.as_slice()));
    !key.is_empty()
        && named.is_err()
        && !others.is_some_and(|others| others.iter().any(|other| other == key))
}

/// Whether some key that begins so is free.
pub(super) fn alive(members: &Members, others: Option<&Vec<Vec<u8>>>, key: &mut Vec<u8>) -> bool {
    if key.len() > OTHER_KEY_CHARS_MAX {
        return false;
    }
    if free(members, others, key) {
        return true;
    }
    (b'a'..=b'z').any(|byte| {
        key.push(byte);
        let found = alive(members, others, key);
        key.pop();
        found
    })
}

/// A key that no schema names and that is not there yet.
pub(super) fn other_key(members: &Members, others: &[Vec<u8>], begin: &[u8]) -> Vec<u8> {
    let others = others.to_vec();
    let mut key = begin.to_vec();
    for number in 0_u64.. {
        if free(members, Some(&others), &key) {
            break;
        }
        key.truncate(begin.len());
        let room = OTHER_KEY_CHARS_MAX.saturating_sub(begin.len());
        let suffix = letters(number);
        if suffix.len() > room {
            break;
        }
        key.extend(suffix);
    }
    key
}

/// a, b, ..., z, aa, ab, ...
fn letters(mut number: u64) -> Vec<u8> {
    let mut text = Vec::new();
    loop {
        text.insert(0, b'a' + u8::try_from(number % 26).unwrap_or(0));
        match (number / 26).checked_sub(1) {
            Some(rest) => number = rest,
            None => return text,
        }
    }
}

/// Which key may come next in an object.
pub(super) struct Choice<'a> {
    pub(super) schema: &'a Compiled,
    pub(super) members: &'a Members,
    pub(super) next: usize,
    pub(super) count: u64,
    pub(super) depth: u32,
}

impl Choice<'_> {
    /// Whether one of these keys may be written.
    pub(super) fn any_named(&self, keys: Narrowed) -> bool {
        let by_key = self
            .members
            .by_key
            .get(keys.from as usize..keys.to as usize);
        by_key.is_some_and(|keys| keys.iter().any(|key| self.named(*key as usize)))
    }

    pub(super) fn named(&self, at: usize) -> bool {
        let members = self.members;
        let last = members.next_required[self.next]
            .map_or(members.named.len(), |required| required as usize + 1);
        if !(self.next..last).contains(&at)
            || !self.schema.fits(members.named[at].value, self.depth)
        {
            return false;
        }
        let count = self.count + 1;
        if count + members.required_left[at + 1] > members.most {
            return false;
        }
        // Enough must be left to come to the least number.
        count + members.required_left[at + 1] >= members.least
            || members
                .other
                .is_some_and(|place| self.schema.fits(place, self.depth))
            || {
                let room = NESTING_MAX + 1 - self.depth;
                self.schema
                    .plans
                    .needed(members, at + 1, count, room)
                    .is_some()
            }
    }

    /// Whether a key that the schema does not name may be written.
    pub(super) fn other(&self) -> bool {
        self.members.next_required[self.next].is_none()
            && self.count < self.members.most
            && self
                .members
                .other
                .is_some_and(|place| self.schema.fits(place, self.depth))
    }
}
