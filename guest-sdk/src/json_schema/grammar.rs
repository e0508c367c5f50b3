//! A schema as a grammar of JSON: what may stand at each place.
//!
//! In: schemas that refer to each other. Out: places, each a choice of plain nodes. A
//! place is known by the set of schemas that all hold there, so that `allOf`, `$ref` and
//! recursion need no copies; `anyOf` is written out into alternatives. Work and size are
//! bounded, whatever the schema.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
};

use super::{
    SchemaError,
    automaton::Automaton,
    keywords::{Bound, Id, Keywords, Schemas, Types, tightest},
    literals::{Judge, Spellings},
    number::{FAR, Numbers, scaled},
    text::Texts,
    value::{Value, write_text},
};

/// Places of a grammar.
const PLACES_MAX: usize = 20_000;
/// Alternatives of one place.
pub(super) const ALTERNATIVES_MAX: usize = 1_000;
/// Properties of an object of which a number must be there that is not that of the required ones.
const COUNTED_MAX: usize = 64;
/// Schemas looked at while the grammar is made.
const WORK_MAX: u64 = 1_000_000;
/// Integers are at most this far from 0 where the schema sets no bound: what every reader of JSON can hold.
const INTEGER_FAR: i128 = (1 << 53) - 1;
/// Numbers with fractions are below this where the schema sets no bound.
const FRACTION_FAR: i128 = 1_000_000_000;
/// Digits of such a number that every reader of JSON tells apart.
const DIGITS_MAX: u32 = 15;
/// Digits behind the point, where there are so many left.
const FRACTION_DIGITS_MAX: u32 = 6;

pub(super) type PlaceId = u32;
pub(super) type NodeId = u32;

/// All places and nodes; the first place is the whole answer.
#[derive(Debug)]
pub(super) struct Grammar {
    pub(super) places: Vec<Place>,
    pub(super) nodes: Vec<Node>,
}

/// Where a value stands: one of the alternatives.
#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) alternatives: Vec<NodeId>,
    /// Where it comes from, and why it has no alternative, if it has none.
    pub(super) pointer: String,
    pub(super) reason: Option<String>,
}

#[derive(Debug)]
pub(super) enum Node {
    /// One of these, and how deep they are nested.
    Literals(Spellings, u32),
    Number(Numbers),
    Text(Texts),
    Array(Items),
    Object(Box<Members>),
}

#[derive(Debug)]
pub(super) struct Items {
    pub(super) prefix: Vec<PlaceId>,
    pub(super) rest: Option<PlaceId>,
    pub(super) least: u64,
    pub(super) most: u64,
}

#[derive(Debug)]
pub(super) struct Members {
    /// In the order in which they are written.
    pub(super) named: Vec<Member>,
    /// Keys as they are written after their opening quote, closing quote included.
    pub(super) keys: Spellings,
    /// For each of `keys`, its place in `named`.
    pub(super) by_key: Vec<u32>,
    /// For each of `named` and for the end: the next required one, and how many there are.
    pub(super) next_required: Vec<Option<u32>>,
    pub(super) required_left: Vec<u64>,
    /// What stands under other keys, if there may be any.
    pub(super) other: Option<PlaceId>,
    pub(super) least: u64,
    pub(super) most: u64,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) key: Box<[u8]>,
    pub(super) value: PlaceId,
    pub(super) required: bool,
}

impl Items {
    pub(super) fn at(&self, index: u64) -> Option<PlaceId> {
        let named = usize::try_from(index)
            .ok()
            .and_then(|index| self.prefix.get(index));
        named.copied().or(self.rest)
    }
}

/// Makes the grammar of a document.
///
/// # Errors
/// What makes it too large, or a `oneOf` whose alternatives overlap.
pub(super) fn build(schemas: &Schemas) -> Result<Grammar, SchemaError> {
    let mut builder = Builder {
        schemas,
        known: BTreeMap::new(),
        todo: Vec::new(),
        grammar: Grammar {
            places: Vec::new(),
            nodes: Vec::new(),
        },
        work: Cell::new(0),
        checked: RefCell::new(BTreeSet::new()),
    };
    builder.place(BTreeSet::from([0]))?;
    let mut next = 0;
    while let Some(set) = builder.todo.get(next).cloned() {
        builder.fill(next, &set)?;
        next += 1;
    }
    Ok(builder.grammar)
}

/// Schemas that all hold at one place.
pub(super) type Set = BTreeSet<Id>;

pub(super) struct Builder<'a> {
    pub(super) schemas: &'a Schemas,
    known: BTreeMap<Set, PlaceId>,
    todo: Vec<Set>,
    grammar: Grammar,
    work: Cell<u64>,
    /// Schemas whose `oneOf` has been looked at.
    pub(super) checked: RefCell<BTreeSet<Id>>,
}

/// Why an alternative is none.
struct Dead {
    pointer: String,
    reason: String,
}

fn dead(pointer: &str, reason: impl Into<String>) -> Dead {
    Dead {
        pointer: pointer.to_owned(),
        reason: reason.into(),
    }
}

impl<'a> Builder<'a> {
    pub(super) fn schema(&self, id: Id) -> &'a Keywords {
        &self.schemas.all[id as usize]
    }

    pub(super) fn judge(&self) -> Judge<'_> {
        Judge {
            schemas: self.schemas,
            work: &self.work,
            work_max: WORK_MAX,
        }
    }

    pub(super) fn works(&self, amount: usize) -> Result<(), SchemaError> {
        self.work.set(self.work.get() + amount as u64 + 1);
        if self.work.get() > WORK_MAX {
            return Err(SchemaError::TooComplex {
                what: "its combinations are too many to write out".to_owned(),
            });
        }
        Ok(())
    }

    fn place(&mut self, set: Set) -> Result<PlaceId, SchemaError> {
        self.works(set.len())?;
        if let Some(place) = self.known.get(&set) {
            return Ok(*place);
        }
        if self.todo.len() >= PLACES_MAX {
            return Err(SchemaError::TooComplex {
                what: format!("more than {PLACES_MAX} places for values"),
            });
        }
        let place = PlaceId::try_from(self.todo.len()).unwrap_or(PlaceId::MAX);
        let pointer = set
            .first()
            .map_or("#".to_owned(), |id| self.schema(*id).pointer.clone());
        self.grammar.places.push(Place {
            pointer,
            ..Place::default()
        });
        self.known.insert(set.clone(), place);
        self.todo.push(set);
        Ok(place)
    }

    /// Finds the alternatives of a place.
    fn fill(&mut self, place: usize, set: &Set) -> Result<(), SchemaError> {
        let mut reason = None;
        for branch in self.branches(set)? {
            match self.nodes(&branch)? {
                Ok(nodes) => {
                    for node in nodes {
                        let id = NodeId::try_from(self.grammar.nodes.len()).unwrap_or(NodeId::MAX);
                        self.grammar.nodes.push(node);
                        self.grammar.places[place].alternatives.push(id);
                    }
                }
                Err(why) => reason = reason.or(Some(why)),
            }
        }
        let place = &mut self.grammar.places[place];
        if place.alternatives.len() > ALTERNATIVES_MAX {
            return Err(SchemaError::TooComplex {
                what: format!(
                    "more than {ALTERNATIVES_MAX} alternatives at `{}`",
                    place.pointer
                ),
            });
        }
        if place.alternatives.is_empty() {
            let why = reason.unwrap_or_else(|| dead(&place.pointer, "it is `false`"));
            place.pointer = why.pointer;
            place.reason = Some(why.reason);
        }
        Ok(())
    }

    /// What a schema says of the value of a key.
    pub(super) fn member(&self, schema: &Keywords, key: &str) -> Option<Id> {
        let named = schema.properties.iter().find(|(name, _)| name == key);
        named.map(|(_, id)| *id).or(schema.additional)
    }

    /// The nodes of one branch, or why there are none.
    fn nodes(&mut self, branch: &[Id]) -> Result<Result<Vec<Node>, Dead>, SchemaError> {
        let all: Vec<&Keywords> = branch.iter().map(|id| self.schema(*id)).collect();
        let pointer = all.first().map_or("#", |schema| schema.pointer.as_str());
        if let Some(schema) = all.iter().find(|schema| schema.literals.is_some()) {
            let nodes = self.literals(branch, schema);
            self.works(0)?;
            return Ok(nodes);
        }
        let types = Types(
            all.iter()
                .fold(Types::ALL.0, |types, schema| types & schema.types.0),
        );
        let mut nodes = Vec::new();
        let mut why = dead(pointer, "its types exclude each other");
        let mut words = Vec::new();
        if types.has(Types::NULL) {
            words.push(b"null".as_slice().into());
        }
        if types.has(Types::BOOLEAN) {
            words.extend([b"true".as_slice().into(), b"false".as_slice().into()]);
        }
        if types.has(Types::OBJECT) {
            match self.object(&all)? {
                Ok(members) => nodes.push(Node::Object(Box::new(members))),
                Err(dead) => why = dead,
            }
        }
        if types.has(Types::ARRAY) {
            match self.array(&all)? {
                Ok(items) => nodes.push(Node::Array(items)),
                Err(dead) => why = dead,
            }
        }
        if types.has(Types::STRING) {
            match text(&all)? {
                Ok(texts) => nodes.push(Node::Text(texts)),
                Err(dead) => why = dead,
            }
        }
        if types.has(Types::INTEGER) || types.has(Types::FRACTION) {
            let numbers = both_numbers(all.iter().copied());
            if numbers.any() {
                nodes.push(Node::Number(numbers));
            } else {
                why = dead(pointer, "no number is between its bounds");
            }
        }
        if !words.is_empty() {
            nodes.push(Node::Literals(Spellings::new(words), 0));
        }
        Ok(if nodes.is_empty() {
            Err(why)
        } else {
            Ok(nodes)
        })
    }

    fn literals(&self, branch: &[Id], schema: &Keywords) -> Result<Vec<Node>, Dead> {
        let values = schema.literals.as_deref().unwrap_or(&[]);
        let judge = self.judge();
        // The branch has a schema of each `anyOf`: what they say by themselves is all.
        let allowed = |value: &&Value| {
            branch.iter().map(|id| self.schema(*id)).all(|other| {
                if std::ptr::eq(other, schema) {
                    judge.says_beside_literals(other, value, 0)
                } else {
                    judge.says(other, value, 0)
                }
            })
        };
        let mut height = 0;
        let spellings = values.iter().filter(allowed).map(|value| {
            height = height.max(value.height());
            let mut spelling = Vec::new();
            value.write(&mut spelling);
            spelling.into_boxed_slice()
        });
        let spellings = Spellings::new(spellings.collect());
        match (values.is_empty(), spellings.all.is_empty()) {
            (true, _) => Err(dead(&schema.pointer, "its list of values is empty")),
            (_, true) => Err(dead(
                &schema.pointer,
                "none of its values fits what else is asked for",
            )),
            _ => Ok(vec![Node::Literals(spellings, height)]),
        }
    }

    fn array(&mut self, all: &[&Keywords]) -> Result<Result<Items, Dead>, SchemaError> {
        let least = all.iter().map(|schema| schema.items_min).max().unwrap_or(0);
        let mut most = all
            .iter()
            .filter_map(|schema| schema.items_max)
            .min()
            .unwrap_or(u64::MAX);
        let longest = all
            .iter()
            .map(|schema| schema.prefix.len())
            .max()
            .unwrap_or(0);
        let at = |index: usize| -> Set {
            all.iter()
                .filter_map(|schema| schema.prefix.get(index).copied().or(schema.items))
                .collect()
        };
        let mut prefix = Vec::new();
        for index in 0..longest {
            self.works(all.len())?;
            prefix.push(self.place(at(index))?);
        }
        let rest = at(longest);
        // Items that no schema speaks of come only where they are needed, or nothing else is said.
        let rest = if rest.is_empty() && longest > 0 && least <= longest as u64 {
            most = most.min(longest as u64);
            None
        } else {
            Some(self.place(rest)?)
        };
        if least > most {
            let pointer = all.first().map_or("#", |schema| schema.pointer.as_str());
            return Ok(Err(dead(
                pointer,
                format!("at least {least} and at most {most} items"),
            )));
        }
        Ok(Ok(Items {
            prefix,
            rest,
            least,
            most,
        }))
    }

    fn object(&mut self, all: &[&Keywords]) -> Result<Result<Members, Dead>, SchemaError> {
        let closed = all.iter().any(|schema| schema.closed);
        let mut order: Vec<(&str, bool)> = Vec::new();
        let mut known = BTreeMap::new();
        for schema in all {
            let named = schema
                .properties
                .iter()
                .map(|(key, _)| (key.as_str(), false));
            for (key, required) in
                named.chain(schema.required.iter().map(|key| (key.as_str(), true)))
            {
                let at = *known.entry(key).or_insert_with(|| {
                    order.push((key, false));
                    order.len() - 1
                });
                order[at].1 |= required;
            }
        }
        let mut named = Vec::new();
        for (key, required) in &order {
            self.works(all.len())?;
            let declared = all
                .iter()
                .any(|schema| schema.properties.iter().any(|(name, _)| name == key));
            if closed && !declared {
                let pointer = all.first().map_or("#", |schema| schema.pointer.as_str());
                return Ok(Err(dead(
                    pointer,
                    format!("`{key}` is required and not allowed"),
                )));
            }
            let set = all
                .iter()
                .filter_map(|schema| self.member(schema, key))
                .collect();
            let mut spelling = Vec::new();
            write_text(key, &mut spelling);
            spelling.remove(0);
            named.push(Member {
                key: spelling.into(),
                value: self.place(set)?,
                required: *required,
            });
        }
        let others: Set = all.iter().filter_map(|schema| schema.additional).collect();
        let says_nothing = all.iter().all(|schema| schema.properties.is_empty());
        let other = match (closed, others.is_empty()) {
            (true, _) => None,
            (_, false) => Some(self.place(others)?),
            (_, true) if says_nothing => Some(self.place(others)?),
            _ => None,
        };
        let least = all
            .iter()
            .map(|schema| schema.properties_min)
            .max()
            .unwrap_or(0);
        let most = all
            .iter()
            .filter_map(|schema| schema.properties_max)
            .min()
            .unwrap_or(u64::MAX);
        let required = named.iter().filter(|member| member.required).count() as u64;
        if other.is_none() && required < least && named.len() > COUNTED_MAX {
            let what = format!("`minProperties` over more than {COUNTED_MAX} properties");
            return Err(SchemaError::TooComplex { what });
        }
        Ok(members(named, other, least, most).map_err(|reason| {
            dead(
                all.first().map_or("#", |schema| schema.pointer.as_str()),
                reason,
            )
        }))
    }
}

fn members(
    named: Vec<Member>,
    other: Option<PlaceId>,
    least: u64,
    most: u64,
) -> Result<Members, String> {
    let required = named.iter().filter(|member| member.required).count() as u64;
    if required > most || least > most {
        return Err(format!(
            "at most {most} properties, and at least {}",
            required.max(least)
        ));
    }
    if other.is_none() && (named.len() as u64) < least {
        return Err(format!(
            "at least {least} properties, and {} are allowed",
            named.len()
        ));
    }
    let keys = Spellings::new(named.iter().map(|member| member.key.clone()).collect());
    let mut by_key: Vec<u32> = (0..).take(named.len()).collect();
    by_key.sort_by_key(|at| &named[*at as usize].key);
    let mut next_required = vec![None; named.len() + 1];
    let mut required_left = vec![0; named.len() + 1];
    for at in (0..named.len()).rev() {
        let required = named[at].required;
        next_required[at] = if required {
            u32::try_from(at).ok()
        } else {
            next_required[at + 1]
        };
        required_left[at] = required_left[at + 1] + u64::from(required);
    }
    Ok(Members {
        named,
        keys,
        by_key,
        next_required,
        required_left,
        other,
        least,
        most,
    })
}

fn text(all: &[&Keywords]) -> Result<Result<Texts, Dead>, SchemaError> {
    let pointer = all.first().map_or("#", |schema| schema.pointer.as_str());
    let too_complex = |what: String| SchemaError::TooComplex {
        what: format!("{what} (at `{pointer}`)"),
    };
    let least = all.iter().map(|schema| schema.chars_min).max().unwrap_or(0);
    let most = all.iter().filter_map(|schema| schema.chars_max).min();
    let mut pattern: Option<Automaton> = None;
    for next in all.iter().flat_map(|schema| &schema.patterns) {
        pattern = Some(match pattern {
            None => next.clone(),
            Some(before) => before.and(next).map_err(too_complex)?,
        });
    }
    let texts = Texts::new(pattern, least, most).map_err(too_complex)?;
    if texts.any() {
        return Ok(Ok(texts));
    }
    Ok(Err(dead(
        pointer,
        "no string has its pattern and its lengths",
    )))
}

/// The numbers that all of these allow.
pub(super) fn both_numbers<'a>(all: impl Iterator<Item = &'a Keywords> + Clone) -> Numbers {
    let types = Types(
        all.clone()
            .fold(Types::ALL.0, |types, schema| types & schema.types.0),
    );
    let minimum = all
        .clone()
        .filter_map(|schema| schema.minimum.clone())
        .reduce(|a, b| tightest(a, b, f64::gt));
    let maximum = all
        .clone()
        .filter_map(|schema| schema.maximum.clone())
        .reduce(|a, b| tightest(a, b, f64::lt));
    let steps = all.filter_map(|schema| schema.multiple_of);
    let integers = !types.has(Types::FRACTION) || steps.clone().next().is_some();
    let multiple_of = steps.into_iter().try_fold(1_i128, least_common);
    let whole = |bound: &Option<Bound>, up| bound.as_ref().map(|bound| scaled(&bound.value, 0, up));
    let far = if integers {
        INTEGER_FAR
    } else {
        FRACTION_FAR - 1
    };
    // Where one bound is farther out than the default of the other, that one follows.
    let outermost = whole(&minimum, true)
        .unwrap_or(0)
        .abs()
        .max(whole(&maximum, false).unwrap_or(0).abs());
    let reach = if outermost >= far {
        FAR.min(outermost.saturating_mul(2))
    } else {
        far
    };
    let reach = if integers {
        reach.min(i64::MAX.into())
    } else {
        reach.min(10_i128.pow(DIGITS_MAX) - 1)
    };
    let digits = if integers {
        0
    } else {
        DIGITS_MAX
            .saturating_sub(reach.to_string().len().try_into().unwrap_or(DIGITS_MAX))
            .min(FRACTION_DIGITS_MAX)
    };
    let scale = 10_i128.pow(digits);
    let low = minimum.as_ref().map_or(-reach * scale, |bound| {
        if bound.exclusive {
            scaled(&bound.value, digits, false) + 1
        } else {
            scaled(&bound.value, digits, true)
        }
    });
    let high = maximum.as_ref().map_or(reach * scale, |bound| {
        if bound.exclusive {
            scaled(&bound.value, digits, true) - 1
        } else {
            scaled(&bound.value, digits, false)
        }
    });
    Numbers {
        low: low.max(-reach * scale),
        high: high.min(reach * scale),
        multiple_of: multiple_of.unwrap_or(FAR),
        fraction_digits_max: digits,
    }
}

fn least_common(a: i128, b: i128) -> Option<i128> {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    (a / x).checked_mul(b).filter(|multiple| *multiple < FAR)
}
