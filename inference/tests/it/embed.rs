//! Texts to vectors.

use tussah_inference::{CancelToken, OverLong};

use crate::builder;

#[test]
fn a_decoder_makes_no_embeddings() {
    let model = builder::small_model();
    assert_eq!(model.info().embeddings, None);
    assert_eq!(model.embed_memory_bytes(1), 0);
    let wanted = "a model of architecture `llama` makes no embeddings";
    let answer = model.embed(&["text"], OverLong::Refuse, &CancelToken::new());
    assert_eq!(answer.unwrap_err().to_string(), wanted);
    let units = model.embed_units(&[], OverLong::Cut);
    assert_eq!(units.unwrap_err().to_string(), wanted);
}
