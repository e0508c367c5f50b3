//! A vocabulary of any size: every byte, so that every text has tokens, and made-up words.
//! In: an architecture and a number of tokens. Out: the tokenizer's metadata: byte-level BPE for Llama
//! and Qwen, SPM for Gemma 3, each with a chat template in its own family's form.

use super::RandomArchitecture;
use super::writer::Value;

/// `tokenizer.ggml.token_type` of the format.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const BYTE: i32 = 6;

/// Turns between `<|im_start|>` and `<|im_end|>`, as SmolLM2 and Qwen have them.
const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
/// Turns between `<start_of_turn>` and `<end_of_turn>`, as Gemma has them.
const GEMMA: &str = "{{ bos_token }}{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}{{ '<start_of_turn>' + role + '\\n' + message['content'] + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}";

/// The keys `tokenizer.*`.
pub(super) fn metadata(architecture: RandomArchitecture, size: u32) -> Vec<(String, Value)> {
    let size = size as usize;
    let pairs = match architecture {
        RandomArchitecture::Llama => bpe(size, "smollm"),
        RandomArchitecture::Qwen2 | RandomArchitecture::Qwen3 => bpe(size, "qwen2"),
        RandomArchitecture::Gemma3 => spm(size),
    };
    let named = |(key, value): (&str, Value)| (format!("tokenizer.{key}"), value);
    pairs.into_iter().map(named).collect()
}

type Pairs = Vec<(&'static str, Value)>;

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

/// Words without end: each is an earlier one and a letter, the shortest first.
/// `first` are those that words begin with.
fn words(first: Vec<String>) -> impl Iterator<Item = (String, char)> {
    let mut earlier = first;
    let mut at = 0;
    std::iter::from_fn(move || {
        let word = earlier.get(at / 26)?.clone();
        let letter = (b'a'..=b'z').nth(at % 26).map(char::from)?;
        at += 1;
        earlier.push(format!("{word}{letter}"));
        Some((word, letter))
    })
}

fn letters() -> Vec<String> {
    ('a'..='z').map(String::from).collect()
}

fn bpe(size: usize, pre: &str) -> Pairs {
    let specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
    let mut tokens = specials.map(str::to_owned).to_vec();
    let mut types = vec![CONTROL; tokens.len()];
    let bytes = crate::tokenizer::byte_to_char();
    tokens.extend(bytes.iter().map(char::to_string));
    let mut first = letters();
    // The space of GPT-2's alphabet.
    first.push(bytes[usize::from(b' ')].to_string());
    let mut merges = Vec::new();
    let wanted = size.saturating_sub(tokens.len());
    for (word, letter) in words(first).take(wanted) {
        merges.push(format!("{word} {letter}"));
        tokens.push(format!("{word}{letter}"));
    }
    types.resize(tokens.len(), NORMAL);
    vec![
        ("ggml.model", text("gpt2")),
        ("ggml.pre", text(pre)),
        ("ggml.tokens", Value::Texts(tokens)),
        ("ggml.token_type", Value::I32s(types)),
        ("ggml.merges", Value::Texts(merges)),
        ("ggml.bos_token_id", Value::U32(1)),
        ("ggml.eos_token_id", Value::U32(2)),
        ("ggml.unknown_token_id", Value::U32(0)),
        ("ggml.padding_token_id", Value::U32(2)),
        ("ggml.add_bos_token", Value::Bool(false)),
        ("chat_template", text(CHATML)),
    ]
}

fn spm(size: usize) -> Pairs {
    let mut tokens = Vec::new();
    let (mut types, mut scores) = (Vec::new(), Vec::new());
    let mut push = |token: String, kind: i32, score: f32| {
        tokens.push(token);
        types.push(kind);
        scores.push(score);
    };
    let specials = [
        ("<pad>", CONTROL),
        ("<eos>", CONTROL),
        ("<bos>", CONTROL),
        ("<unk>", UNKNOWN),
        ("<start_of_turn>", CONTROL),
        ("<end_of_turn>", CONTROL),
    ];
    for (token, kind) in specials {
        push(token.to_owned(), kind, -1000.0);
    }
    for byte in 0..=255u8 {
        push(format!("<0x{byte:02X}>"), BYTE, -1000.0);
    }
    let space = "\u{2581}".to_owned();
    push(space.clone(), NORMAL, -1000.0);
    for letter in '!'..='~' {
        push(letter.to_string(), NORMAL, -1000.0);
    }
    let taken = specials.len() + 256 + 1 + ('!'..='~').count();
    let mut first = letters();
    first.push(space);
    let wanted = size.saturating_sub(taken);
    for (rank, (word, letter)) in words(first).take(wanted).enumerate() {
        push(format!("{word}{letter}"), NORMAL, -(rank as f32));
    }
    vec![
        ("ggml.model", text("llama")),
        ("ggml.pre", text("default")),
        ("ggml.tokens", Value::Texts(tokens)),
        ("ggml.scores", Value::F32s(scores)),
        ("ggml.token_type", Value::I32s(types)),
        ("ggml.bos_token_id", Value::U32(2)),
        ("ggml.eos_token_id", Value::U32(1)),
        ("ggml.eot_token_id", Value::U32(5)),
        ("ggml.unknown_token_id", Value::U32(3)),
        ("ggml.padding_token_id", Value::U32(0)),
        ("ggml.add_bos_token", Value::Bool(true)),
        ("ggml.add_eos_token", Value::Bool(false)),
        ("ggml.add_space_prefix", Value::Bool(false)),
        ("chat_template", text(GEMMA)),
    ]
}
