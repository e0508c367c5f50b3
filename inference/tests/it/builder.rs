//! Writes small GGUF files: whole models with random weights, and files with one thing wrong.

use std::sync::Arc;

use tussah_inference::{
    CancelToken, Gguf, LoadOptions, Model, ModelError, Sampling, Session, SessionOptions,
};

/// A metadata value.
#[derive(Clone)]
pub(crate) enum Value {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    /// Type code and bytes, for what no real file has.
    Raw(u32, Vec<u8>),
}

/// A tensor's type code, block length and block size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format(pub(crate) u32, pub(crate) usize, pub(crate) usize);

pub(crate) const F32: Format = Format(0, 1, 4);
pub(crate) const F16: Format = Format(1, 1, 2);
pub(crate) const Q4_0: Format = Format(2, 32, 18);
pub(crate) const Q4_1: Format = Format(3, 32, 20);
pub(crate) const Q5_0: Format = Format(6, 32, 22);
pub(crate) const Q5_1: Format = Format(7, 32, 24);
pub(crate) const Q8_0: Format = Format(8, 32, 34);
pub(crate) const Q4_K: Format = Format(12, 256, 144);
pub(crate) const Q5_K: Format = Format(13, 256, 176);
pub(crate) const Q6_K: Format = Format(14, 256, 210);
pub(crate) const BF16: Format = Format(30, 1, 2);

#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dimensions: Vec<u64>,
    pub(crate) format: Format,
    pub(crate) data: Vec<u8>,
    /// Where it says it begins; `None` after the one before.
    pub(crate) offset: Option<u64>,
}

/// A file to be.
#[derive(Clone, Default)]
pub(crate) struct File {
    pub(crate) metadata: Vec<(String, Value)>,
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) tensor_count: Option<u64>,
    pub(crate) key_count: Option<u64>,
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

impl File {
    pub(crate) fn set(&mut self, key: &str, value: Value) -> &mut Self {
        match self.metadata.iter_mut().find(|(have, _)| have == key) {
            Some((_, old)) => *old = value,
            None => self.metadata.push((key.to_owned(), value)),
        }
        self
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.metadata.retain(|(have, _)| have != key);
    }

    pub(crate) fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors
            .iter_mut()
            .find(|tensor| tensor.name == name)
            .unwrap()
    }

    fn metadata_bytes(&self, out: &mut Vec<u8>) {
        for (key, value) in &self.metadata {
            text(out, key);
            let (code, bytes) = match value {
                Value::U32(number) => (4, number.to_le_bytes().to_vec()),
                Value::F32(number) => (6, number.to_le_bytes().to_vec()),
                Value::Bool(flag) => (7, vec![u8::from(*flag)]),
                Value::Raw(code, bytes) => (*code, bytes.clone()),
                Value::Text(value) => {
                    let mut bytes = Vec::new();
                    text(&mut bytes, value);
                    (8, bytes)
                }
                Value::Texts(texts) => {
                    let mut bytes = 8u32.to_le_bytes().to_vec();
                    bytes.extend((texts.len() as u64).to_le_bytes());
                    texts.iter().for_each(|value| text(&mut bytes, value));
                    (9, bytes)
                }
                Value::I32s(numbers) => {
                    let mut bytes = 5u32.to_le_bytes().to_vec();
                    bytes.extend((numbers.len() as u64).to_le_bytes());
                    bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
                    (9, bytes)
                }
                Value::F32s(numbers) => {
                    let mut bytes = 6u32.to_le_bytes().to_vec();
                    bytes.extend((numbers.len() as u64).to_le_bytes());
                    bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
                    (9, bytes)
                }
            };
            out.extend(u32::to_le_bytes(code));
            out.extend(bytes);
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend(
            self.tensor_count
                .unwrap_or(self.tensors.len() as u64)
                .to_le_bytes(),
        );
        out.extend(
            self.key_count
                .unwrap_or(self.metadata.len() as u64)
                .to_le_bytes(),
        );
        self.metadata_bytes(&mut out);
        let mut data = Vec::new();
        for tensor in &self.tensors {
            text(&mut out, &tensor.name);
            out.extend(
                u32::try_from(tensor.dimensions.len())
                    .unwrap()
                    .to_le_bytes(),
            );
            out.extend(tensor.dimensions.iter().flat_map(|size| size.to_le_bytes()));
            out.extend(tensor.format.0.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(&tensor.data);
            data.resize(data.len().next_multiple_of(32), 0);
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(data);
        out
    }

    pub(crate) fn load(&self, options: &LoadOptions) -> Result<Model, ModelError> {
        Model::from_gguf(Gguf::from_bytes(self.bytes())?, options, &mut |_| {})
    }
}

/// The generator of the document's vectors.
pub(crate) struct Numbers(pub(crate) u32);

impl Numbers {
    pub(crate) fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }
}

/// Random blocks whose values have a magnitude of about 0.1.
pub(crate) fn random(format: Format, elements: usize, numbers: &mut Numbers) -> Vec<u8> {
    let blocks = elements / format.1;
    if format == F32 {
        let float = |n: u32| (n >> 8) as f32 / 8_388_608.0 - 1.0;
        return (0..elements)
            .flat_map(|_| (float(numbers.next()) * 0.2).to_le_bytes())
            .collect();
    }
    let mut bytes: Vec<u8> = (0..blocks * format.2).map(|_| numbers.byte()).collect();
    for block in bytes.chunks_exact_mut(format.2) {
        // The high byte of each f16: exponents from 2^-9 on, sign as it came.
        let (scales, exponent): (&[usize], u8) = match format {
            F16 => (&[0], 0x28),
            BF16 => (&[0], 0x3c),
            Q4_1 | Q5_1 => (&[0, 2], 0x1c),
            Q4_K | Q5_K => (&[0, 2], 0x08),
            Q8_0 => (&[0], 0x10),
            Q6_K => (&[208], 0x08),
            _ => (&[0], 0x1c),
        };
        for at in scales {
            block[at + 1] = (block[at + 1] & 0x83) | exponent;
        }
    }
    bytes
}

/// Sizes of a small model.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) embedding: usize,
    pub(crate) feed_forward: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) layers: usize,
}

pub(crate) const SMALL: Sizes = Sizes {
    embedding: 64,
    feed_forward: 96,
    heads: 4,
    kv_heads: 2,
    layers: 2,
};
/// For formats with blocks of 256.
pub(crate) const WIDE: Sizes = Sizes {
    embedding: 256,
    feed_forward: 512,
    heads: 8,
    kv_heads: 2,
    layers: 2,
};

fn byte_characters() -> Vec<String> {
    let mut next = 0x100;
    let printable = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let letter = |byte: u32| {
        let code = if printable(byte) {
            byte
        } else {
            next += 1;
            next - 1
        };
        char::from_u32(code).unwrap().to_string()
    };
    (0..256).map(letter).collect()
}

/// Vocabulary: 256 bytes, some merges, `<|end|>` and `<|turn|>`, and `<user>` as a user-defined token.
fn vocabulary(file: &mut File) -> usize {
    let mut tokens = byte_characters();
    let merges = [
        "h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "l d", "Ġwor ld",
    ];
    tokens.extend(merges.iter().map(|merge| merge.replace(' ', "")));
    let mut types = vec![1; tokens.len()];
    tokens.extend(["<|end|>", "<|turn|>", "<user>"].map(str::to_owned));
    types.extend([3, 3, 4]);
    let count = tokens.len();
    let end = u32::try_from(count - 3).unwrap();
    file.set("tokenizer.ggml.model", Value::Text("gpt2".to_owned()))
        .set("tokenizer.ggml.pre", Value::Text("smollm".to_owned()))
        .set("tokenizer.ggml.tokens", Value::Texts(tokens))
        .set("tokenizer.ggml.token_type", Value::I32s(types))
        .set(
            "tokenizer.ggml.merges",
            Value::Texts(merges.map(str::to_owned).to_vec()),
        )
        .set("tokenizer.ggml.eos_token_id", Value::U32(end))
        .set("tokenizer.ggml.bos_token_id", Value::U32(end + 1));
    count
}

/// A whole Llama model with random weights: matrices in `format`, the embedding and tied head in Q8_0.
pub(crate) fn llama(sizes: Sizes, format: Format) -> File {
    let mut file = File::default();
    let Sizes {
        embedding,
        feed_forward,
        heads,
        kv_heads,
        layers,
    } = sizes;
    let number = |size: usize| Value::U32(u32::try_from(size).unwrap());
    file.set("general.architecture", Value::Text("llama".to_owned()))
        .set("llama.block_count", number(layers))
        .set("llama.context_length", Value::U32(512))
        .set("llama.embedding_length", number(embedding))
        .set("llama.feed_forward_length", number(feed_forward))
        .set("llama.attention.head_count", number(heads))
        .set("llama.attention.head_count_kv", number(kv_heads))
        .set("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5))
        .set("llama.rope.freq_base", Value::F32(10_000.0));
    let vocabulary = vocabulary(&mut file);
    let mut numbers = Numbers(format.0);
    let mut push = |name: String, dimensions: &[usize], format: Format| {
        let elements = dimensions.iter().product();
        let mut data = random(format, elements, &mut numbers);
        if name.contains("norm") {
            data = (0..elements)
                .flat_map(|i| (0.9 + 0.01 * (i % 20) as f32).to_le_bytes())
                .collect();
        }
        let dimensions = dimensions.iter().map(|size| *size as u64).collect();
        file.tensors.push(Tensor {
            name,
            dimensions,
            format,
            data,
            offset: None,
        });
    };
    push(
        "token_embd.weight".to_owned(),
        &[embedding, vocabulary],
        Q8_0,
    );
    push("output_norm.weight".to_owned(), &[embedding], F32);
    let (queries, keys) = (embedding, embedding / heads * kv_heads);
    for layer in 0..layers {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        push(name("attn_norm"), &[embedding], F32);
        push(name("attn_q"), &[embedding, queries], format);
        push(name("attn_k"), &[embedding, keys], format);
        push(name("attn_v"), &[embedding, keys], format);
        push(name("attn_output"), &[queries, embedding], format);
        push(name("ffn_norm"), &[embedding], F32);
        push(name("ffn_gate"), &[embedding, feed_forward], format);
        push(name("ffn_up"), &[embedding, feed_forward], format);
        push(name("ffn_down"), &[feed_forward, embedding], format);
    }
    file
}

/// Adds tokens that no text has, up to so many in all, with random rows of the embedding.
pub(crate) fn widen(file: &mut File, tokens: usize) {
    for (key, value) in &mut file.metadata {
        match (key.as_str(), value) {
            ("tokenizer.ggml.tokens", Value::Texts(texts)) => {
                let more = (texts.len()..tokens).map(|token| format!("<unused {token}>"));
                texts.extend(more.collect::<Vec<_>>());
            }
            ("tokenizer.ggml.token_type", Value::I32s(types)) => types.resize(tokens, 5),
            _ => {}
        }
    }
    let mut numbers = Numbers(3);
    let embedding = file.tensor("token_embd.weight");
    embedding.dimensions[1] = tokens as u64;
    let length = usize::try_from(embedding.dimensions[0]).unwrap();
    embedding.data = random(embedding.format, length * tokens, &mut numbers);
}

/// A small model that runs on this thread alone.
pub(crate) fn small_model() -> Arc<Model> {
    let options = LoadOptions {
        threads: 1,
        ..LoadOptions::default()
    };
    Arc::new(llama(SMALL, Q4_1).load(&options).unwrap())
}

pub(crate) fn session(model: &Arc<Model>, context: u32, sampling: Sampling) -> Session {
    let options = SessionOptions {
        context_tokens_max: context,
        sampling,
        seed: [7; 32],
        cancel: CancelToken::new(),
    };
    Session::open(model, options).unwrap()
}
