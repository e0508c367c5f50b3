//! Model files with one thing wrong: each is refused, and the error names the culprit.

use std::sync::Arc;

use proptest::prelude::*;
use tussah_inference::{Gguf, LoadOptions, LoadProgress, Model};

use crate::builder::{self, F16, F32, File, Format, Q4_1, Q8_0, SMALL, Tensor, Value};

fn base() -> File {
    builder::llama(SMALL, Q4_1)
}

fn one_thread() -> LoadOptions {
    LoadOptions {
        threads: 1,
        ..LoadOptions::default()
    }
}

fn message(bytes: Vec<u8>) -> String {
    let loaded = Gguf::from_bytes(bytes)
        .map_err(Into::into)
        .and_then(|gguf| Model::from_gguf(gguf, &one_thread(), &mut |_| {}));
    match loaded {
        Ok(_) => "loaded".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// A file with a change made to it.
fn changed(change: impl FnOnce(&mut File)) -> Vec<u8> {
    let mut file = base();
    change(&mut file);
    file.bytes()
}

/// Where a text first stands in a file.
fn at(bytes: &[u8], wanted: &str) -> usize {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted.as_bytes())
        .unwrap()
}

fn overwrite(mut bytes: Vec<u8>, at: usize, with: &[u8]) -> Vec<u8> {
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes
}

fn set(key: &'static str, value: Value) -> Vec<u8> {
    changed(|file| {
        file.set(key, value);
    })
}

fn huge_array(element: u32) -> Value {
    let mut bytes = element.to_le_bytes().to_vec();
    bytes.extend(u64::MAX.to_le_bytes());
    Value::Raw(9, bytes)
}

/// Broken headers.
fn headers() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let whole = base().bytes();
    let tokens = at(&whole, "tokenizer.ggml.tokens");
    vec![
        ("an empty file", vec![], "begins with []"),
        ("three bytes", b"GGU".to_vec(), "not a GGUF file"),
        (
            "another format",
            b"PK\x03\x04rest".to_vec(),
            "not a GGUF file",
        ),
        (
            "version 2",
            overwrite(whole.clone(), 4, &2u32.to_le_bytes()),
            "version 2",
        ),
        (
            "big-endian",
            overwrite(whole.clone(), 4, &3u32.to_be_bytes()),
            "version 50331648",
        ),
        (
            "the magic alone",
            b"GGUF".to_vec(),
            "truncated: the version",
        ),
        (
            "cut in the counts",
            whole[..20].to_vec(),
            "truncated: metadata keys",
        ),
        (
            "cut in the tokens",
            whole[..tokens + 200].to_vec(),
            "`tokenizer.ggml.tokens`",
        ),
        (
            "cut in the data",
            whole[..whole.len() - 5000].to_vec(),
            "past the end",
        ),
        (
            "2^63 tensors",
            changed(|file| file.tensor_count = Some(1 << 63)),
            "9223372036854775808 tensors",
        ),
        (
            "65,537 keys",
            changed(|file| file.key_count = Some(65_537)),
            "65537 metadata keys",
        ),
        (
            "more tensors than there are",
            changed(|file| file.tensor_count = Some(60)),
            "",
        ),
        (
            "more keys than there are",
            changed(|file| file.key_count = Some(60)),
            "",
        ),
        (
            "an array of 2^64-1 numbers",
            set("x", huge_array(10)),
            "the array of metadata key `x`",
        ),
        (
            "an array of 2^64-1 strings",
            set("x", huge_array(8)),
            "the array of metadata key `x`",
        ),
        (
            "an array of arrays",
            set("x", huge_array(9)),
            "`x` is an array of arrays",
        ),
        (
            "an unknown type",
            set("x", Value::Raw(13, vec![])),
            "`x` has the unknown type 13",
        ),
        (
            "a string longer than the file",
            set("x", Value::Raw(8, (1u64 << 40).to_le_bytes().to_vec())),
            "value of metadata key `x`",
        ),
        (
            "a key twice",
            changed(|file| {
                file.metadata
                    .push(("general.architecture".to_owned(), Value::U32(1)))
            }),
            "metadata key `general.architecture` stands twice",
        ),
        (
            "a key that is not UTF-8",
            overwrite(whole.clone(), at(&whole, "llama.block_count"), b"\xff"),
            "not UTF-8",
        ),
        (
            "alignment 0",
            set("general.alignment", Value::U32(0)),
            "general.alignment is 0",
        ),
        (
            "alignment 48",
            set("general.alignment", Value::U32(48)),
            "general.alignment is 48",
        ),
    ]
}

/// Broken tensors.
fn tensors() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let norm = "output_norm.weight";
    let query = "blk.0.attn_q.weight";
    let dimensions = |name: &'static str, dimensions: Vec<u64>| {
        changed(move |file| file.tensor(name).dimensions = dimensions)
    };
    let offset = |name: &'static str, offset: u64| {
        changed(move |file| file.tensor(name).offset = Some(offset))
    };
    let format =
        |name: &'static str, format: Format| changed(move |file| file.tensor(name).format = format);
    let scale = |name: &'static str, at: usize, bytes: [u8; 2]| {
        changed(move |file| file.tensor(name).data[at..at + 2].copy_from_slice(&bytes))
    };
    let extra = |name: &str| Tensor {
        name: name.to_owned(),
        dimensions: vec![32],
        format: F32,
        data: vec![0; 128],
        offset: None,
    };
    vec![
        (
            "a zero dimension",
            dimensions(norm, vec![0]),
            "`output_norm.weight` has the dimensions [0]",
        ),
        (
            "an overflowing product",
            dimensions(query, vec![1 << 40, 1 << 40]),
            "does not fit 64 bits",
        ),
        (
            "past the end",
            dimensions(query, vec![64, 1 << 30]),
            "`blk.0.attn_q.weight` ends at byte",
        ),
        (
            "five dimensions",
            dimensions(query, vec![32, 1, 1, 1, 1]),
            "5 dimensions of tensor",
        ),
        (
            "no dimensions",
            dimensions(query, vec![]),
            "0 dimensions of tensor",
        ),
        (
            "half a block in a row",
            dimensions(query, vec![48, 64]),
            "whole number of blocks",
        ),
        (
            "another shape",
            dimensions(query, vec![32, 128]),
            "has the shape [32, 128], wanted [64, 64]",
        ),
        (
            "offset past the end",
            offset(query, 1 << 60),
            "past the end",
        ),
        (
            "offset that overflows",
            offset(query, u64::MAX - 31),
            "past the end",
        ),
        (
            "misaligned",
            offset(norm, 8),
            "begins at offset 8, not a multiple of 32",
        ),
        ("overlapping", offset(query, 0), "overlap"),
        (
            "unknown type",
            format(query, Format(99, 32, 20)),
            "`blk.0.attn_q.weight` has the unknown",
        ),
        (
            "a norm in F16",
            format(norm, F16),
            "is F16, which is not supported for a norm",
        ),
        (
            "scale of infinity",
            scale(query, 0, [0, 0x7c]),
            "`blk.0.attn_q.weight` has a value that is not finite in row 0",
        ),
        (
            "scale of NaN",
            scale("token_embd.weight", 68, [1, 0x7e]),
            "`token_embd.weight` has a value that is not finite in row 1",
        ),
        (
            "a norm of NaN",
            scale(norm, 2, [0xc0, 0x7f]),
            "`output_norm.weight` has a value",
        ),
        (
            "a name of 65 bytes",
            changed(|file| file.tensor(norm).name = "n".repeat(65)),
            "65 bytes of a tensor name",
        ),
        (
            "a tensor missing",
            changed(|file| file.tensors.retain(|it| it.name != norm)),
            "tensor `output_norm.weight` is missing",
        ),
        (
            "a bias",
            changed(|file| file.tensors.push(extra("blk.0.attn_q.bias"))),
            "`blk.0.attn_q.bias` is no part of",
        ),
        (
            "a tensor twice",
            changed(|file| file.tensors.push(extra(norm))),
            "tensor `output_norm.weight` stands twice",
        ),
    ]
}

/// Well-formed files that are no model for us.
fn plans() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let text = |text: &str| Value::Text(text.to_owned());
    let u32 = Value::U32;
    vec![
        (
            "another architecture",
            set("general.architecture", text("mamba")),
            "architecture `mamba`",
        ),
        (
            "a number for a text",
            set("general.architecture", u32(1)),
            "`general.architecture` is an unsigned integer",
        ),
        (
            "no layers",
            set("llama.block_count", u32(0)),
            "`llama.block_count` is 0",
        ),
        (
            "2^32-1 layers",
            set("llama.block_count", u32(u32::MAX)),
            "`llama.block_count` is 4294967295",
        ),
        (
            "a layer too many",
            set("llama.block_count", u32(3)),
            "tensor `blk.2.attn_norm.weight` is missing",
        ),
        (
            "a layer too few",
            set("llama.block_count", u32(1)),
            "is no part of the architecture's plan",
        ),
        (
            "no heads",
            set("llama.attention.head_count", u32(0)),
            "head_count` is 0",
        ),
        (
            "7 heads in 64",
            set("llama.attention.head_count", u32(7)),
            "`llama.attention.head_count",
        ),
        (
            "3 kv heads for 4",
            set("llama.attention.head_count_kv", u32(3)),
            "head_count_kv` is 3",
        ),
        (
            "2^31 of embedding",
            set("llama.embedding_length", u32(1 << 31)),
            "embedding_length` is 2147483648",
        ),
        (
            "eps of zero",
            set("llama.attention.layer_norm_rms_epsilon", Value::F32(0.0)),
            "epsilon` is 0",
        ),
        (
            "eps of NaN",
            set(
                "llama.attention.layer_norm_rms_epsilon",
                Value::F32(f32::NAN),
            ),
            "epsilon` is NaN",
        ),
        (
            "odd RoPE",
            set("llama.rope.dimension_count", u32(15)),
            "dimension_count` is 15",
        ),
        (
            "scaled RoPE",
            set("llama.rope.scaling.type", text("yarn")),
            "scaling.type` is yarn",
        ),
        (
            "a Unigram tokenizer",
            set("tokenizer.ggml.model", text("t5")),
            "tokenizer model `t5`",
        ),
        (
            "an SPM tokenizer without scores",
            set("tokenizer.ggml.model", text("llama")),
            "tokenizer.ggml.scores",
        ),
        (
            "an unknown cut",
            set("tokenizer.ggml.pre", text("x")),
            "pre-tokenizer `x`",
        ),
        (
            "no tokens",
            set("tokenizer.ggml.tokens", Value::Texts(vec![])),
            "0 tokens",
        ),
        (
            "few types",
            set("tokenizer.ggml.token_type", Value::I32s(vec![1])),
            "1 types for 268 tokens",
        ),
        (
            "a merge of no tokens",
            set(
                "tokenizer.ggml.merges",
                Value::Texts(vec!["q zz".to_owned()]),
            ),
            "merge 0 names",
        ),
        (
            "a merge of one part",
            set("tokenizer.ggml.merges", Value::Texts(vec!["qz".to_owned()])),
            "merge 0 is not a pair",
        ),
        (
            "EOS outside",
            set("tokenizer.ggml.eos_token_id", u32(268)),
            "token 268 of a vocabulary of 268",
        ),
        (
            "a bad template",
            set("tokenizer.chat_template", text("{% if %}")),
            "chat template is not valid",
        ),
    ]
}

#[test]
fn broken_files_are_refused_by_name() {
    assert_eq!(message(base().bytes()), "loaded");
    let all = headers().into_iter().chain(tensors()).chain(plans());
    for (what, bytes, wanted) in all {
        let found = message(bytes);
        assert!(
            found != "loaded" && found.contains(wanted),
            "{what}: {found:?} lacks {wanted:?}"
        );
    }
}

#[test]
fn the_engine_says_what_it_cannot_run() {
    let odd = builder::Sizes {
        heads: 8,
        kv_heads: 2,
        ..SMALL
    };
    let error = builder::llama(odd, Q8_0)
        .load(&one_thread())
        .unwrap_err()
        .to_string();
    assert!(error.contains("the size of a head is 8"), "{error}");
    let error = base()
        .load(&LoadOptions {
            threads: 257,
            ..one_thread()
        })
        .unwrap_err();
    assert_eq!(error.to_string(), "257 threads, at most 256 are allowed");
}

#[test]
fn a_file_on_disk_loads_with_progress() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, base().bytes()).unwrap();
    let mut seen: Vec<LoadProgress> = Vec::new();
    let model = Model::open(&path, &one_thread(), &mut |progress| seen.push(progress)).unwrap();
    let last = seen.last().unwrap();
    assert_eq!(last.done_bytes, last.total_bytes);
    assert!(seen.is_sorted_by_key(|progress| progress.done_bytes) && seen.len() <= 101);
    let info = model.info();
    assert_eq!(
        (
            info.layers,
            info.vocabulary_size,
            info.quantization.as_str()
        ),
        (2, 268, "Q4_1")
    );
    for missing in ["absent.gguf", "."] {
        let path = folder.path().join(missing);
        assert!(
            Model::open(&path, &one_thread(), &mut |_| {}).is_err(),
            "{missing}"
        );
    }
    std::fs::write(&path, b"").unwrap();
    assert!(Model::open(&path, &one_thread(), &mut |_| {}).is_err());
}

#[test]
fn a_model_whose_values_explode_fails_with_an_error() {
    let mut file = base();
    // Norm weights of 10^38 make every product leave the floats.
    let data = &mut file.tensor("blk.1.ffn_norm.weight").data;
    data.as_chunks_mut::<4>()
        .0
        .iter_mut()
        .for_each(|word| *word = 1e38f32.to_le_bytes());
    let model = Arc::new(file.load(&one_thread()).unwrap());
    let mut session = builder::session(&model, 20, tussah_inference::Sampling::default());
    let error = session
        .append(&[tussah_inference::TokenId(65)])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("layer 1 of token position 0 is not a finite number"),
        "{error}"
    );
    let error = session
        .append(&[tussah_inference::TokenId(65)])
        .unwrap_err()
        .to_string();
    assert!(error.contains("failed before"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_cut_or_flip_makes_it_panic(cut in 0usize..12_000, flips in proptest::collection::vec((0usize..12_000, any::<u8>()), 0..4)) {
        static WHOLE: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| base().bytes());
        let mut bytes = WHOLE.clone();
        for (at, value) in flips {
            bytes[at] = value;
        }
        if cut % 2 == 0 {
            bytes.truncate(cut);
        }
        // Whatever comes out, it comes out as a value.
        let _ = message(bytes);
    }
}
