//! SentencePiece vocabularies: Gemma's own, and small ones with one thing odd or wrong.

use std::sync::LazyLock;
use std::time::Instant;

use proptest::prelude::*;
use tussah_inference::{AddBos, EncodeOptions, Gguf, TokenId, Tokenizer};

use crate::builder::{File, Value};
use crate::fixture::{self, Real};
use crate::goldens;

const PLAIN: EncodeOptions = EncodeOptions {
    add_bos: AddBos::Never,
    parse_special: false,
};
const PROMPT: EncodeOptions = EncodeOptions {
    add_bos: AddBos::ByMetadata,
    parse_special: true,
};

fn gemma3() -> Option<Tokenizer> {
    let gguf = Gguf::open(&fixture::path(Real::Gemma3)?).unwrap();
    Some(Tokenizer::from_gguf(&gguf).unwrap())
}

fn bytes(tokenizer: &Tokenizer, tokens: &[TokenId]) -> Vec<u8> {
    tokens
        .iter()
        .flat_map(|token| tokenizer.token_bytes(*token))
        .copied()
        .collect()
}

#[test]
fn gemma_prompts_have_the_golden_token_ids() {
    let Some(tokenizer) = gemma3() else { return };
    for case in goldens::cases(Real::Gemma3) {
        let tokens = tokenizer.encode(&case.prompt, PROMPT).unwrap();
        assert_eq!(tokens, goldens::ids(&case.prompt_token_ids));
        let made = goldens::ids(&case.generated_token_ids);
        assert_eq!(bytes(&tokenizer, &made), case.text.as_bytes());
    }
}

#[test]
fn gemma_tokens_are_those_of_sentencepiece() {
    let Some(tokenizer) = gemma3() else { return };
    let cases: Vec<(String, Vec<u32>)> =
        serde_json::from_str(include_str!("../goldens/gemma3-tokens.json")).unwrap();
    for (text, ids) in &cases {
        let tokens = tokenizer.encode(text, PLAIN).unwrap();
        assert_eq!(tokens, goldens::ids(ids), "{text:?}");
        let spaces = text.replace('\u{2581}', " ");
        assert_eq!(bytes(&tokenizer, &tokens), spaces.as_bytes(), "{text:?}");
    }
    println!("{} texts", cases.len());
}

#[test]
fn gemma_reads_fast() {
    let Some(path) = fixture::path(Real::Gemma3) else {
        return;
    };
    let gguf = Gguf::open(&path).unwrap();
    let start = Instant::now();
    let tokenizer = Tokenizer::from_gguf(&gguf).unwrap();
    println!("{} tokens in {:?}", tokenizer.len(), start.elapsed());
    for unit in [
        "a",
        "ab",
        "the quick brown fox ",
        " ",
        "\n",
        "é",
        "\u{10fff}",
        "<unused",
    ] {
        let text = unit.repeat((1 << 20) / unit.len());
        let start = Instant::now();
        let tokens = tokenizer.encode(&text, PROMPT).unwrap();
        println!("{unit:?}: {} tokens in {:?}", tokens.len(), start.elapsed());
        // A quadratic way would take minutes.
        assert!(start.elapsed().as_secs() < 20, "{unit:?}");
        assert!(
            bytes(&tokenizer, &tokens[1..]) == text.as_bytes(),
            "{unit:?}"
        );
    }
}

/// A vocabulary: `<unk>`, `<s>`, `</s>`, 256 bytes, some pieces, `<user>` and `  ` as user-defined tokens.
fn vocabulary() -> File {
    let pieces = [
        ("\u{2581}", -10.0),
        ("a", -11.0),
        ("b", -12.0),
        ("c", -13.0),
        ("<", -14.0),
        ("/", -15.0),
        ("s", -16.0),
        (">", -17.0),
        ("ab", -1.0),
        ("bc", -2.0),
        ("abc", -3.0),
        ("\u{2581}a", -0.5),
        ("</", -4.0),
        ("s>", -5.0),
        ("x y", 0.0),
        ("c\u{2581}c", -0.1),
        ("\u{2581}c", -0.2),
        ("é", -18.0),
    ];
    let mut tokens = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    let mut types = vec![2, 3, 3];
    let mut scores = vec![0.0; 3];
    tokens.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    types.extend([6; 256]);
    scores.extend([0.0; 256]);
    for (text, score) in pieces {
        tokens.push(text.to_owned());
        types.push(1);
        scores.push(score);
    }
    for text in ["<user>", "  "] {
        tokens.push(text.to_owned());
        types.push(4);
        scores.push(-1000.0);
    }
    let mut file = File::default();
    file.set("tokenizer.ggml.model", Value::Text("llama".to_owned()))
        .set("tokenizer.ggml.tokens", Value::Texts(tokens))
        .set("tokenizer.ggml.token_type", Value::I32s(types))
        .set("tokenizer.ggml.scores", Value::F32s(scores));
    file
}

fn read(file: &File) -> Result<Tokenizer, String> {
    let gguf = Gguf::from_bytes(file.bytes()).unwrap();
    Tokenizer::from_gguf(&gguf).map_err(|error| error.to_string())
}

fn texts(tokenizer: &Tokenizer, text: &str, options: EncodeOptions) -> Vec<String> {
    let tokens = tokenizer.encode(text, options).unwrap();
    let text = |token: TokenId| String::from_utf8_lossy(tokenizer.token_bytes(token)).into_owned();
    tokens.into_iter().map(text).collect()
}

#[test]
fn the_highest_score_joins_first() {
    let mut file = vocabulary();
    file.set("tokenizer.ggml.add_space_prefix", Value::Bool(false));
    let tokenizer = read(&file).unwrap();
    let table: [(&str, &[&str]); 14] = [
        ("", &[]),
        ("a", &["a"]),
        ("abc", &["abc"]),
        ("bcab", &["bc", "ab"]),
        // Of equal scores the leftmost joins first.
        ("abab", &["ab", "ab"]),
        (" abc", &[" a", "bc"]),
        ("a b", &["a", " ", "b"]),
        // User-defined tokens are found before anything joins.
        ("a  b", &["a", "  ", "b"]),
        ("   a", &["  ", " a"]),
        ("a<user>b", &["a", "<user>", "b"]),
        // A control token and a byte token are no text, even where their halves are tokens.
        ("</s>", &["</", "s>"]),
        ("\u{2581}a", &[" a"]),
        // A token may go over the border of words.
        ("c c", &["c c"]),
        ("c cc", &["c c", "c"]),
    ];
    for (text, wanted) in table {
        assert_eq!(texts(&tokenizer, text, PLAIN), wanted, "{text:?}");
    }
    // A plain space inside a token cannot be written, so that token is out of reach.
    assert_eq!(texts(&tokenizer, "x y", PLAIN).len(), 3);
    assert_eq!(texts(&tokenizer, "<0x41>", PLAIN).len(), 6);
    assert_eq!(tokenizer.encode("Z", PLAIN), Ok(vec![TokenId(3 + 0x5a)]));
    assert_eq!(texts(&tokenizer, "é", PLAIN), ["é"]);
    assert_eq!(tokenizer.encode("ü", PLAIN).unwrap().len(), 2);
}

#[test]
fn a_space_goes_in_front_where_the_model_wants_it() {
    // The default, as SentencePiece and llama.cpp have it.
    let tokenizer = read(&vocabulary()).unwrap();
    assert_eq!(texts(&tokenizer, "abc", PLAIN), [" a", "bc"]);
    assert_eq!(texts(&tokenizer, "", PROMPT), ["<s>"]);
    assert_eq!(texts(&tokenizer, "a", PROMPT), ["<s>", " a"]);
    assert_eq!(
        texts(&tokenizer, "a</s>a<user>b", PROMPT),
        ["<s>", " a", "</s>", " a", "<user>", " ", "b"]
    );
    assert_eq!(tokenizer.bos(), Some(TokenId(1)));
    assert!(tokenizer.is_end(TokenId(2)) && tokenizer.is_control(TokenId(0)));
    // As a whole text, the space that was put in front goes away again.
    for text in ["abc", "a b", " a", "", "<user>"] {
        let tokens = tokenizer.encode(text, PLAIN).unwrap();
        assert_eq!(tokenizer.decode(&tokens), text.as_bytes(), "{text:?}");
    }
    let tokens = tokenizer.encode("abc", PROMPT).unwrap();
    assert_eq!(tokenizer.decode(&tokens), b"<s>abc");
}

#[test]
fn bos_and_eos_go_by_their_flags() {
    let mut file = vocabulary();
    file.set("tokenizer.ggml.add_bos_token", Value::Bool(false))
        .set("tokenizer.ggml.add_eos_token", Value::Bool(true));
    let tokenizer = read(&file).unwrap();
    assert_eq!(texts(&tokenizer, "b", PROMPT), [" ", "b", "</s>"]);
    assert_eq!(texts(&tokenizer, "b", PLAIN), [" ", "b"]);
}

#[test]
fn a_vocabulary_without_bytes_says_which_it_lacks() {
    let mut file = vocabulary();
    file.set(
        "tokenizer.ggml.tokens",
        Value::Texts(
            ["<unk>", "<s>", "</s>", "\u{2581}", "a"]
                .map(str::to_owned)
                .to_vec(),
        ),
    )
    .set(
        "tokenizer.ggml.token_type",
        Value::I32s(vec![2, 3, 3, 1, 1]),
    )
    .set("tokenizer.ggml.scores", Value::F32s(vec![0.0; 5]));
    let error = read(&file).unwrap().encode("a \u{2581}aéa", PLAIN);
    let wanted = "byte 0xc3 at offset 6 of the text has no token in this model's vocabulary";
    assert_eq!(error.unwrap_err().to_string(), wanted);
}

#[test]
fn broken_vocabularies_are_refused() {
    let count = vocabulary_size();
    let scores = |change: &dyn Fn(&mut Vec<f32>)| {
        let mut scores = vec![0.0; count];
        change(&mut scores);
        ("tokenizer.ggml.scores", Value::F32s(scores))
    };
    let table: Vec<(&str, (&str, Value))> = vec![
        (
            "the score of token 7 is NaN",
            scores(&|it| it[7] = f32::NAN),
        ),
        (
            "the score of token 0 is inf",
            scores(&|it| it[0] = f32::INFINITY),
        ),
        ("scores for", scores(&|it| it.truncate(9))),
        ("scores for", scores(&|it| it.push(0.0))),
        (
            "an array of 32-bit floats",
            ("tokenizer.ggml.scores", Value::I32s(vec![0; count])),
        ),
        (
            "is not as its type has it",
            ("tokenizer.ggml.token_type", Value::I32s(vec![6; count])),
        ),
        (
            "types for",
            ("tokenizer.ggml.token_type", Value::I32s(vec![1; 2])),
        ),
        (
            "1 to 1048576",
            ("tokenizer.ggml.tokens", Value::Texts(Vec::new())),
        ),
        (
            "token 1000 of a vocabulary",
            ("tokenizer.ggml.bos_token_id", Value::U32(1000)),
        ),
        (
            "only `gpt2` (byte-level BPE) and `llama` (SentencePiece)",
            ("tokenizer.ggml.model", Value::Text("t5".to_owned())),
        ),
    ];
    for (wanted, (key, value)) in table {
        let mut file = vocabulary();
        file.set(key, value);
        let error = read(&file).unwrap_err();
        assert!(error.contains(wanted), "{error}, wanted {wanted}");
    }
    let mut file = vocabulary();
    file.remove("tokenizer.ggml.scores");
    assert!(read(&file).unwrap_err().contains("tokenizer.ggml.scores"));
}

fn vocabulary_size() -> usize {
    read(&vocabulary()).unwrap().len()
}

fn without_prefix() -> Tokenizer {
    let mut file = vocabulary();
    file.set("tokenizer.ggml.add_space_prefix", Value::Bool(false));
    read(&file).unwrap()
}

/// A space in front, and no user-defined tokens, behind which another one would go.
fn with_prefix() -> Tokenizer {
    let mut file = vocabulary();
    let mut types = vec![2, 3, 3];
    types.extend([6; 256]);
    types.resize(vocabulary_size(), 1);
    file.set("tokenizer.ggml.token_type", Value::I32s(types));
    read(&file).unwrap()
}

proptest! {
    #[test]
    fn tokens_give_the_text_back(text in "([ab cs<>/é]|<user>|.){0,40}") {
        static TOKENIZERS: LazyLock<[Tokenizer; 2]> =
            LazyLock::new(|| [without_prefix(), with_prefix()]);
        let text = text.replace('\u{2581}', "");
        for tokenizer in &*TOKENIZERS {
            let tokens = tokenizer.encode(&text, PLAIN).unwrap();
            prop_assert!(tokens.iter().all(|token| !tokenizer.is_control(*token)));
            let decoded = tokenizer.decode(&tokens);
            prop_assert_eq!(String::from_utf8(decoded).unwrap(), text.as_str());
        }
    }
}
