//! Where a manifest says something else than the one that its source gives.
//!
//! In: two manifests. Out: fields by their names, with both values. Digests and sizes of a module
//! that is another one are the verdict's own business, and so is the record of its build.

use serde::Serialize;
use serde_json::Value;
use tussah_manifest::{Manifest, Verdict};

/// The most fields that a cause names.
const NAMED_MAX: usize = 8;

/// A field that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Field {
    /// Such as `limits.fuel_max`.
    pub(crate) field: String,
    /// What the manifest says, nothing if it does not have the field.
    pub(crate) given: Value,
    /// What the source gives.
    pub(crate) rebuilt: Value,
}

/// All fields that differ.
pub(super) fn unlike(given: &Manifest, rebuilt: &Manifest, verdict: Verdict) -> Vec<Field> {
    let value = |manifest: &Manifest| serde_json::to_value(manifest).unwrap_or_default();
    let mut found = Vec::new();
    compare("", &value(given), &value(rebuilt), &mut found);
    if verdict != Verdict::Match {
        found.retain(|field| {
            let table = field.field.split('.').next().unwrap_or_default();
            !["module", "build"].contains(&table)
        });
    }
    found
}

fn compare(above: &str, given: &Value, rebuilt: &Value, into: &mut Vec<Field>) {
    let (Value::Object(ours), Value::Object(theirs)) = (rebuilt, given) else {
        if given != rebuilt {
            into.push(Field {
                field: above.to_owned(),
                given: given.clone(),
                rebuilt: rebuilt.clone(),
            });
        }
        return;
    };
    let names: std::collections::BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    for name in names {
        let dot = if above.is_empty() { "" } else { "." };
        let of = |table: &serde_json::Map<String, Value>| table.get(name).cloned();
        let (given, rebuilt) = (of(theirs), of(ours));
        let (given, rebuilt) = (given.unwrap_or_default(), rebuilt.unwrap_or_default());
        compare(&format!("{above}{dot}{name}"), &given, &rebuilt, into);
    }
}

/// The same as one line.
pub(super) fn cause(fields: &[Field]) -> String {
    let names: Vec<&str> = fields.iter().map(|field| field.field.as_str()).collect();
    let more = names.len().saturating_sub(NAMED_MAX);
    let named = names[..names.len() - more].join(", ");
    let more = match more {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("the manifest is not the one that the source gives: {named}{more} differ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(digest: char, more: &str) -> Manifest {
        let digest = digest.to_string().repeat(64);
        let text = format!(
            "version = 1\nname = \"a\"\n[module]\ndigest = \"blake3:{digest}\"\n\
             size_bytes = 100\n{more}"
        );
        Manifest::parse(&text).unwrap()
    }

    #[test]
    fn fields_that_differ_are_named() {
        let built = manifest('1', "[limits]\nfuel_max = 5\n");
        let names = |given: &Manifest, verdict| {
            let found = unlike(given, &built, verdict);
            found
                .into_iter()
                .map(|field| field.field)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&built, Verdict::Match), [""; 0]);
        let other = manifest('2', "[limits]\nfuel_max = 6\n");
        assert_eq!(
            names(&other, Verdict::Match),
            ["limits.fuel_max", "module.digest"]
        );
        assert_eq!(names(&other, Verdict::Mismatch), ["limits.fuel_max"]);
        let fields = unlike(&other, &built, Verdict::Mismatch);
        assert_eq!(
            (&fields[0].given, &fields[0].rebuilt),
            (&"6".into(), &"5".into())
        );
        let says = "the manifest is not the one that the source gives: limits.fuel_max differ";
        assert_eq!(cause(&fields), says);
    }
}
