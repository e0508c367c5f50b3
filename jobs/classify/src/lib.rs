//! Texts and labels in, the label that fits each text and a score for every label out.
//!
//! In: JSON. Out: one line of JSON a text. Nothing is generated: the model is asked how
//! likely it would write each label, so the answer is always one of them, and the same
//! request always gives the same one.

mod request;
mod scores;

use std::cmp::Ordering;

use request::{Request, answer, question};
use scores::{Trie, normalized};
use serde::{Serialize, Serializer};
use tussah_sdk::{Error, IntoOutcome, Json, Model, Session, job, progress};

/// The name that `tussah.toml` maps to a model.
const MODEL: &str = "smollm2";
/// Tokens of context: labels, examples and one text.
const CONTEXT_TOKENS: u32 = 2048;
/// A text that fits no label. A small model likes some labels whatever the text is; what it
/// says of this one is taken off (contextual calibration, Zhao et al. 2021, arXiv:2102.09690).
const NEUTRAL: &str = "Hello.";

/// One line of the output.
#[derive(Debug, PartialEq, Serialize)]
struct Classified<'a> {
    label: &'a str,
    scores: Scores<'a>,
}

/// Each label's share of one, in the order of the labels; written as an object.
#[derive(Debug, PartialEq)]
struct Scores<'a>(Vec<(&'a str, f64)>);

impl Serialize for Scores<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Four digits: the rest says nothing.
        let rounded = |share: &f64| (share * 1e4).round() / 1e4;
        serializer.collect_map(self.0.iter().map(|(name, share)| (name, rounded(share))))
    }
}

#[job]
fn run(Json(request): Json<Request>) -> Result<(), Error> {
    request.check()?;
    let model = Model::load(MODEL)?;
    let names: Vec<&str> = request.names().collect();
    let labels = names.iter().map(|name| model.tokenize(&answer(name)));
    let labels = Trie::new(&labels.collect::<Result<Vec<_>, _>>()?);
    let context = CONTEXT_TOKENS.min(model.info().context_tokens_max);
    let mut shared = model.session().context_tokens_max(context).open()?;
    shared
        .append(&request.shared())
        .map_err(|error| error.context("labels and examples"))?;
    let neutral = ask(&shared, &labels, NEUTRAL)?;
    let texts = request.texts();
    for (done, text) in texts.iter().enumerate() {
        progress(done as u64, texts.len() as u64, "classifying");
        let asked = ask(&shared, &labels, text)
            .map_err(|error| error.context(format!("text {}", done + 1)))?;
        Json(classified(&names, &asked, &neutral)).into_outcome()?;
    }
    Ok(())
}

/// How likely each label is for a text, as logarithms.
fn ask(shared: &Session, labels: &Trie, text: &str) -> Result<Vec<f64>, Error> {
    let mut session = shared.fork()?;
    session.append(&question(text))?;
    labels.log_probabilities(&session)
}

/// The label that gains most over the neutral text; the first of equals.
fn classified<'a>(names: &[&'a str], asked: &[f64], neutral: &[f64]) -> Classified<'a> {
    let gains: Vec<f64> = asked.iter().zip(neutral).map(|(a, n)| a - n).collect();
    let scores: Vec<(&str, f64)> = names.iter().copied().zip(normalized(&gains)).collect();
    let best = scores
        .iter()
        .rev()
        .max_by(|a, b| a.1.partial_cmp(&b.1).unwrap_or(Ordering::Equal));
    Classified {
        label: best.map_or("", |(name, _)| name),
        scores: Scores(scores),
    }
}

#[cfg(test)]
mod tests {
    use tussah_sdk::{ErrorCode, testing::Scripted};

    use super::*;

    /// A model that finds `bill` and `bill me` alike for the neutral text, and each text after
    /// it more of a `bill me`.
    fn script() -> Scripted {
        let mut asked = 0;
        Scripted::model(MODEL).candidates_with(move |written| {
            asked += u32::from(written.is_empty());
            let me = if asked > 1 { 3.0 } else { 0.0 };
            let list: &[(&[u8], f32)] = match written {
                b"" => &[(b" bill", 9.0), (b" other", 0.0)],
                b" bill" => &[(b"\n", 0.0), (b" me", me)],
                _ => &[(b"\n", 0.0)],
            };
            list.iter()
                .map(|(bytes, logit)| (bytes.to_vec(), *logit))
                .collect()
        })
    }

    #[test]
    fn labels_that_begin_others_are_told_apart_by_their_ends() {
        let input = r#"{"texts": ["a", "b"], "labels": [{"name": "bill"}, {"name": "bill me"}]}"#;
        let ran = script().run(run, input);
        ran.result.unwrap();
        let text = ran.output.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        // 1 and e to the third, as shares.
        let expected = r#"{"label":"bill me","scores":{"bill":0.0474,"bill me":0.9526}}"#;
        assert_eq!(lines, [expected; 2]);
    }

    #[test]
    fn bad_input_is_refused_before_the_model_is_loaded() {
        for (input, says) in [
            ("", "EOF while parsing"),
            (r#"{"text": "x"}"#, "missing field `labels`"),
            (
                r#"{"text": "x", "labels": ["a"]}"#,
                "`labels[0]`: invalid type: string",
            ),
            (r#"{"text": "x", "labels": []}"#, "there are 0 labels"),
        ] {
            let error = Scripted::nothing().run(run, input).result.unwrap_err();
            assert_eq!(error.code(), ErrorCode::BadInput, "{input}");
            assert!(error.message().contains(says), "{input}: {error}");
        }
    }

    #[test]
    fn a_label_that_is_always_likely_has_to_gain() {
        let asked = [-0.5_f64, -1.5];
        let result = classified(&["often", "seldom"], &asked, &[-0.1, -3.0]);
        assert_eq!(result.label, "seldom");
        let sum: f64 = result.scores.0.iter().map(|(_, share)| share).sum();
        assert!((sum - 1.0).abs() < 1e-12);
    }

    #[test]
    fn of_equals_the_first_wins_and_order_is_kept() {
        let result = classified(&["b", "a"], &[-1.0, -1.0], &[-2.0, -2.0]);
        let line = serde_json::to_string(&result).unwrap();
        assert_eq!(line, r#"{"label":"b","scores":{"b":0.5,"a":0.5}}"#);
    }

    #[test]
    fn one_label_gets_it_all() {
        assert_eq!(
            classified(&["only"], &[-9.0], &[-1.0]).scores.0,
            [("only", 1.0)]
        );
    }
}
