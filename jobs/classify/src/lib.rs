//! A text and labels in, the likeliest label out.
//!
//! In: JSON with a text, labels and, if wanted, the question. Out: JSON with the label and
//! how likely each one is. The model writes nothing: the probabilities of the labels' own
//! tokens decide, so the answer is always one of the labels.

use serde::{Deserialize, Serialize};
use tussah_sdk::{Error, Json, Message, Model, job};

/// The name that `tussah.toml` maps to a model.
const MODEL: &str = "smollm2";

/// What the job takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Task {
    text: String,
    labels: Vec<String>,
    /// What is asked of the text.
    #[serde(default = "which_label")]
    question: String,
}

/// What it gives.
#[derive(Debug, Serialize)]
struct Answer {
    label: String,
    /// In the order of the labels; together 1.
    scores: Vec<Score>,
}

/// How likely one label is.
#[derive(Debug, Serialize)]
struct Score {
    label: String,
    probability: f32,
}

fn which_label() -> String {
    "Which label fits the text best?".to_owned()
}

#[job]
fn run(Json(task): Json<Task>) -> Result<Json<Answer>, Error> {
    if task.text.trim().is_empty() {
        return Err(Error::bad_input(
            "the text is empty: give a text to classify",
        ));
    }
    let model = Model::load(MODEL)?;
    let session = model.session().open_chat(&messages(&task))?;
    let choice = session.choose(&task.labels)?;
    let label = task.labels[choice.index].clone();
    let scores = task.labels.into_iter().zip(choice.probabilities);
    let scores = scores
        .map(|(label, probability)| Score { label, probability })
        .collect();
    Ok(Json(Answer { label, scores }))
}

fn messages(task: &Task) -> [Message; 2] {
    let labels = task.labels.join(", ");
    [
        Message::system("You classify texts. You answer with one label and nothing else."),
        Message::user(format!(
            "{}\nLabels: {labels}\n\nText: {}",
            task.question,
            task.text.trim()
        )),
    ]
}

#[cfg(test)]
mod tests {
    use tussah_sdk::{ErrorCode, testing::Scripted};

    use super::*;

    const SAMPLE: &str = include_str!("../sample.json");

    #[test]
    fn the_likeliest_label_wins() {
        let script =
            Scripted::model(MODEL).candidates([("negative", 3.0), ("The", 9.0), ("positive", 1.0)]);
        let ran = script.run(run, SAMPLE);
        ran.result.unwrap();
        let answer: client::Answer = ran.output.json();
        assert_eq!(answer.label, "negative");
        let labels: Vec<&str> = answer
            .scores
            .iter()
            .map(|score| score.label.as_str())
            .collect();
        assert_eq!(labels, ["positive", "negative", "neutral"]);
        let sum: f32 = answer.scores.iter().map(|score| score.probability).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{sum}");
        assert!(ran.output.prompts[0].contains("Labels: positive, negative, neutral"));
    }

    /// The answer as a client reads it.
    mod client {
        #[derive(serde::Deserialize)]
        pub(super) struct Answer {
            pub(super) label: String,
            pub(super) scores: Vec<Score>,
        }
        #[derive(serde::Deserialize)]
        pub(super) struct Score {
            pub(super) label: String,
            pub(super) probability: f32,
        }
    }

    #[test]
    fn tasks_without_text_or_labels_are_refused() {
        for (input, code) in [
            (r#"{"text": "", "labels": ["a", "b"]}"#, ErrorCode::BadInput),
            (r#"{"text": "x"}"#, ErrorCode::BadInput),
            (r#"{"text": "x", "labels": []}"#, ErrorCode::InvalidArgument),
            (
                r#"{"text": "x", "labels": ["a", ""]}"#,
                ErrorCode::InvalidArgument,
            ),
            (
                r#"{"text": "x", "labels": ["a", "a"]}"#,
                ErrorCode::InvalidArgument,
            ),
        ] {
            let error = Scripted::model(MODEL).run(run, input).result.unwrap_err();
            assert_eq!(error.code(), code, "{input}: {error}");
        }
    }
}
