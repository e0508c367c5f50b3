//! Plans with one thing wrong: each is refused, and the error names the culprit and what it may be.

use tussah_inference::generate::{RandomArchitecture, RandomModel, RandomShape, WeightMix};
use tussah_inference::{Engine, Gguf, LoadOptions, Model, QuantType};

use crate::architectures::set_u32;
use crate::builder::{
    self, BF16, F16, F32, File, Format, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0, SMALL,
    Sizes, Tensor, Value, WIDE,
};

fn message(bytes: Vec<u8>, engine: Engine) -> String {
    let options = LoadOptions {
        engine,
        threads: 1,
        ..LoadOptions::default()
    };
    let loaded = Gguf::from_bytes(bytes)
        .map_err(Into::into)
        .and_then(|gguf| Model::from_gguf(gguf, &options, &mut |_| {}));
    match loaded {
        Ok(_) => "loaded".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// A small model of an architecture, with a change made to its bytes.
fn random(architecture: RandomArchitecture, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let model = RandomModel {
        name: String::new(),
        architecture,
        shape: RandomShape {
            vocabulary: 512,
            layers: 1,
            embedding_length: 64,
            feed_forward_length: 96,
            heads: 4,
            kv_heads: 2,
            head_size: 16,
            context_tokens_max: 64,
            tied_head: false,
        },
        weights: WeightMix::all(QuantType::Q8_0),
        seed: 3,
    };
    let mut bytes = Vec::new();
    model.write(&mut bytes, &mut |_| Ok(())).unwrap();
    change(&mut bytes);
    bytes
}

/// Just behind a key or a tensor's name.
fn after(bytes: &[u8], name: &str) -> usize {
    let found = bytes
        .windows(name.len())
        .position(|window| window == name.as_bytes());
    found.unwrap() + name.len()
}

/// Another name of the same length for a key or a tensor.
fn rename(bytes: &mut [u8], name: &str) {
    let at = after(bytes, name);
    bytes[at - 1] = b'_';
}

/// Another number of rows for a matrix, or of values for a vector.
fn resize(bytes: &mut [u8], name: &str, size: u64) {
    let at = after(bytes, name);
    let rank = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let at = at + 4 + (rank - 1) * 8;
    bytes[at..at + 8].copy_from_slice(&size.to_le_bytes());
}

type Row = (&'static str, Vec<u8>, String);

/// Tensors that Llama has not: of another length, and missing.
fn tensors() -> Vec<Row> {
    use RandomArchitecture::{Gemma3, Llama, Qwen2, Qwen3};
    let vectors = [
        (Gemma3, "blk.0.attn_q_norm.weight", 16),
        (Gemma3, "blk.0.attn_k_norm.weight", 16),
        (Gemma3, "blk.0.post_attention_norm.weight", 64),
        (Gemma3, "blk.0.post_ffw_norm.weight", 64),
        (Qwen3, "blk.0.attn_q_norm.weight", 16),
        (Qwen3, "blk.0.attn_k_norm.weight", 16),
        (Qwen2, "blk.0.attn_q.bias", 64),
        (Qwen2, "blk.0.attn_k.bias", 32),
        (Qwen2, "blk.0.attn_v.bias", 32),
    ];
    let mut rows = Vec::new();
    for (architecture, name, length) in vectors {
        let short = random(architecture, |bytes| resize(bytes, name, 8));
        let wanted = format!("tensor `{name}` has the shape [8], wanted [{length}]");
        rows.push(("another length", short, wanted));
        let missing = random(architecture, |bytes| rename(bytes, name));
        rows.push(("missing", missing, format!("tensor `{name}` is missing")));
    }
    // A tokenizer of 512 tokens.
    for (architecture, name) in [
        (Llama, "token_embd.weight"),
        (Llama, "output.weight"),
        (Gemma3, "token_embd.weight"),
        (Qwen2, "token_embd.weight"),
        (Qwen3, "output.weight"),
    ] {
        for size in [511, 1] {
            let bytes = random(architecture, |bytes| resize(bytes, name, size));
            let wanted = format!("tensor `{name}` has the shape [64, {size}], wanted [64, 512]");
            rows.push(("rows for another tokenizer", bytes, wanted));
        }
    }
    rows
}

/// Numbers of Gemma 3 and Qwen.
fn numbers() -> Vec<Row> {
    use RandomArchitecture::{Gemma3, Qwen2, Qwen3};
    let set = |architecture, key: &'static str, value| {
        random(architecture, |bytes| set_u32(bytes, key, value))
    };
    let row = |what, bytes, wanted: &str| (what, bytes, wanted.to_owned());
    vec![
        row(
            "a window of nothing",
            set(Gemma3, "gemma3.attention.sliding_window", 0),
            "`gemma3.attention.sliding_window` is 0, wanted 1 to",
        ),
        row(
            "no window",
            random(Gemma3, |bytes| {
                rename(bytes, "gemma3.attention.sliding_window")
            }),
            "`gemma3.attention.sliding_window` is missing",
        ),
        row(
            "3 kv heads for 4",
            set(Gemma3, "gemma3.attention.head_count_kv", 3),
            "`gemma3.attention.head_count_kv` is 3, wanted a divisor of the 4 heads",
        ),
        row(
            "8 kv heads for 4",
            set(Qwen3, "qwen3.attention.head_count_kv", 8),
            "`qwen3.attention.head_count_kv` is 8, wanted a divisor of the 4 heads",
        ),
        row(
            "7 heads in 64",
            set(Qwen2, "qwen2.attention.head_count", 7),
            "`qwen2.attention.head_count_kv` is 2, wanted a divisor of the 7 heads",
        ),
        row(
            "heads of 15",
            set(Qwen3, "qwen3.attention.key_length", 15),
            "`qwen3.attention.value_length` is 16, wanted 15",
        ),
        row(
            "heads of nothing",
            set(Qwen3, "qwen3.attention.key_length", 0),
            "`qwen3.attention.key_length` is 0, wanted 1 to",
        ),
        row(
            "values of another length",
            set(Gemma3, "gemma3.attention.value_length", 32),
            "`gemma3.attention.value_length` is 32, wanted 16",
        ),
        row(
            "a RoPE base of NaN",
            set(Gemma3, "gemma3.rope.freq_base", f32::NAN.to_bits()),
            "`gemma3.rope.freq_base` is NaN, wanted a positive number",
        ),
        row(
            "an eps of infinity",
            set(
                Qwen2,
                "qwen2.attention.layer_norm_rms_epsilon",
                f32::INFINITY.to_bits(),
            ),
            "`qwen2.attention.layer_norm_rms_epsilon` is inf",
        ),
        row(
            "2^31 layers",
            set(Qwen3, "qwen3.block_count", 1 << 31),
            "`qwen3.block_count` is 2147483648",
        ),
    ]
}

/// What the plan cannot express.
fn unsupported() -> Vec<Row> {
    let set = |key: &str, value: Value| {
        let mut file = builder::llama(SMALL, Q4_1);
        file.set(key, value);
        file.bytes()
    };
    let float = |key, value| (key, Value::F32(value), value.to_string());
    let keys = [
        ("llama.expert_count", Value::U32(8), "8".to_owned()),
        float("llama.attn_logit_softcapping", 50.0),
        float("llama.final_logit_softcapping", 30.0),
        float("llama.attention.clamp_kqv", 8.0),
        float("llama.attention.max_alibi_bias", 8.0),
        float("llama.attention.scale", 0.125),
        float("llama.embedding_scale", 12.0),
        float("llama.residual_scale", 0.5),
        float("llama.logit_scale", f32::NAN),
        (
            "llama.attention.sliding_window",
            Value::U32(4096),
            "4096".to_owned(),
        ),
    ];
    let mut rows: Vec<Row> = keys
        .into_iter()
        .map(|(key, value, shown)| {
            let wanted = format!("metadata key `{key}` is {shown}, wanted 0 or none: ");
            ("not in the plan", set(key, value), wanted)
        })
        .collect();
    let row = |what, bytes, wanted: &str| (what, bytes, wanted.to_owned());
    rows.extend([
        row(
            "an encoder",
            set("llama.attention.causal", Value::Bool(false)),
            "`llama.attention.causal` is false",
        ),
        row(
            "soft-capping by a text",
            set("llama.attn_logit_softcapping", Value::Text("x".to_owned())),
            "`llama.attn_logit_softcapping` is a string, wanted a number",
        ),
        row(
            "YaRN",
            set("llama.rope.scaling.type", Value::Text("yarn".to_owned())),
            "`llama.rope.scaling.type` is yarn, wanted none or linear",
        ),
        row(
            "linear scaling by 0",
            set("llama.rope.scaling.factor", Value::F32(0.0)),
            "`llama.rope.scaling.factor` is 0, wanted a positive number",
        ),
    ]);
    for (what, factors, wanted) in [
        (
            "too few divisors",
            vec![1.0; 7],
            "has the shape [7], wanted [8]",
        ),
        (
            "a divisor of 0",
            vec![0.0; 8],
            "`rope_freqs.weight[0]` is 0",
        ),
        (
            "a divisor below 0",
            vec![-2.0; 8],
            "`rope_freqs.weight[0]` is -2",
        ),
        (
            "a divisor of NaN",
            vec![f32::NAN; 8],
            "`rope_freqs.weight` has a value that is not finite",
        ),
    ] {
        rows.push(row(what, with_divisors(&factors).bytes(), wanted));
    }
    rows
}

/// A Llama file with Llama 3's scaling of RoPE.
fn with_divisors(factors: &[f32]) -> File {
    let mut file = builder::llama(SMALL, Q4_1);
    file.tensors.push(Tensor {
        name: "rope_freqs.weight".to_owned(),
        dimensions: vec![factors.len() as u64],
        format: F32,
        data: factors.iter().flat_map(|it| it.to_le_bytes()).collect(),
        offset: None,
    });
    file
}

#[test]
fn broken_plans_are_refused_by_name() {
    for architecture in RandomArchitecture::ALL {
        let whole = random(architecture, |_| {});
        assert_eq!(message(whole, Engine::Exact), "loaded", "{architecture:?}");
    }
    let all = tensors().into_iter().chain(numbers()).chain(unsupported());
    for (what, bytes, wanted) in all {
        for engine in [Engine::Exact, Engine::Oracle] {
            let found = message(bytes.clone(), engine);
            assert!(
                found.contains(&wanted),
                "{what}: {found:?} lacks {wanted:?}"
            );
        }
    }
}

#[test]
fn a_scale_of_nan_or_infinity_is_refused_in_every_type() {
    const NAN16: [u8; 2] = [1, 0xfe];
    const INFINITY16: [u8; 2] = [0, 0x7c];
    // Where scales of a block stand, and how NaN and infinity are written there.
    type Places = Vec<(usize, Vec<u8>)>;
    let half = |at: &[usize]| -> Places {
        at.iter()
            .flat_map(|at| [(*at, NAN16.to_vec()), (*at, INFINITY16.to_vec())])
            .collect()
    };
    let plain = |bytes: usize| -> Places {
        [f32::NAN, f32::NEG_INFINITY]
            .map(|value| (0, value.to_le_bytes()[4 - bytes..].to_vec()))
            .to_vec()
    };
    let table: [(Format, Places); 11] = [
        (Q4_0, half(&[0])),
        (Q4_1, half(&[0, 2])),
        (Q5_0, half(&[0])),
        (Q5_1, half(&[0, 2])),
        (Q8_0, half(&[0])),
        (Q4_K, half(&[0, 2])),
        (Q5_K, half(&[0, 2])),
        (Q6_K, half(&[208])),
        (F16, half(&[0])),
        (BF16, plain(2)),
        (F32, plain(4)),
    ];
    for (format, places) in table {
        let file = builder::llama(WIDE, format);
        let row_bytes = WIDE.embedding / format.1 * format.2;
        for (at, bytes) in places {
            let mut file = file.clone();
            // The last block of row 3.
            let block = 4 * row_bytes - format.2;
            let data = &mut file.tensor("blk.1.ffn_up.weight").data;
            data[block + at..][..bytes.len()].copy_from_slice(&bytes);
            assert_eq!(
                message(file.bytes(), Engine::Exact),
                "tensor `blk.1.ffn_up.weight` has a value that is not finite in row 3",
                "{format:?} {at} {bytes:x?}"
            );
        }
    }
}

#[test]
fn the_exact_engine_names_sizes_that_it_has_no_kernels_for() {
    let sizes = |embedding, feed_forward, heads| Sizes {
        embedding,
        feed_forward,
        heads,
        kv_heads: heads,
        layers: 1,
    };
    let table = [
        (sizes(48, 96, 1), "the embedding length is 48"),
        (sizes(64, 80, 4), "the feed-forward length is 80"),
        (sizes(96, 96, 4), "the size of a head is 24"),
        (sizes(512, 32, 1), "the size of a head is 512"),
    ];
    for (sizes, wanted) in table {
        let file = builder::llama(sizes, F32);
        // The embedding of `builder` is Q8_0, which has no rows of 48.
        let mut file = file;
        if sizes.embedding % 32 != 0 {
            let embedding = file.tensor("token_embd.weight");
            embedding.format = F32;
            let rows = usize::try_from(embedding.dimensions[1]).unwrap();
            embedding.data = vec![0; sizes.embedding * rows * 4];
        }
        let found = message(file.bytes(), Engine::Exact);
        assert!(found.contains(wanted), "{found:?} lacks {wanted:?}");
        assert_eq!(message(file.bytes(), Engine::Oracle), "loaded", "{wanted}");
    }
}
