//! `Single`: JSON in whose objects no field stands twice.
//!
//! Which of two counts is anybody's guess ([RFC 8259](https://www.rfc-editor.org/rfc/rfc8259),
//! section 4): whoever checked a request on its way here may have read the other one.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Characters of a field's name that an error shows.
const SHOWN_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Single(pub(super) Value);

impl<'de> Deserialize<'de> for Single {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any).map(Self)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Single(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some((name, Single(value))) = map.next_entry::<String, Single>()? {
            let shown: String = name.chars().take(SHOWN_MAX).collect();
            if fields.insert(name, value).is_some() {
                return Err(A::Error::custom(format!("`{shown}` stands twice")));
            }
        }
        Ok(fields.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_what_it_is_and_twice_the_same_name_is_an_error() {
        let text = r#"{"a":[1,-2,3.5,null,true,"x\n"],"b":{"a":{}},"c":18446744073709551615}"#;
        let Single(value) = serde_json::from_str(text).unwrap();
        assert_eq!(value, serde_json::from_str::<Value>(text).unwrap());
        for (text, error) in [
            (r#"{"a":1,"a":1}"#, "`a` stands twice at line 1 column"),
            (
                r#"[{"b":{"c":1,"d":2,"c":3}}]"#,
                "`c` stands twice at line 1 column",
            ),
            (r#"{"a":1,"\u0061":2}"#, "`a` stands twice at line 1 column"),
        ] {
            let found = serde_json::from_str::<Single>(text).unwrap_err();
            assert!(found.to_string().starts_with(error), "{found}");
        }
    }
}
