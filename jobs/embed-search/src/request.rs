//! The input: a query, documents, and which hits are wanted, all checked.
//!
//! In: JSON. Out: documents as text with their ids. A document is a text, or an object with a
//! text and an id by which the caller knows it.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};
use tussah_sdk::Error;

/// Ids are keys, not texts.
const ID_BYTES_MAX: usize = 256;

/// What the job takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Search {
    pub(crate) query: String,
    pub(crate) documents: Vec<Document>,
    /// How many hits to give; all if not said.
    pub(crate) top_k: Option<usize>,
    /// Hits of a lower score are left out.
    pub(crate) min_score: Option<f32>,
}

/// One of the documents.
#[derive(Debug, PartialEq)]
pub(crate) struct Document {
    pub(crate) id: Option<String>,
    pub(crate) text: String,
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrObject)
    }
}

/// Tells a plain text from an object, so that an error names the field of the object.
struct TextOrObject;

impl<'de> Visitor<'de> for TextOrObject {
    type Value = Document;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text, or an object with `text` and `id`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Document, E> {
        self.visit_string(text.to_owned())
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Document, E> {
        Ok(Document { id: None, text })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Document, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Object {
            id: Option<String>,
            text: String,
        }
        let Object { id, text } = Object::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Document { id, text })
    }
}

impl Search {
    /// Refuses what cannot be searched; the message says where it stands.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.query.trim().is_empty() {
            return refuse("query is empty: say what to look for");
        }
        if self.top_k == Some(0) {
            return refuse("top_k is 0: give 1 or more, or leave it out for all");
        }
        if let Some(score) = self.min_score.filter(|score| !(-1.0..=1.0).contains(score)) {
            return refuse(format!("min_score is {score}: a score is -1 to 1"));
        }
        let mut seen = BTreeMap::new();
        for (at, document) in self.documents.iter().enumerate() {
            if document.text.trim().is_empty() {
                return refuse(format!("documents[{at}] has an empty text"));
            }
            let Some(id) = &document.id else { continue };
            if id.trim().is_empty() {
                return refuse(format!("documents[{at}].id is empty"));
            }
            if id.len() > ID_BYTES_MAX {
                return refuse(format!(
                    "documents[{at}].id is longer than {ID_BYTES_MAX} bytes"
                ));
            }
            if let Some(first) = seen.insert(id.as_str(), at) {
                return refuse(format!(
                    "documents[{at}].id: documents[{first}] has the same, {id:?}"
                ));
            }
        }
        Ok(())
    }
}

fn refuse(message: impl Into<String>) -> Result<(), Error> {
    Err(Error::bad_input(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_texts_or_objects() {
        let search: Search = tussah_sdk::from_json(
            r#"{"query": "q", "documents": ["a", {"text": "b"}, {"id": "7", "text": "c"}]}"#,
        )
        .unwrap();
        search.check().unwrap();
        let ids: Vec<_> = search.documents.iter().map(|d| d.id.as_deref()).collect();
        assert_eq!(ids, [None, None, Some("7")]);
    }

    #[test]
    fn what_cannot_be_searched_is_refused_by_its_place() {
        let documents = |list: &str| format!(r#"{{"query": "q", "documents": [{list}]}}"#);
        let long = format!(r#"{{"id": "{}", "text": "a"}}"#, "i".repeat(257));
        for (input, says) in [
            (
                r#"{"query": " ", "documents": []}"#.to_owned(),
                "query is empty",
            ),
            (r#"{"query": "q"}"#.to_owned(), "missing field `documents`"),
            (documents(r#""a", " ""#), "documents[1] has an empty text"),
            (documents("7"), "`documents[0]`: invalid type: integer `7`"),
            (
                documents(r#""a", {"id": "x"}"#),
                "`documents[1]`: missing field `text`",
            ),
            (
                documents(r#"{"text": "a", "name": "x"}"#),
                "unknown field `name`",
            ),
            (
                documents(r#"{"id": 7, "text": "a"}"#),
                "`documents[0].id`: invalid type: integer `7`",
            ),
            (
                documents(r#"{"id": "", "text": "a"}"#),
                "documents[0].id is empty",
            ),
            (documents(&long), "documents[0].id is longer than 256 bytes"),
            (
                documents(r#"{"id": "x", "text": "a"}, "b", {"id": "x", "text": "c"}"#),
                "documents[2].id: documents[0] has the same, \"x\"",
            ),
            (
                r#"{"query": "q", "documents": [], "top_k": 0}"#.to_owned(),
                "top_k is 0",
            ),
            (
                r#"{"query": "q", "documents": [], "top_k": -1}"#.to_owned(),
                "`top_k`",
            ),
            (
                r#"{"query": "q", "documents": [], "min_score": 1.5}"#.to_owned(),
                "min_score is 1.5",
            ),
            (
                // No float: refused by whichever looks first, serde_json's reader or the check.
                r#"{"query": "q", "documents": [], "min_score": 1e39}"#.to_owned(),
                "min_score",
            ),
        ] {
            let read = tussah_sdk::from_json::<Search>(&input);
            let error = read.and_then(|search| search.check()).unwrap_err();
            assert!(error.message().contains(says), "{input}: {error}");
        }
    }
}
