//! Values that a schema spells out: which of them hold, and how they are written.
//!
//! In: a value of `enum` or `const`, and the schemas that it must satisfy. Out: whether it
//! does. And: a sorted list of spellings that is narrowed byte by byte.

use std::cell::Cell;

use super::{
    keywords::{Id, Keywords, Schemas, Types},
    number::scaled,
    value::Value,
};

/// Schemas that a check may go through, one inside the other; more is a reference to itself.
const DEPTH_MAX: u32 = 200;

/// Says whether values satisfy schemas, and counts what that takes.
#[derive(Debug)]
pub(super) struct Judge<'a> {
    pub(super) schemas: &'a Schemas,
    pub(super) work: &'a Cell<u64>,
    pub(super) work_max: u64,
}

impl Judge<'_> {
    /// Whether a value satisfies a schema; `false` when the work has become too much, which
    /// the caller finds out by its count.
    fn holds(&self, id: Id, value: &Value, depth: u32) -> bool {
        let Some(schema) = self.schemas.all.get(id as usize) else {
            return false;
        };
        let also = |id: &Id| self.holds(*id, value, depth + 1);
        let one_of = |list: &Vec<Id>| list.iter().filter(|id| also(id)).count() == 1;
        depth <= DEPTH_MAX
            && self.says(schema, value, depth)
            && schema.all_of.iter().all(also)
            && schema.any_of.iter().all(|list| list.iter().any(also))
            && schema.one_of.as_ref().is_none_or(one_of)
    }

    /// Whether a value satisfies a schema's own keywords, without those that refer to other
    /// schemas for the same value.
    pub(super) fn says(&self, schema: &Keywords, value: &Value, depth: u32) -> bool {
        let literals = schema.literals.as_deref().unwrap_or(&[]);
        self.says_beside_literals(schema, value, depth)
            && (schema.literals.is_none()
                || literals.iter().any(|one| {
                    self.work.set(self.work.get() + 1);
                    one.same(value)
                }))
    }

    /// As [`Judge::says`], for a value that stands in the schema's own list.
    pub(super) fn says_beside_literals(
        &self,
        schema: &Keywords,
        value: &Value,
        depth: u32,
    ) -> bool {
        self.work.set(self.work.get() + 1);
        self.work.get() <= self.work_max
            && !schema.never
            && type_of(value) & schema.types.0 != 0
            && by_type(self, schema, value, depth)
    }
}

fn type_of(value: &Value) -> u8 {
    let types = match value {
        Value::Null => Types::NULL,
        Value::Bool(_) => Types::BOOLEAN,
        Value::Number(number) if scaled(number, 0, false) == scaled(number, 0, true) => {
            Types::INTEGER
        }
        Value::Number(_) => Types::FRACTION,
        Value::String(_) => Types::STRING,
        Value::Array(_) => Types::ARRAY,
        Value::Object(_) => Types::OBJECT,
    };
    types.0
}

fn by_type(judge: &Judge<'_>, schema: &Keywords, value: &Value, depth: u32) -> bool {
    let fits = |count: usize, least: u64, most: Option<u64>| {
        count as u64 >= least && most.is_none_or(|most| count as u64 <= most)
    };
    match value {
        Value::Null | Value::Bool(_) => true,
        Value::Number(number) => {
            let value = number.as_f64().unwrap_or(f64::NAN);
            let bound = |bound: &super::keywords::Bound| bound.value.as_f64().unwrap_or(f64::NAN);
            schema.minimum.as_ref().is_none_or(|least| {
                value > bound(least) || !least.exclusive && value == bound(least)
            }) && schema
                .maximum
                .as_ref()
                .is_none_or(|most| value < bound(most) || !most.exclusive && value == bound(most))
                && schema.multiple_of.is_none_or(|step| {
                    let exact = scaled(number, 0, false);
                    exact == scaled(number, 0, true) && exact % step == 0
                })
        }
        Value::String(text) => {
            fits(
                text.chars().count(),
                schema.chars_min.into(),
                schema.chars_max.map(u64::from),
            ) && schema.patterns.iter().all(|pattern| pattern.matches(text))
        }
        Value::Array(items) => {
            fits(items.len(), schema.items_min, schema.items_max)
                && items.iter().enumerate().all(|(at, item)| {
                    let id = schema.prefix.get(at).copied().or(schema.items);
                    id.is_none_or(|id| judge.holds(id, item, depth + 1))
                })
        }
        Value::Object(members) => {
            fits(members.len(), schema.properties_min, schema.properties_max)
                && schema.required.iter().all(|key| value.get(key).is_some())
                && members.iter().all(|(key, value)| {
                    let named = schema.properties.iter().find(|(name, _)| name == key);
                    match named.map(|(_, id)| *id).or(schema.additional) {
                        Some(id) => judge.holds(id, value, depth + 1),
                        None => named.is_some() || !schema.closed,
                    }
                })
        }
    }
}

/// Spellings, of which one is being written.
#[derive(Debug, Clone, Default)]
pub(super) struct Spellings {
    /// Sorted, without doubles.
    pub(super) all: Vec<Box<[u8]>>,
}

/// Which spellings are left after some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Narrowed {
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) written: u32,
}

impl Spellings {
    pub(super) fn new(mut all: Vec<Box<[u8]>>) -> Self {
        all.sort_unstable();
        all.dedup();
        Self { all }
    }

    pub(super) fn start(&self) -> Narrowed {
        Narrowed {
            from: 0,
            to: u32::try_from(self.all.len()).unwrap_or(u32::MAX),
            written: 0,
        }
    }

    /// One more byte; `None` if no spelling goes on so.
    pub(super) fn step(&self, at: Narrowed, byte: u8) -> Option<Narrowed> {
        let left = self.left(at);
        let next = |spelling: &[u8]| spelling.get(at.written as usize).copied();
        // Sorted, and equal so far: the next bytes ascend, and an end comes first.
        let begin = left.partition_point(|spelling| next(spelling) < Some(byte));
        let end = left.partition_point(|spelling| next(spelling) <= Some(byte));
        let offset = |count: usize| at.from + u32::try_from(count).unwrap_or(0);
        (begin < end).then(|| Narrowed {
            from: offset(begin),
            to: offset(end),
            written: at.written + 1,
        })
    }

    pub(super) fn left(&self, at: Narrowed) -> &[Box<[u8]>] {
        self.all
            .get(at.from as usize..at.to as usize)
            .unwrap_or(&[])
    }

    /// Whether one of the spellings is written to its end, and whether another goes on.
    pub(super) fn complete(&self, at: Narrowed) -> (bool, bool) {
        let left = self.left(at);
        let complete = left
            .first()
            .is_some_and(|first| first.len() == at.written as usize);
        (complete, left.len() > usize::from(complete))
    }

    /// The shortest rest.
    pub(super) fn rest(&self, at: Narrowed) -> &[u8] {
        let shortest = self.left(at).iter().min_by_key(|spelling| spelling.len());
        shortest
            .and_then(|spelling| spelling.get(at.written as usize..))
            .unwrap_or(&[])
    }
}
