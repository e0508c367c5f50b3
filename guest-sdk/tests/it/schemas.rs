//! Answers under a schema: whatever a model wants, they parse and satisfy it.
//!
//! The judge is the `jsonschema` crate, which shares no code with the decoder.

use proptest::prelude::*;
use tussah_sdk::json_schema::{Matcher, Schema, SchemaError};

/// Numbers from a seed, so that every failure can be repeated.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit.max(1) as u64).unwrap()
    }
}

/// Schemas from simple to recursive, as people write them.
pub(crate) const NAMED: &[(&str, &str)] = &[
    ("anything", "true"),
    ("text", r#"{"type": "string"}"#),
    (
        "short text",
        r#"{"type": "string", "minLength": 3, "maxLength": 5}"#,
    ),
    ("flag", r#"{"type": "boolean"}"#),
    (
        "rating",
        r#"{"type": "integer", "minimum": 1, "maximum": 5}"#,
    ),
    (
        "even",
        r#"{"type": "integer", "minimum": -20, "exclusiveMaximum": 101, "multipleOf": 4}"#,
    ),
    ("share", r#"{"type": "number", "minimum": 0, "maximum": 1}"#),
    (
        "temperature",
        r#"{"type": "number", "exclusiveMinimum": -273.15, "maximum": 1e4}"#,
    ),
    (
        "sentiment",
        r#"{"enum": ["positive", "neutral", "negative", null]}"#,
    ),
    (
        "mixed enum",
        r#"{"enum": [1, 12, 123, "1", [1, {"a": 2}], {"b": []}, -0.5, true]}"#,
    ),
    (
        "const",
        r#"{"const": {"version": 1, "name": "a\nb\"c\\é"}}"#,
    ),
    ("date", r#"{"type": "string", "format": "date"}"#),
    ("uuid", r#"{"type": "string", "format": "uuid"}"#),
    ("email", r#"{"type": "string", "format": "email"}"#),
    ("moment", r#"{"type": "string", "format": "date-time"}"#),
    ("address", r#"{"type": "string", "format": "ipv4"}"#),
    ("host", r#"{"type": "string", "format": "hostname"}"#),
    ("link", r#"{"type": "string", "format": "uri"}"#),
    ("time", r#"{"type": "string", "format": "time"}"#),
    (
        "code",
        r#"{"type": "string", "pattern": "^[A-Z]{2,4}-[0-9]{3}$"}"#,
    ),
    (
        "long word",
        r#"{"type": "string", "pattern": "^(ab|c)+$", "minLength": 7, "maxLength": 9}"#,
    ),
    (
        "contains",
        r#"{"type": "string", "pattern": "needle", "maxLength": 20}"#,
    ),
    (
        "tags",
        r#"{"type": "array", "items": {"type": "string", "maxLength": 8}, "minItems": 1, "maxItems": 4}"#,
    ),
    (
        "pair",
        r#"{"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": false, "minItems": 2}"#,
    ),
    ("any list", r#"{"type": "array"}"#),
    (
        "person",
        r#"{
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 40},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "email": {"type": ["string", "null"], "format": "email"},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3}
        },
        "required": ["name", "age"],
        "additionalProperties": false
    }"#,
    ),
    (
        "all optional",
        r#"{"type": "object", "properties": {"a": {"type": "null"}, "b": {"const": 2}, "c": true}}"#,
    ),
    (
        "some of them",
        r#"{"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}, "c": {"const": 3}}, "minProperties": 2, "additionalProperties": false}"#,
    ),
    (
        "map",
        r#"{"type": "object", "properties": {"id": {"type": "integer"}}, "additionalProperties": {"type": "boolean"}, "minProperties": 2, "maxProperties": 4}"#,
    ),
    (
        "required without a name",
        r#"{"type": "object", "required": ["x"]}"#,
    ),
    (
        "shapes",
        r#"{"oneOf": [
        {"type": "object", "properties": {"kind": {"const": "circle"}, "radius": {"type": "number", "minimum": 0}}, "required": ["kind", "radius"], "additionalProperties": false},
        {"type": "object", "properties": {"kind": {"const": "square"}, "side": {"type": "number", "minimum": 0}}, "required": ["kind", "side"], "additionalProperties": false}
    ]}"#,
    ),
    (
        "alike",
        r#"{"anyOf": [
        {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["a", "b"]},
        {"type": "object", "properties": {"a": {"type": "integer", "minimum": 10}, "c": {"type": "boolean"}}, "required": ["a"]}
    ]}"#,
    ),
    (
        "merged",
        r#"{"allOf": [
        {"type": "object", "properties": {"a": {"type": "integer", "minimum": 3}}, "required": ["a"]},
        {"type": "object", "properties": {"a": {"type": "number", "maximum": 5}, "b": {"type": "string"}}, "required": ["b"]},
        {"properties": {"b": {"maxLength": 3}}}
    ]}"#,
    ),
    (
        "tree",
        r##"{"type": "object", "properties": {"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#"}, "maxItems": 3}}, "required": ["value", "children"], "additionalProperties": false}"##,
    ),
    (
        "list by links",
        r##"{"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {"head": {"type": "string", "maxLength": 4}, "tail": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}, "required": ["head", "tail"]}}}"##,
    ),
    (
        "expression",
        r##"{"$defs": {"e": {"anyOf": [
        {"type": "integer", "minimum": 0, "maximum": 99},
        {"type": "object", "properties": {"op": {"enum": ["+", "-", "*"]}, "left": {"$ref": "#/$defs/e"}, "right": {"$ref": "#/$defs/e"}}, "required": ["op", "left", "right"], "additionalProperties": false}
    ]}}, "$ref": "#/$defs/e"}"##,
    ),
    (
        "mutual",
        r##"{"$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/b"}}, "b": {"type": "object", "additionalProperties": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}"##,
    ),
];

/// Writes an answer that a careless model would: random bytes of those that are allowed,
/// ended by force after `budget` of them.
fn wander(matcher: &mut Matcher, random: &mut Random, budget: usize) -> Vec<u8> {
    let mut answer = Vec::new();
    while answer.len() < budget && !matcher.is_closed() {
        if matcher.is_complete() && random.below(3) == 0 {
            break;
        }
        // What looks like structure is tried first, or hardly anything would ever be closed.
        let structure = b"{}[]\":,01a ";
        let guesses = (0..random.below(8)).map(|_| structure[random.below(structure.len())]);
        let guess = guesses.filter(|byte| matcher.allows(&[*byte])).last();
        let byte = guess.or_else(|| {
            let bytes = matcher.next_bytes();
            let shown = String::from_utf8_lossy(&answer);
            assert!(
                !bytes.is_empty() || matcher.is_complete(),
                "stuck after {shown}"
            );
            bytes.get(random.below(bytes.len())).copied()
        });
        let Some(byte) = byte else { break };
        assert!(matcher.advance(&[byte]));
        answer.push(byte);
    }
    if !matcher.is_complete() {
        let rest = matcher.completion();
        let shown = format!(
            "{} + {}",
            String::from_utf8_lossy(&answer),
            String::from_utf8_lossy(&rest)
        );
        assert!(matcher.advance(&rest), "the completion is refused: {shown}");
        assert!(
            matcher.is_complete(),
            "the completion does not complete: {shown}"
        );
        answer.extend(rest);
    }
    answer
}

/// Tries a schema with several wanderers; the judge sees every answer.
#[track_caller]
pub(crate) fn check(text: &str, seeds: std::ops::Range<u64>) {
    let schema = Schema::parse(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let document: serde_json::Value = serde_json::from_str(text).unwrap();
    let judge = jsonschema::options()
        .should_validate_formats(true)
        .build(&document)
        .unwrap();
    for seed in seeds {
        let mut random = Random(seed);
        let budget = [0, 1, 5, 20, 60, 250][random.below(6)];
        let answer = wander(&mut schema.matcher(), &mut random, budget);
        let shown =
            String::from_utf8(answer).unwrap_or_else(|error| panic!("not UTF-8: {error}: {text}"));
        let value: serde_json::Value = serde_json::from_str(&shown)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}: {shown}"));
        if let Err(error) = judge.validate(&value) {
            panic!("seed {seed}: {error}\nanswer: {shown}\nschema: {text}");
        }
    }
}

#[test]
fn answers_to_named_schemas_are_valid() {
    assert!(NAMED.len() >= 20);
    for (name, schema) in NAMED {
        println!("{name}");
        check(schema, 0..60);
    }
}

#[test]
fn schemas_that_nothing_satisfies_are_refused_with_the_reason() {
    for (schema, pointer, reason) in [
        ("false", "#", "`false`"),
        (r#"{"enum": []}"#, "#", "empty"),
        (r#"{"type": []}"#, "#", "types"),
        (
            r#"{"type": "integer", "minimum": 5, "maximum": 3}"#,
            "#",
            "no number",
        ),
        (
            r#"{"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2}"#,
            "#",
            "no number",
        ),
        (
            r#"{"type": "integer", "minimum": 8, "maximum": 12, "multipleOf": 7}"#,
            "#",
            "no number",
        ),
        (
            r#"{"type": "string", "minLength": 4, "maxLength": 3}"#,
            "#",
            "no string",
        ),
        (
            r#"{"type": "string", "pattern": "^a$", "minLength": 2}"#,
            "#",
            "no string",
        ),
        (
            r#"{"type": "string", "pattern": "^a$", "format": "date"}"#,
            "#",
            "no string",
        ),
        (
            r#"{"type": "array", "items": {}, "minItems": 2, "maxItems": 1}"#,
            "#",
            "items",
        ),
        (
            r#"{"type": "array", "items": false, "minItems": 1}"#,
            "#/items",
            "`false`",
        ),
        (
            r#"{"const": 1, "type": "string"}"#,
            "#",
            "none of its values",
        ),
        (
            r#"{"enum": [1, 2], "minimum": 3}"#,
            "#",
            "none of its values",
        ),
        (
            r#"{"allOf": [{"type": "string"}, {"type": "integer"}]}"#,
            "#",
            "types",
        ),
        (r#"{"anyOf": [false, {"enum": []}]}"#, "#/anyOf/1", "empty"),
        (
            r#"{"type": "object", "properties": {"a": false}, "required": ["a"]}"#,
            "#/properties/a",
            "`false`",
        ),
        (
            r#"{"type": "object", "properties": {"a": {}}, "required": ["b"], "additionalProperties": false}"#,
            "#/additionalProperties",
            "`false`",
        ),
        (
            r#"{"type": "object", "required": ["a", "b"], "maxProperties": 1}"#,
            "#",
            "properties",
        ),
        (
            r##"{"type": "array", "items": {"$ref": "#"}, "minItems": 1}"##,
            "#/items",
            "contains itself",
        ),
        (
            r##"{"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}"##,
            "#/properties/a",
            "contains itself",
        ),
    ] {
        match Schema::parse(schema) {
            Err(SchemaError::Unsatisfiable {
                pointer: found,
                reason: why,
            }) => {
                assert!(why.contains(reason), "{schema}: {why}");
                assert_eq!(found, pointer, "{schema}: {why}");
            }
            other => panic!("{schema}: {other:?}"),
        }
    }
}

#[test]
fn what_is_not_supported_is_named_with_its_pointer() {
    for (schema, pointer, named) in [
        (r#"{"not": {}}"#, "#/not", "`not`"),
        (
            r#"{"properties": {"a/b": {"if": true}}}"#,
            "#/properties/a~1b/if",
            "`if`",
        ),
        (
            r#"{"patternProperties": {}}"#,
            "#/patternProperties",
            "`patternProperties`",
        ),
        (r#"{"uniqueItems": true}"#, "#/uniqueItems", "`uniqueItems`"),
        (r#"{"contains": {}}"#, "#/contains", "`contains`"),
        (
            r#"{"type": "string", "nullable": true}"#,
            "#/nullable",
            "[\"string\", \"null\"]",
        ),
        (r#"{"minLenght": 3}"#, "#/minLenght", "misspelt"),
        (r#"{"format": "colour"}"#, "#/format", "`colour`"),
        (r#"{"items": [{}]}"#, "#/items", "`prefixItems`"),
        (r#"{"pattern": "(?=a)"}"#, "#/pattern", "look-around"),
        (r#"{"multipleOf": 0.1}"#, "#/multipleOf", "0.1"),
        (r#"{"$ref": "https://example.com/x"}"#, "#/$ref", "outside"),
        (
            r#"{"oneOf": [{"minimum": 1}, {"maximum": 3}]}"#,
            "#/oneOf",
            "alternatives 0 and 1",
        ),
    ] {
        match Schema::parse(schema) {
            Err(SchemaError::Unsupported {
                pointer: found,
                what,
            }) => {
                assert!(what.contains(named), "{schema}: {what}");
                assert_eq!(found, pointer, "{schema}: {what}");
            }
            other => panic!("{schema}: {other:?}"),
        }
    }
    for schema in [
        r#"{"type": "text"}"#,
        r#"{"minLength": -1}"#,
        r#"{"required": "a"}"#,
        r##"{"$ref": "#/$defs/missing"}"##,
        r#"{"anyOf": []}"#,
        r#"{"properties": []}"#,
        "3",
    ] {
        let found = Schema::parse(schema);
        assert!(
            matches!(found, Err(SchemaError::Invalid { .. })),
            "{schema}: {found:?}"
        );
    }
    for text in ["", "{", r#"{"a": 1, "a": 2}"#, &"[".repeat(1000)] {
        let found = Schema::parse(text);
        assert!(
            matches!(found, Err(SchemaError::NotJson { .. })),
            "{text}: {found:?}"
        );
    }
}

/// Schemas that are made to be expensive: each is refused or used, within bounds.
#[test]
fn hostile_schemas_are_bounded() {
    let many = |count: usize, part: fn(usize) -> String| {
        (0..count).map(part).collect::<Vec<_>>().join(",")
    };
    let nested = |open: &str, close: &str, count: usize| {
        format!("{}{{}}{}", open.repeat(count), close.repeat(count))
    };
    let hostile = [
        nested(r#"{"items":"#, "}", 100),
        nested(r#"{"type":"array","minItems":1,"items":"#, "}", 63),
        nested(r#"{"type":"array","minItems":1,"items":"#, "}", 70),
        nested(r#"{"anyOf":[{},"#, "]}", 60),
        nested(r#"{"allOf":[{},"#, "]}", 60),
        format!(r#"{{"enum": [{}]}}"#, many(50_000, |at| format!("\"value {at}\""))),
        format!(r#"{{"anyOf": [{}]}}"#, many(3_000, |at| format!(r#"{{"const": {at}}}"#))),
        format!(r#"{{"allOf": [{}]}}"#, many(30, |at| format!(r#"{{"anyOf": [{{"minimum": {at}}}, {{"maximum": {at}}}]}}"#))),
        format!(r#"{{"oneOf": [{}]}}"#, many(200, |at| format!(r#"{{"const": {at}}}"#))),
        format!(r#"{{"properties": {{{}}}}}"#, many(5_000, |at| format!(r#""key{at}": {{}}"#))),
        format!(r#"{{"type":"object","minProperties":40,"additionalProperties":false,"properties": {{{}}}}}"#, many(60, |at| format!(r#""key{at}": {{}}"#))),
        format!(r##"{{"$ref":"#/$defs/d0","$defs":{{{}}}}}"##, many(2_000, |at| format!(r##""d{at}":{{"anyOf":[{{"$ref":"#/$defs/d{}"}},{{"type":"array","items":{{"$ref":"#/$defs/d{}"}}}}]}}"##, (at + 1) % 2_000, (at * 7) % 2_000))),
        format!(r##"{{"$ref":"#/$defs/d0","$defs":{{{}}}}}"##, many(30, |at| format!(r##""d{at}":{{"allOf":[{{"properties":{{"a":{{"$ref":"#/$defs/d{}"}}}}}},{{"properties":{{"a":{{"$ref":"#/$defs/d{}"}}}}}}]}}"##, (at * 2 + 1) % 30, (at * 2 + 2) % 30))),
        r#"{"type": "string", "minLength": 1000000000}"#.to_owned(),
        r#"{"type": "array", "items": {}, "minItems": 1000000000000}"#.to_owned(),
        r#"{"anyOf": [{"type": "null"}, {"type": "array", "items": {}, "minItems": 1000000000}]}"#.to_owned(),
        r#"{"type": "string", "pattern": "^(a{1000}){1000}$"}"#.to_owned(),
        r#"{"type": "string", "pattern": "(a|b)*a(a|b){15}"}"#.to_owned(),
        r#"{"type": "string", "pattern": "^[^x]{999}$", "maxLength": 100000}"#.to_owned(),
        r##"{"anyOf": [{"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, {"type": "object", "properties": {"a": {"$ref": "#"}, "b": {}}, "required": ["a"]}, {"const": 0}]}"##.to_owned(),
    ];
    for schema in &hostile {
        let shown: String = schema.chars().take(60).collect();
        match Schema::parse(schema) {
            Ok(schema) => {
                for seed in 0..3 {
                    let answer = wander(&mut schema.matcher(), &mut Random(seed), 300);
                    let parsed = serde_json::from_slice::<serde_json::Value>(&answer);
                    assert!(
                        parsed.is_ok(),
                        "{shown}: {}",
                        String::from_utf8_lossy(&answer)
                    );
                }
            }
            Err(error) => println!("{shown}: {error}"),
        }
    }
}

/// Schemas of any shape that the decoder supports.
fn any_schema() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::json;
    let leaf = prop_oneof![
        Just(json!(true)),
        Just(json!({"type": "null"})),
        Just(json!({"type": ["boolean", "null"]})),
        (-50..50_i64, 0..100_i64, 1..9_i64).prop_map(|(low, more, step)| {
            json!({"type": "integer", "minimum": low, "maximum": low + more + step, "multipleOf": step})
        }),
        (-1000..1000_i32, 0..1000_i32).prop_map(|(low, more)| {
            json!({"type": "number", "exclusiveMinimum": f64::from(low) / 8.0, "maximum": f64::from(low + more + 1) / 8.0})
        }),
        (0..6_u32, 0..6_u32).prop_map(|(least, more)| {
            json!({"type": "string", "minLength": least, "maxLength": least + more})
        }),
        prop::sample::select(vec!["^[a-c]{2,5}$", "x", "^(no|yes)$", "^\\d+(,\\d+)*$", "é+$"])
            .prop_map(|pattern| json!({"type": "string", "pattern": pattern, "maxLength": 30})),
        prop::collection::vec(prop_oneof![Just(json!(null)), (-20..20_i32).prop_map(|n| json!(n)), "[a-c\"é]{0,3}".prop_map(|s| json!(s))], 1..6)
            .prop_map(|values| json!({"enum": values})),
        Just(json!({"$ref": "#/$defs/again"})),
    ];
    let inner = leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            (inner.clone(), 0..3_u32, 0..3_u32).prop_map(|(items, least, more)| {
                json!({"type": "array", "items": items, "minItems": least, "maxItems": least + more})
            }),
            prop::collection::vec(inner.clone(), 1..3)
                .prop_map(|items| json!({"type": "array", "prefixItems": items, "minItems": 1})),
            (prop::collection::btree_map("[a-d]{1,2}", inner.clone(), 0..4), any::<u8>(), any::<bool>()).prop_map(|(properties, mask, closed)| {
                let required: Vec<_> = properties.keys().enumerate().filter(|(at, _)| mask >> at & 1 == 1).map(|(_, key)| key.clone()).collect();
                let mut schema = json!({"type": "object", "properties": properties, "required": required});
                if closed { schema["additionalProperties"] = json!(false); }
                schema
            }),
            inner.clone().prop_map(|values| json!({"type": "object", "additionalProperties": values, "maxProperties": 3})),
            prop::collection::vec(inner.clone(), 1..3).prop_map(|all| json!({"anyOf": all})),
            prop::collection::vec(inner, 1..3).prop_map(|all| json!({"allOf": all})),
        ]
    });
    (inner.clone(), inner)
        .prop_map(|(schema, again)| json!({"allOf": [schema], "$defs": {"again": again}}))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn answers_to_random_schemas_are_valid(schema in any_schema(), seed in any::<u32>()) {
        let text = schema.to_string();
        match Schema::parse(&text) {
            Ok(_) => check(&text, u64::from(seed)..u64::from(seed) + 4),
            Err(SchemaError::Unsatisfiable { .. } | SchemaError::TooComplex { .. }) => {}
            Err(error) => panic!("{error}: {text}"),
        }
    }
}
