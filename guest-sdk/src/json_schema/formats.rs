//! Formats of strings, as patterns.
//!
//! In: a format's name. Out: an automaton of strings that have the format. Where a format
//! allows more than anybody writes, the pattern is its plain part: what it matches has the
//! format, and not the other way round.

use super::{automaton::Automaton, regex};

const DATE: &str = "([0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))\
     |([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29)";
const TIME: &str =
    "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])";
const LABEL: &str = "[a-z0-9]{1,15}(-[a-z0-9]{1,15})?";
const OCTET: &str = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";

/// Every format that there is.
const NAMES: [&str; 8] = [
    "date",
    "date-time",
    "email",
    "hostname",
    "ipv4",
    "time",
    "uri",
    "uuid",
];

/// The names, for people.
pub(super) fn names() -> String {
    NAMES.join(", ")
}

/// The strings of a format; `None` if there is no such format.
pub(super) fn automaton(name: &str) -> Option<Result<Automaton, String>> {
    let pattern = match name {
        "date" => format!("^{DATE}$"),
        "time" => format!("^{TIME}$"),
        "date-time" => format!("^{DATE}T{TIME}$"),
        "email" => format!(
            "^[a-z0-9]{{1,12}}([._+-][a-z0-9]{{1,12}}){{0,3}}@({LABEL}\\.){{1,4}}[a-z]{{2,12}}$"
        ),
        "hostname" => format!("^({LABEL}\\.){{1,4}}[a-z]{{2,12}}$"),
        "ipv4" => format!("^{OCTET}(\\.{OCTET}){{3}}$"),
        "uri" => format!(
            "^https?://({LABEL}\\.){{1,4}}[a-z]{{2,12}}(:[1-9][0-9]{{1,3}})?(/[A-Za-z0-9_.~-]*)*$"
        ),
        "uuid" => "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$".to_owned(),
        _ => return None,
    };
    Some(regex::read(&pattern).and_then(|tree| Automaton::of(&tree)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, yes: &[&str], no: &[&str]) {
        let automaton = automaton(name).unwrap().unwrap();
        for text in yes {
            assert!(automaton.matches(text), "{text} is a {name}");
        }
        for text in no {
            assert!(!automaton.matches(text), "{text} is no {name}");
        }
    }

    #[test]
    fn formats_are_what_they_say() {
        check(
            "date",
            &[
                "2024-02-29",
                "2000-02-29",
                "2023-02-28",
                "1999-12-31",
                "2026-04-30",
            ],
            &[
                "2023-02-29",
                "1900-02-29",
                "2026-04-31",
                "2026-13-01",
                "2026-00-10",
                "2026-1-1",
            ],
        );
        check(
            "time",
            &["23:59:59Z", "00:00:00.5+02:00"],
            &["24:00:00Z", "12:00:00", "12:60:00Z"],
        );
        check(
            "date-time",
            &["2026-11-22T19:00:00Z"],
            &["2026-11-22 19:00:00Z", "2026-11-22T19:00Z"],
        );
        check(
            "email",
            &["a.b@mail.example.com"],
            &["a@b", "@example.com", "a..b@example.com"],
        );
        check(
            "uuid",
            &["123e4567-e89b-12d3-a456-426614174000"],
            &["123e4567e89b12d3a456426614174000"],
        );
        check(
            "ipv4",
            &["255.0.10.199"],
            &["256.0.0.1", "1.2.3", "01.2.3.4"],
        );
        check(
            "uri",
            &["https://example.com/a/b.html"],
            &["example.com", "ftp://x"],
        );
        check("hostname", &["mail.example.com"], &["-a.com", "localhost"]);
    }

    #[test]
    fn every_name_is_a_format() {
        for name in NAMES {
            assert!(automaton(name).unwrap().is_ok(), "{name}");
        }
        assert!(automaton("colour").is_none());
    }
}
