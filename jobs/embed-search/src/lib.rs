//! A query and documents in, the documents ranked by their likeness to the query out.
//!
//! In: JSON with a query and documents. Out: JSON with the best documents, most alike
//! first. Documents of more tokens than the model was made for count by their beginning.

use serde::{Deserialize, Serialize};
use tussah_sdk::{Error, Json, Model, job, progress, rank};

/// The name that `tussah.toml` maps to a model.
const MODEL: &str = "minilm";
/// Documents that are embedded in one call.
const BATCH: usize = 16;

/// What the job takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Search {
    query: String,
    documents: Vec<String>,
    /// How many to give; all if not said.
    top: Option<usize>,
}

/// One document of the answer.
#[derive(Debug, Serialize)]
struct Hit {
    /// Which of the documents, from 0.
    index: usize,
    /// The cosine to the query, -1 to 1.
    score: f32,
    document: String,
}

#[job]
fn run(Json(search): Json<Search>) -> Result<Json<Vec<Hit>>, Error> {
    if search.query.trim().is_empty() {
        return Err(Error::bad_input("the query is empty: say what to look for"));
    }
    let model = Model::load(MODEL)?;
    let query = model.embed(&[&search.query])?.remove(0);
    let mut vectors = Vec::new();
    for documents in search.documents.chunks(BATCH) {
        progress(
            vectors.len() as u64,
            search.documents.len() as u64,
            "embedding",
        );
        vectors.extend(model.embed_cut(documents)?);
    }
    let top = search.top.unwrap_or(vectors.len());
    let hits = rank(&query, &vectors)
        .into_iter()
        .take(top)
        .map(|place| Hit {
            index: place.index,
            score: place.score,
            document: search.documents[place.index].clone(),
        });
    Ok(Json(hits.collect()))
}

#[cfg(test)]
mod tests {
    use tussah_sdk::{ErrorCode, testing::Scripted};

    use super::*;

    const SAMPLE: &str = include_str!("../sample.json");

    /// What a client reads of a hit.
    #[derive(Debug, Deserialize, PartialEq)]
    struct Read {
        index: usize,
        score: f32,
        document: String,
    }

    /// A model that knows water from everything else.
    fn script() -> Scripted {
        Scripted::model(MODEL).embeddings_with(2, |text| {
            let wet = ["ferry", "ship", "island"]
                .iter()
                .any(|word| text.contains(word));
            if wet { vec![1.0, 0.0] } else { vec![0.0, 1.0] }
        })
    }

    #[test]
    fn documents_are_ranked_most_alike_first() {
        let ran = script().run(run, SAMPLE);
        ran.result.unwrap();
        let hits: Vec<Read> = ran.output.json();
        assert_eq!(hits.len(), 3, "as many as were asked for");
        assert!(hits[0].document.contains("ferry"), "{hits:?}");
        assert!(
            hits.windows(2).all(|pair| pair[0].score >= pair[1].score),
            "{hits:?}"
        );
    }

    #[test]
    fn edges_of_the_input() {
        let run = |input: &str| script().run(run, input);
        assert_eq!(
            run(r#"{"query": "x", "documents": []}"#).output.text(),
            "[]\n"
        );
        let many = format!(
            r#"{{"query": "x", "documents": [{}"y"]}}"#,
            r#""y", "#.repeat(40)
        );
        let ran = run(&many);
        let hits: Vec<Read> = ran.output.json();
        // Equals stay in their order.
        assert_eq!(
            hits.iter().map(|hit| hit.index).collect::<Vec<_>>(),
            (0..41).collect::<Vec<_>>()
        );
        assert_eq!(ran.output.progress.len(), 3);
        for input in [
            r#"{"query": " ", "documents": []}"#,
            r#"{"query": "x"}"#,
            "[]",
        ] {
            let error = run(input).result.unwrap_err();
            assert_eq!(error.code(), ErrorCode::BadInput, "{input}: {error}");
        }
    }
}
