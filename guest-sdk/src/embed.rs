//! Embeddings: texts as vectors whose angles say how alike the texts are.
//!
//! In: texts, an embedding model. Out: vectors of length 1, cosines, rankings.

use crate::{Error, Model, bindings::tussah::job::llm::OverLong};

/// Texts that one host call takes.
const TEXTS_MAX: usize = 1024;

/// A text as a vector of length 1; its size is [`ModelInfo::embedding_length`](crate::ModelInfo).
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding(pub Vec<f32>);

impl Embedding {
    /// The cosine of the angle to another one, -1 to 1; larger is more alike.
    pub fn cosine(&self, other: &Self) -> f32 {
        cosine(&self.0, &other.0)
    }
}

/// The cosine of the angle between two vectors of any length, -1 to 1; 0 where one of them
/// is empty or all zeros.
///
/// ```
/// use tussah_sdk::cosine;
///
/// assert_eq!(cosine(&[2.0, 0.0], &[5.0, 0.0]), 1.0);
/// assert_eq!(cosine(&[1.0, 0.0], &[0.0, 3.0]), 0.0);
/// ```
pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    // In double precision, and in one order: the same on every machine.
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    };
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 {
        #[expect(clippy::cast_possible_truncation, reason = "rounded once, at the end")]
        let cosine = (dot(a, b) / lengths) as f32;
        cosine.clamp(-1.0, 1.0)
    } else {
        0.0
    }
}

/// A place in a ranking.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// Which of the documents, from 0.
    pub index: usize,
    /// Its cosine to the query.
    pub score: f32,
}

/// The documents by their likeness to a query, most alike first; on ties in their order.
///
/// ```
/// use tussah_sdk::{Embedding, rank};
///
/// let query = Embedding(vec![1.0, 0.0]);
/// let documents = [Embedding(vec![0.0, 1.0]), Embedding(vec![0.8, 0.6])];
/// let order: Vec<usize> = rank(&query, &documents).iter().map(|place| place.index).collect();
/// assert_eq!(order, [1, 0]);
/// ```
pub fn rank(query: &Embedding, documents: &[Embedding]) -> Vec<Ranked> {
    let scored = documents.iter().enumerate();
    let mut ranked: Vec<Ranked> = scored
        .map(|(index, document)| Ranked {
            index,
            score: query.cosine(document),
        })
        .collect();
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
    ranked
}

impl Model {
    /// One vector a text, in the order of the texts.
    ///
    /// # Errors
    /// `UnsupportedOperation` if the model makes no embeddings, `ContextFull` for a text of
    /// more tokens than the model was made for; the message names it.
    pub fn embed(&self, texts: &[impl AsRef<str>]) -> Result<Vec<Embedding>, Error> {
        self.embed_all(texts, OverLong::Refuse)
    }

    /// As [`Model::embed`], with as many of a text's first tokens as the model was made for.
    ///
    /// # Errors
    /// `UnsupportedOperation` if the model makes no embeddings.
    pub fn embed_cut(&self, texts: &[impl AsRef<str>]) -> Result<Vec<Embedding>, Error> {
        self.embed_all(texts, OverLong::Cut)
    }

    fn embed_all(
        &self,
        texts: &[impl AsRef<str>],
        over_long: OverLong,
    ) -> Result<Vec<Embedding>, Error> {
        let mut all = Vec::with_capacity(texts.len());
        for texts in texts.chunks(TEXTS_MAX) {
            let texts: Vec<String> = texts.iter().map(|text| text.as_ref().to_owned()).collect();
            let vectors = self
                .inner
                .embed(&texts, over_long)
                .map_err(Error::from_host)?;
            all.extend(vectors.into_iter().map(Embedding));
        }
        Ok(all)
    }
}
