//! A query and documents in, the documents ranked by their likeness to the query out.
//!
//! In: JSON with a query and documents of any length. Out: JSON with the best documents, most
//! alike first, each with the passage that is most alike and where it stands. Nothing is cut
//! off in silence: what a model does not read whole it reads in overlapping passages.

mod passages;
mod request;

use std::ops::Range;

use passages::Sizes;
use request::{Document, Search};
use serde::Serialize;
use tussah_sdk::{Embedding, Error, IntoOutcome, Json, Model, job, progress};

/// The name that `tussah.toml` maps to a model.
const MODEL: &str = "minilm";
/// Passages that are embedded in one call.
const BATCH: usize = 16;
/// Tokens of a passage: about six sentences. The longer a text, the less its vector says of
/// each of them; this model was trained on up to 128.
const PASSAGE_TOKENS: usize = 128;
/// Tokens that neighbours share.
const OVERLAP_TOKENS: usize = 32;
/// What the model puts around a text of its own; room for them is left.
const SPECIAL_TOKENS: usize = 2;

/// One document of the answer.
#[derive(Debug, Serialize)]
struct Hit<'a> {
    /// Which of the documents, from 0.
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    /// The cosine of the best passage to the query, -1 to 1.
    score: f32,
    passage: Passage<'a>,
}

/// A part of a document.
#[derive(Debug, Serialize)]
struct Passage<'a> {
    /// From the first one's to behind the last one's, in UTF-8.
    bytes: [usize; 2],
    /// The same in characters: Unicode scalar values.
    characters: [usize; 2],
    text: &'a str,
}

/// A passage that may become a hit.
struct Place {
    document: usize,
    bytes: Range<usize>,
    score: f32,
}

#[job]
fn run(Json(search): Json<Search>) -> Result<(), Error> {
    search.check()?;
    let model = Model::load(MODEL)?;
    let query = model
        .embed(&[&search.query])
        .map_err(|error| error.context("query"))?
        .remove(0);
    let mut places = places(&model, &search)?;
    score(&model, &search, &query, &mut places)?;
    Json(best(&places, &search)).into_outcome()
}

/// The passages of all documents.
fn places(model: &Model, search: &Search) -> Result<Vec<Place>, Error> {
    let most = model.info().context_tokens_max as usize;
    let sizes = Sizes {
        passage: PASSAGE_TOKENS.min(most.saturating_sub(SPECIAL_TOKENS)),
        overlap: OVERLAP_TOKENS,
    };
    let count = |text: &str| Ok(model.tokenize(text)?.len());
    let mut places = Vec::new();
    for (document, Document { text, .. }) in search.documents.iter().enumerate() {
        let passages = passages::split(text, sizes, &count)
            .map_err(|error| error.context(format!("documents[{document}]")))?;
        places.extend(passages.into_iter().map(|bytes| Place {
            document,
            bytes,
            score: 0.0,
        }));
    }
    Ok(places)
}

/// Gives each passage its score.
fn score(
    model: &Model,
    search: &Search,
    query: &Embedding,
    places: &mut [Place],
) -> Result<(), Error> {
    let total = places.len() as u64;
    let mut done = 0;
    for batch in places.chunks_mut(BATCH) {
        progress(done, total, "embedding passages");
        let text = |place: &Place| &search.documents[place.document].text[place.bytes.clone()];
        let texts: Vec<&str> = batch.iter().map(text).collect();
        let vectors = model.embed(&texts)?;
        for (place, vector) in batch.iter_mut().zip(&vectors) {
            place.score = query.cosine(vector);
        }
        done += batch.len() as u64;
    }
    Ok(())
}

/// The best passage of each document, the best documents first. Of equals the first wins:
/// the passage that stands first, the document that was given first.
fn best<'a>(places: &[Place], search: &'a Search) -> Vec<Hit<'a>> {
    let mut best: Vec<Option<&Place>> = vec![None; search.documents.len()];
    for place in places {
        let before = &mut best[place.document];
        if before.is_none_or(|before| place.score > before.score) {
            *before = Some(place);
        }
    }
    let min_score = search.min_score.unwrap_or(-1.0);
    let mut found: Vec<&Place> = best.into_iter().flatten().collect();
    found.retain(|place| place.score >= min_score);
    // Stable: equals keep their order.
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    found.truncate(search.top_k.unwrap_or(usize::MAX));
    found.into_iter().map(|place| hit(place, search)).collect()
}

fn hit<'a>(place: &Place, search: &'a Search) -> Hit<'a> {
    let document = &search.documents[place.document];
    let Range { start, end } = place.bytes;
    let text = &document.text[start..end];
    let first = document.text[..start].chars().count();
    Hit {
        index: place.document,
        id: document.id.as_deref(),
        score: place.score,
        passage: Passage {
            bytes: [start, end],
            characters: [first, first + text.chars().count()],
            text,
        },
    }
}

#[cfg(test)]
mod tests;
