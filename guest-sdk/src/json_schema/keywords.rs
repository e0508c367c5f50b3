//! A schema's keywords, checked.
//!
//! In: the schema as JSON. Out: a list of schemas that refer to each other by number, with
//! every keyword either understood or refused by name and JSON pointer. A keyword that
//! this decoder does not know is never ignored: the answer could break it.

use std::collections::BTreeMap;

use serde_json::Number;

use super::{SchemaError, automaton::Automaton, formats, regex, value::Value};

/// Schemas within one schema.
const SCHEMAS_MAX: usize = 50_000;

/// A schema's number in the list.
pub(super) type Id = u32;

/// Types as bits; `number` is both of integer and fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Types(pub(super) u8);

impl Types {
    pub(super) const NULL: Self = Self(1);
    pub(super) const BOOLEAN: Self = Self(2);
    pub(super) const INTEGER: Self = Self(4);
    pub(super) const FRACTION: Self = Self(8);
    pub(super) const STRING: Self = Self(16);
    pub(super) const ARRAY: Self = Self(32);
    pub(super) const OBJECT: Self = Self(64);
    pub(super) const ALL: Self = Self(127);

    pub(super) fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "null" => Self::NULL,
            "boolean" => Self::BOOLEAN,
            "integer" => Self::INTEGER,
            "number" => Self(Self::INTEGER.0 | Self::FRACTION.0),
            "string" => Self::STRING,
            "array" => Self::ARRAY,
            "object" => Self::OBJECT,
            _ => return None,
        })
    }
}

/// What one schema says, without what it refers to.
#[derive(Debug, Clone)]
pub(super) struct Keywords {
    pub(super) pointer: String,
    /// `false`: nothing satisfies it.
    pub(super) never: bool,
    pub(super) types: Types,
    /// `enum` and `const`: the value is one of them.
    pub(super) literals: Option<Vec<Value>>,
    pub(super) minimum: Option<Bound>,
    pub(super) maximum: Option<Bound>,
    pub(super) multiple_of: Option<i128>,
    pub(super) chars_min: u32,
    pub(super) chars_max: Option<u32>,
    pub(super) patterns: Vec<Automaton>,
    pub(super) prefix: Vec<Id>,
    pub(super) items: Option<Id>,
    pub(super) items_min: u64,
    pub(super) items_max: Option<u64>,
    pub(super) properties: Vec<(String, Id)>,
    pub(super) required: Vec<String>,
    pub(super) additional: Option<Id>,
    /// `unevaluatedProperties: false`.
    pub(super) closed: bool,
    pub(super) properties_min: u64,
    pub(super) properties_max: Option<u64>,
    /// All of them hold: `$ref` and `allOf`.
    pub(super) all_of: Vec<Id>,
    /// One of each list holds: `anyOf`, and `oneOf` where no two can hold at once.
    pub(super) any_of: Vec<Vec<Id>>,
    /// Which of `any_of` is a `oneOf`.
    pub(super) one_of: Option<Vec<Id>>,
}

/// A bound of numbers.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    pub(super) value: Number,
    pub(super) exclusive: bool,
}

/// All schemas of a document; the first is the whole of it.
#[derive(Debug)]
pub(super) struct Schemas {
    pub(super) all: Vec<Keywords>,
}

/// Reads a document.
///
/// # Errors
/// What is wrong or not supported, with its pointer.
pub(super) fn read(document: &Value) -> Result<Schemas, SchemaError> {
    let mut reader = Reader {
        document,
        ids: BTreeMap::new(),
        todo: Vec::new(),
    };
    reader.id(document, "#".to_owned())?;
    let mut all = Vec::new();
    while let Some((value, pointer)) = reader.todo.get(all.len()).cloned() {
        all.push(reader.schema(value, pointer)?);
    }
    Ok(Schemas { all })
}

struct Reader<'a> {
    document: &'a Value,
    ids: BTreeMap<*const Value, Id>,
    todo: Vec<(&'a Value, String)>,
}

fn invalid(pointer: &str, problem: impl Into<String>) -> SchemaError {
    SchemaError::Invalid {
        pointer: pointer.to_owned(),
        problem: problem.into(),
    }
}

fn unsupported(pointer: &str, what: impl Into<String>) -> SchemaError {
    SchemaError::Unsupported {
        pointer: pointer.to_owned(),
        what: what.into(),
    }
}

/// A step of a JSON pointer.
fn below(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

impl<'a> Reader<'a> {
    fn id(&mut self, value: &'a Value, pointer: String) -> Result<Id, SchemaError> {
        if let Some(id) = self.ids.get(&std::ptr::from_ref(value)) {
            return Ok(*id);
        }
        if self.todo.len() >= SCHEMAS_MAX {
            return Err(SchemaError::TooComplex {
                what: format!("more than {SCHEMAS_MAX} schemas within it"),
            });
        }
        let id = Id::try_from(self.todo.len()).unwrap_or(Id::MAX);
        self.ids.insert(value, id);
        self.todo.push((value, pointer));
        Ok(id)
    }

    fn schema(&mut self, value: &'a Value, pointer: String) -> Result<Keywords, SchemaError> {
        let mut found = Keywords {
            pointer,
            never: false,
            types: Types::ALL,
            literals: None,
            minimum: None,
            maximum: None,
            multiple_of: None,
            chars_min: 0,
            chars_max: None,
            patterns: Vec::new(),
            prefix: Vec::new(),
            items: None,
            items_min: 0,
            items_max: None,
            properties: Vec::new(),
            required: Vec::new(),
            additional: None,
            closed: false,
            properties_min: 0,
            properties_max: None,
            all_of: Vec::new(),
            any_of: Vec::new(),
            one_of: None,
        };
        match value {
            Value::Bool(holds) => found.never = !holds,
            Value::Object(members) => {
                for (keyword, value) in members {
                    let pointer = below(&found.pointer, keyword);
                    self.keyword(&mut found, keyword, value, &pointer)?;
                }
            }
            _ => {
                return Err(invalid(
                    &found.pointer,
                    "a schema is an object, `true` or `false`",
                ));
            }
        }
        Ok(found)
    }

    fn keyword(
        &mut self,
        found: &mut Keywords,
        keyword: &str,
        value: &'a Value,
        pointer: &str,
    ) -> Result<(), SchemaError> {
        match keyword {
            "type" => found.types = types(value, pointer)?,
            "const" => keep(&mut found.literals, std::slice::from_ref(value)),
            "enum" => keep(&mut found.literals, array(value, pointer)?),
            "minimum" => {
                found.minimum = Some(tighter(
                    found.minimum.take(),
                    value,
                    false,
                    pointer,
                    f64::gt,
                )?)
            }
            "exclusiveMinimum" => {
                found.minimum = Some(tighter(
                    found.minimum.take(),
                    value,
                    true,
                    pointer,
                    f64::gt,
                )?)
            }
            "maximum" => {
                found.maximum = Some(tighter(
                    found.maximum.take(),
                    value,
                    false,
                    pointer,
                    f64::lt,
                )?)
            }
            "exclusiveMaximum" => {
                found.maximum = Some(tighter(
                    found.maximum.take(),
                    value,
                    true,
                    pointer,
                    f64::lt,
                )?)
            }
            "multipleOf" => found.multiple_of = Some(multiple_of(value, pointer)?),
            "minLength" => found.chars_min = small(count(value, pointer)?),
            "maxLength" => found.chars_max = Some(small(count(value, pointer)?)),
            "pattern" => {
                let automaton =
                    regex::read(text(value, pointer)?).and_then(|tree| Automaton::of(&tree));
                found
                    .patterns
                    .push(automaton.map_err(|problem| unsupported(pointer, problem))?);
            }
            "format" => {
                let name = text(value, pointer)?;
                let automaton = formats::automaton(name).ok_or_else(|| {
                    unsupported(
                        pointer,
                        format!("the format `{name}`; there are: {}", formats::names()),
                    )
                })?;
                found
                    .patterns
                    .push(automaton.map_err(|problem| unsupported(pointer, problem))?);
            }
            "prefixItems" => found.prefix = self.list(value, pointer)?,
            "items" if matches!(value, Value::Array(_)) => {
                return Err(unsupported(
                    pointer,
                    "a list under `items`; write `prefixItems`",
                ));
            }
            "items" => found.items = Some(self.id(value, pointer.to_owned())?),
            "minItems" => found.items_min = count(value, pointer)?,
            "maxItems" => found.items_max = Some(count(value, pointer)?),
            "properties" => found.properties = self.map(value, pointer)?,
            "required" => found.required = texts(value, pointer)?,
            "additionalProperties" => found.additional = Some(self.id(value, pointer.to_owned())?),
            "minProperties" => found.properties_min = count(value, pointer)?,
            "maxProperties" => found.properties_max = Some(count(value, pointer)?),
            "allOf" => {
                let list = self.list(value, pointer)?;
                found.all_of.extend(list);
            }
            "anyOf" => found.any_of.push(self.alternatives(value, pointer)?),
            "oneOf" => {
                let list = self.alternatives(value, pointer)?;
                found.one_of = Some(list.clone());
                found.any_of.push(list);
            }
            "$ref" => {
                let target = self.target(text(value, pointer)?, pointer)?;
                found.all_of.push(target);
            }
            "unevaluatedProperties" if matches!(value, Value::Bool(_)) => {
                found.closed = matches!(value, Value::Bool(false));
            }
            "uniqueItems" if matches!(value, Value::Bool(false)) => {}
            "$id" if found.pointer != "#" => {
                return Err(unsupported(
                    pointer,
                    "a schema with an `$id` of its own inside another one",
                ));
            }
            "$schema" | "$id" | "$comment" | "$defs" | "definitions" | "$anchor" | "title"
            | "description" | "default" | "example" | "examples" | "deprecated" | "readOnly"
            | "writeOnly" => {}
            extension if extension.starts_with("x-") => {}
            "nullable" => {
                return Err(unsupported(
                    pointer,
                    "`nullable`; write \"type\": [\"string\", \"null\"]",
                ));
            }
            "not"
            | "if"
            | "then"
            | "else"
            | "patternProperties"
            | "propertyNames"
            | "dependentRequired"
            | "dependentSchemas"
            | "dependencies"
            | "contains"
            | "minContains"
            | "maxContains"
            | "uniqueItems"
            | "unevaluatedItems"
            | "unevaluatedProperties"
            | "additionalItems"
            | "$dynamicRef"
            | "$recursiveRef"
            | "contentEncoding"
            | "contentMediaType"
            | "contentSchema" => {
                return Err(unsupported(
                    pointer,
                    format!("`{keyword}` is not supported"),
                ));
            }
            other => {
                return Err(unsupported(
                    pointer,
                    format!(
                        "`{other}` is no keyword of JSON Schema; is it misspelt? Notes of your own begin with `x-`"
                    ),
                ));
            }
        }
        Ok(())
    }

    fn list(&mut self, value: &'a Value, pointer: &str) -> Result<Vec<Id>, SchemaError> {
        let items = array(value, pointer)?;
        let ids = items
            .iter()
            .enumerate()
            .map(|(at, item)| self.id(item, format!("{pointer}/{at}")));
        ids.collect()
    }

    fn alternatives(&mut self, value: &'a Value, pointer: &str) -> Result<Vec<Id>, SchemaError> {
        let list = self.list(value, pointer)?;
        if list.is_empty() {
            Err(invalid(pointer, "an empty list"))
        } else {
            Ok(list)
        }
    }

    fn map(&mut self, value: &'a Value, pointer: &str) -> Result<Vec<(String, Id)>, SchemaError> {
        let Value::Object(members) = value else {
            return Err(invalid(pointer, "expected an object of schemas"));
        };
        let ids = members
            .iter()
            .map(|(key, value)| Ok((key.clone(), self.id(value, below(pointer, key))?)));
        ids.collect()
    }

    /// The schema that a `$ref` points to, within this document.
    fn target(&mut self, reference: &str, pointer: &str) -> Result<Id, SchemaError> {
        let missing = || {
            invalid(
                pointer,
                format!("`{reference}` points to nothing in this schema"),
            )
        };
        let Some(path) = reference.strip_prefix('#') else {
            return Err(unsupported(
                pointer,
                format!("`{reference}` is outside of this schema; copy it into `$defs`"),
            ));
        };
        if !path.is_empty() && !path.starts_with('/') {
            return Err(unsupported(
                pointer,
                "a reference by `$anchor`; write `#/$defs/NAME`",
            ));
        }
        let mut value = self.document;
        for step in path.split('/').skip(1) {
            let step = unescaped(step);
            value = match value {
                Value::Array(items) => step.parse().ok().and_then(|at: usize| items.get(at)),
                object => object.get(&step),
            }
            .ok_or_else(missing)?;
        }
        self.id(value, reference.to_owned())
    }
}

/// A step of a pointer in a URI fragment, as the key that it means.
fn unescaped(step: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = step.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex
            .and_then(|hex| u8::from_str_radix(hex, 16).ok())
            .filter(|_| *first == b'%')
        {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes)
        .replace("~1", "/")
        .replace("~0", "~")
}

fn keep(literals: &mut Option<Vec<Value>>, allowed: &[Value]) {
    *literals = Some(match literals.take() {
        None => allowed.to_vec(),
        Some(before) => before
            .into_iter()
            .filter(|value| allowed.iter().any(|other| other.same(value)))
            .collect(),
    });
}

fn types(value: &Value, pointer: &str) -> Result<Types, SchemaError> {
    let names = match value {
        Value::String(name) => vec![name.clone()],
        _ => texts(value, pointer)?,
    };
    let mut types = Types(0);
    for name in &names {
        let found = Types::of(name)
            .ok_or_else(|| invalid(pointer, format!("there is no type `{name}`")))?;
        types.0 |= found.0;
    }
    Ok(types)
}

fn tighter(
    before: Option<Bound>,
    value: &Value,
    exclusive: bool,
    pointer: &str,
    tighter: fn(&f64, &f64) -> bool,
) -> Result<Bound, SchemaError> {
    let Value::Number(value) = value else {
        return Err(invalid(pointer, "expected a number"));
    };
    let bound = Bound {
        value: value.clone(),
        exclusive,
    };
    Ok(match before {
        None => bound,
        Some(before) => tightest(before, bound, tighter),
    })
}

/// The one of two bounds that allows less.
pub(super) fn tightest(a: Bound, b: Bound, tighter: fn(&f64, &f64) -> bool) -> Bound {
    let number = |bound: &Bound| bound.value.as_f64().unwrap_or(0.0);
    if tighter(&number(&b), &number(&a)) || number(&a) == number(&b) && b.exclusive {
        b
    } else {
        a
    }
}

fn multiple_of(value: &Value, pointer: &str) -> Result<i128, SchemaError> {
    let Value::Number(number) = value else {
        return Err(invalid(pointer, "expected a number"));
    };
    if number.as_f64().is_none_or(|number| number <= 0.0) {
        return Err(invalid(pointer, "expected a number above 0"));
    }
    let exact = super::number::scaled(number, 0, false);
    if exact != super::number::scaled(number, 0, true) || exact >= 1 << 63 {
        return Err(unsupported(
            pointer,
            format!("multiples of {number}; only of whole numbers below 2^63"),
        ));
    }
    Ok(exact)
}

fn count(value: &Value, pointer: &str) -> Result<u64, SchemaError> {
    let found = match value {
        Value::Number(number) => number.as_u64().or_else(|| {
            // 2.0 is a whole number, too.
            let exact = super::number::scaled(number, 0, false);
            let whole = exact == super::number::scaled(number, 0, true);
            u64::try_from(exact).ok().filter(|_| whole)
        }),
        _ => None,
    };
    found.ok_or_else(|| invalid(pointer, "expected a whole number, 0 or more"))
}

fn small(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX - 1)
}

fn text<'a>(value: &'a Value, pointer: &str) -> Result<&'a str, SchemaError> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(invalid(pointer, "expected a text")),
    }
}

fn array<'a>(value: &'a Value, pointer: &str) -> Result<&'a [Value], SchemaError> {
    match value {
        Value::Array(items) => Ok(items),
        _ => Err(invalid(pointer, "expected a list")),
    }
}

fn texts(value: &Value, pointer: &str) -> Result<Vec<String>, SchemaError> {
    let items = array(value, pointer)?;
    items
        .iter()
        .map(|item| text(item, pointer).map(str::to_owned))
        .collect()
}
