//! Toy embeddings: which words a text has.
//!
//! In: a text. Out: a vector of length 1 that is close to those of texts with the same words.
//! It knows no meanings: `car` and `automobile` have nothing in common.

/// Values in a vector.
pub(super) const LENGTH: u32 = 256;

/// The vector of a text: each lower-case word adds to one value, chosen by its hash.
pub(super) fn of(text: &str) -> Vec<f32> {
    let mut vector = vec![0.0_f32; LENGTH as usize];
    for word in text.split(|character: char| !character.is_alphanumeric()) {
        if !word.is_empty() {
            vector[place(&word.to_lowercase())] += 1.0;
        }
    }
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length == 0.0 {
        // A text without words is close to nothing but its like.
        vector[0] = 1.0;
        return vector;
    }
    vector.iter().map(|value| value / length).collect()
}

/// Where a word counts: 64-bit FNV-1a of its bytes. The first place is for no words.
fn place(word: &str) -> usize {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = word.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    let places = u64::from(LENGTH) - 1;
    usize::try_from(hash % places).unwrap_or(0) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closeness(a: &str, b: &str) -> f32 {
        of(a).iter().zip(of(b)).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn common_words_make_texts_close() {
        assert!((closeness("Silk moths.", "moths, SILK") - 1.0).abs() < 1e-6);
        let near = closeness("how silk is made", "silk is made by moths");
        let far = closeness("how silk is made", "trains run late");
        assert!(near > 0.5 && far < 0.1, "{near} {far}");
        assert!((closeness("", "?!") - 1.0).abs() < 1e-6);
        assert!(closeness("", "silk") < 1e-6);
    }
}
