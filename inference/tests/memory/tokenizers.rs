//! Vocabularies out of files that mean harm: what reading them takes stays below the stated factor of the file.

use tussah_inference::{Gguf, TOKENIZER_ALLOCATION_FACTOR, Tokenizer};

use crate::builder::{File, Value};
use crate::peak_of;

/// Tables whose size does not depend on the file.
const FIXED_BYTES: usize = 64 << 10;

/// Text without repetition, so that it shares no beginning with another.
fn text(number: usize, length: usize) -> String {
    let mut state = number as u64 + 1;
    let mut letter = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        char::from(b'a' + u8::try_from(state >> 60).unwrap())
    };
    (0..length).map(|_| letter()).collect()
}

#[test]
fn a_vocabulary_takes_no_more_than_the_stated_factor() {
    let texts = |count: usize, length: usize| (0..count).map(|at| text(at, length)).collect();
    // How many tokens, how long each is, and its type.
    let table: [(usize, usize, i32); 5] = [
        // A control token of which every byte is a node, then many of them.
        (3, 1_000_000, 3),
        (50_000, 20, 3),
        (50_000, 20, 4),
        // Nothing but tokens: all that they take is tables.
        (300_000, 1, 1),
        (3, 1_000_000, 1),
    ];
    for (count, length, kind) in table {
        let mut file = File::default();
        let tokens: Vec<String> = texts(count, length);
        let scores = vec![0.0; count];
        file.set("tokenizer.ggml.model", Value::Text("llama".to_owned()));
        file.set("tokenizer.ggml.tokens", Value::Texts(tokens));
        file.set("tokenizer.ggml.scores", Value::F32s(scores));
        file.set("tokenizer.ggml.token_type", Value::I32s(vec![kind; count]));
        let bytes = file.bytes();
        let most = TOKENIZER_ALLOCATION_FACTOR * bytes.len() + FIXED_BYTES;
        let gguf = Gguf::from_bytes(bytes).unwrap();
        let (tokenizer, peak) = peak_of(|| Tokenizer::from_gguf(&gguf).unwrap());
        assert_eq!(tokenizer.len(), count);
        println!("{count} tokens of {length} bytes, type {kind}: {peak} bytes of {most}");
        assert!(
            peak <= most,
            "{peak} bytes of {most}: {count} of {length}, {kind}"
        );
    }
}
