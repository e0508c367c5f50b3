//! Small encoders with random weights, and folders with one thing odd or wrong.

use std::collections::BTreeMap;

use tussah_inference::archive::{Archive, write_folder};
use tussah_inference::{CancelToken, Engine, LoadOptions, Model, ModelError, OverLong, SimdLevel};

use crate::builder::Numbers;

const LINES: [&str; 12] = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "##b", "##ab", "!", "e", "中", "ab",
];

/// A folder to be: hidden size 32, 2 heads, 2 layers, 8 positions.
#[derive(Clone)]
struct Folder {
    files: BTreeMap<&'static str, String>,
    /// Name, type, shape, bytes.
    tensors: Vec<(String, &'static str, Vec<usize>, Vec<u8>)>,
    /// Stands for the whole of `model.safetensors`.
    weights: Option<Vec<u8>>,
}

impl Folder {
    fn small() -> Self {
        let config = r#"{"model_type": "bert", "hidden_act": "gelu", "hidden_size": 32, "intermediate_size": 64,
            "layer_norm_eps": 1e-12, "max_position_embeddings": 8, "num_attention_heads": 2,
            "num_hidden_layers": 2, "type_vocab_size": 2, "vocab_size": 12, "architectures": ["BertModel"]}"#;
        let files = BTreeMap::from([
            ("config.json", config.to_owned()),
            ("vocab.txt", LINES.join("\n") + "\n"),
        ]);
        let mut numbers = Numbers(5);
        let mut tensors = Vec::new();
        let mut push = |name: String, shape: &[usize]| {
            let mut value = |_| (numbers.next() >> 8) as f32 / 8_388_608.0 - 1.0;
            let count = shape.iter().product();
            let bytes = (0..count).flat_map(|at: usize| value(at).to_le_bytes());
            tensors.push((name, "F32", shape.to_vec(), bytes.collect()));
        };
        for (part, rows) in [("word", 12), ("position", 8), ("token_type", 2)] {
            push(format!("embeddings.{part}_embeddings.weight"), &[rows, 32]);
        }
        push("embeddings.LayerNorm.weight".to_owned(), &[32]);
        push("embeddings.LayerNorm.bias".to_owned(), &[32]);
        for layer in 0..2 {
            for (part, rows, columns) in [
                ("attention.self.query", 32, 32),
                ("attention.self.key", 32, 32),
                ("attention.self.value", 32, 32),
                ("attention.output.dense", 32, 32),
                ("intermediate.dense", 64, 32),
                ("output.dense", 32, 64),
            ] {
                push(
                    format!("encoder.layer.{layer}.{part}.weight"),
                    &[rows, columns],
                );
                push(format!("encoder.layer.{layer}.{part}.bias"), &[rows]);
            }
            for part in ["attention.output.LayerNorm", "output.LayerNorm"] {
                push(format!("encoder.layer.{layer}.{part}.weight"), &[32]);
                push(format!("encoder.layer.{layer}.{part}.bias"), &[32]);
            }
        }
        Self {
            files,
            tensors,
            weights: None,
        }
    }

    fn tensor(&mut self, name: &str) -> &mut (String, &'static str, Vec<usize>, Vec<u8>) {
        self.tensors.iter_mut().find(|it| it.0 == name).unwrap()
    }

    fn config(&mut self, from: &str, to: &str) {
        let config = self.files.get_mut("config.json").unwrap();
        assert!(config.contains(from), "{from}");
        *config = config.replace(from, to);
    }

    fn safetensors(&self) -> Vec<u8> {
        let (mut header, mut data) = (Vec::new(), Vec::new());
        for (name, dtype, shape, bytes) in &self.tensors {
            let (from, to) = (data.len(), data.len() + bytes.len());
            header.push(format!(
                r#""{name}": {{"dtype": "{dtype}", "shape": {shape:?}, "data_offsets": [{from}, {to}]}}"#
            ));
            data.extend(bytes);
        }
        safetensors(&format!("{{{}}}", header.join(", ")), &data)
    }

    fn archive(&self) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
        for (name, text) in &self.files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let weights = self.weights.clone().unwrap_or_else(|| self.safetensors());
        std::fs::write(folder.path().join("model.safetensors"), weights).unwrap();
        let mut bytes = Vec::new();
        write_folder(folder.path(), &mut bytes).unwrap();
        bytes
    }

    fn load(&self, engine: Engine) -> Result<Model, ModelError> {
        let options = LoadOptions {
            engine,
            threads: 1,
            ..LoadOptions::default()
        };
        let archive = Archive::from_bytes(self.archive())?;
        Model::from_archive(archive, &options, &mut |_| {})
    }
}

fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let length = header.len() as u64;
    [&length.to_le_bytes(), header.as_bytes(), data].concat()
}

fn embed(model: &Model, text: &str) -> Vec<f32> {
    let embeddings = model.embed(&[text], OverLong::Cut, &CancelToken::new());
    embeddings.unwrap().vectors.remove(0)
}

fn texts(model: &Model, text: &str) -> Vec<String> {
    let options = tussah_inference::EncodeOptions {
        add_bos: tussah_inference::AddBos::Never,
        parse_special: false,
    };
    let tokenizer = model.tokenizer();
    let tokens = tokenizer.encode(text, options).unwrap();
    let text = |token| String::from_utf8_lossy(tokenizer.token_bytes(token)).into_owned();
    tokens.into_iter().map(text).collect()
}

/// The chain of an error's messages.
fn chain(error: &dyn std::error::Error) -> String {
    let source = error
        .source()
        .map_or(String::new(), |it| format!(": {}", chain(it)));
    format!("{error}{source}")
}

#[test]
fn words_become_the_longest_pieces() {
    let model = Folder::small().load(Engine::Exact).unwrap();
    let table: [(&str, &[&str]); 14] = [
        ("", &[]),
        (" \t\n", &[]),
        ("a", &["a"]),
        ("ab", &["ab"]),
        ("abb", &["ab", "##b"]),
        ("aab", &["a", "##ab"]),
        // One character without a piece makes the whole word unknown.
        ("abz", &["[UNK]"]),
        ("A!b", &["a", "!", "b"]),
        ("é", &["e"]),
        ("e\u{301}", &["e"]),
        // Marks alone are nothing, an unknown letter is unknown.
        ("\u{301}\u{301}", &[]),
        ("a中a", &["a", "中", "a"]),
        ("\0\u{fffd}\u{200b}a", &["a"]),
        ("[SEP]", &["[UNK]", "[UNK]", "[UNK]"]),
    ];
    for (text, wanted) in table {
        assert_eq!(texts(&model, text), wanted, "{text:?}");
    }
    assert_eq!(texts(&model, &"b".repeat(100)).len(), 100);
    assert_eq!(texts(&model, &"b".repeat(101)), ["[UNK]"]);
}

#[test]
fn casing_goes_by_the_configuration() {
    let mut folder = Folder::small();
    let options = r#"{"do_lower_case": false, "tokenize_chinese_chars": false, "sep_token": {"content": "[SEP]", "lstrip": false}}"#;
    folder
        .files
        .insert("tokenizer_config.json", options.to_owned());
    let model = folder.load(Engine::Exact).unwrap();
    assert_eq!(texts(&model, "A é a中"), ["[UNK]", "[UNK]", "[UNK]"]);
    let model = Folder::small().load(Engine::Exact).unwrap();
    assert_eq!(texts(&model, "A é a中"), ["a", "e", "a", "中"]);
}

#[test]
fn the_exact_engine_follows_the_oracle() {
    let mut first = Folder::small();
    let pooling = r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#;
    first
        .files
        .insert("1_Pooling/config.json", pooling.to_owned());
    for folder in [Folder::small(), first] {
        let [exact, oracle] = [Engine::Exact, Engine::Oracle].map(|it| folder.load(it).unwrap());
        for text in ["", "a", "ab!b 中 e", "b b b b b b b b b"] {
            let (exact, oracle) = (embed(&exact, text), embed(&oracle, text));
            let cosine: f32 = exact.iter().zip(&oracle).map(|(a, b)| a * b).sum();
            assert!((cosine - 1.0).abs() < 1e-5, "{text:?}: {cosine}");
        }
    }
}

#[test]
fn vectors_are_those_of_the_document() {
    let document = include_str!("../../../docs/exact-arithmetic.md");
    let lines = document
        .lines()
        .skip_while(|line| *line != "encoder: tokens -> vector bits")
        .skip(1);
    let lines: Vec<_> = lines.map_while(|line| line.split_once(" -> ")).collect();
    assert_eq!(lines.len(), 4);
    let mut table = Vec::new();
    for (tokens, wanted) in lines {
        // The words between `[CLS]` and `[SEP]`, which are tokens 2 and 3.
        let tokens = tokens.strip_prefix("[2, ").unwrap().strip_suffix("3]");
        let words = tokens.unwrap().split_terminator(", ");
        let word = |token: &str| LINES[token.parse::<usize>().unwrap()];
        let text: Vec<&str> = words.map(word).collect();
        let bits = wanted.split(' ').map(|it| u32::from_str_radix(it, 16));
        table.push((text.join(" "), bits.collect::<Result<Vec<_>, _>>().unwrap()));
    }
    let folder = Folder::small();
    for simd in SimdLevel::available() {
        let options = LoadOptions {
            simd,
            ..LoadOptions::default()
        };
        let archive = Archive::from_bytes(folder.archive()).unwrap();
        let model = Model::from_archive(archive, &options, &mut |_| {}).unwrap();
        let texts: Vec<&str> = table.iter().map(|(text, _)| text.as_str()).collect();
        // All in one batch, and each alone.
        let all = model.embed(&texts, OverLong::Cut, &CancelToken::new());
        for ((text, wanted), found) in table.iter().zip(all.unwrap().vectors) {
            let bits = |vector: Vec<f32>| vector.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            assert_eq!(bits(found), *wanted, "{text:?} {simd:?}");
            assert_eq!(bits(embed(&model, text)), *wanted, "{text:?} {simd:?}");
        }
    }
}

#[test]
fn weights_may_be_halves_and_belong_to_a_larger_model() {
    let plain = Folder::small();
    let mut other = plain.clone();
    for (name, dtype, _, bytes) in &mut other.tensors {
        *name = format!("bert.{name}");
        *dtype = "BF16";
        *bytes = bytes
            .chunks_exact(4)
            .flat_map(|it| [it[2], it[3]])
            .collect();
    }
    let unused = |name: &str| (name.to_owned(), "I64", vec![1, 1], vec![0; 8]);
    other.tensors.push(unused("bert.embeddings.position_ids"));
    other.tensors.push(unused("cls.predictions.bias"));
    let (plain, other) = (
        plain.load(Engine::Exact).unwrap(),
        other.load(Engine::Exact).unwrap(),
    );
    assert_eq!(other.info().quantization, "BF16");
    let (a, b) = (embed(&plain, "ab e!"), embed(&other, "ab e!"));
    let cosine: f32 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
    assert!(cosine > 0.999, "{cosine}");
}

#[test]
fn broken_folders_are_refused_by_name() {
    type Change = fn(&mut Folder);
    let table: [(Change, &str); 30] = [
        (
            |it| it.config("\"bert\"", "\"gpt2\""),
            "architecture `gpt2` is not supported",
        ),
        (
            |it| it.config("\"gelu\"", "\"relu\""),
            "`hidden_act` is `relu`",
        ),
        (
            |it| it.config("\"vocab_size\": 12", "\"vocab_size\": 11"),
            "`vocab.txt` has 12 lines",
        ),
        (
            |it| it.config("\"vocab_size\": 12", "\"vocab_size\": 13"),
            "wanted [32, 13]",
        ),
        (
            |it| it.config("\"hidden_size\": 32", "\"hidden_size\": 64"),
            "wanted [64, 12]",
        ),
        (
            |it| it.config("\"hidden_size\": 32", "\"hidden_size\": 33"),
            "does not make 2 heads",
        ),
        (
            |it| it.config("\"hidden_size\": 32", "\"hidden_size\": 0"),
            "`hidden_size` is 0",
        ),
        (
            |it| it.config("_layers\": 2", "_layers\": 3"),
            "has no tensor `encoder.layer.2",
        ),
        (
            |it| it.config("_layers\": 2", "_layers\": 1"),
            "`encoder.layer.1",
        ),
        (
            |it| it.config("_layers\": 2", "_layers\": 4000000000"),
            "`num_hidden_layers` is 4000000000",
        ),
        (
            |it| it.config("_heads\": 2", "_heads\": 4"),
            "the size of a head is 8",
        ),
        (|it| it.config("1e-12", "-1"), "`layer_norm_eps`"),
        (
            |it| {
                it.config(
                    "\"vocab_size\": 12",
                    "\"vocab_size\": 12, \"vocab_size\": 12",
                )
            },
            "duplicate field",
        ),
        (
            |it| it.config("\"vocab_size\"", "\"is_decoder\": true, \"vocab_size\""),
            "`is_decoder`",
        ),
        (|it| it.config("}", ""), "config.json: EOF"),
        (
            |it| {
                it.config(
                    "\"vocab_size\"",
                    "\"position_embedding_type\": \"relative_key\", \"vocab_size\"",
                )
            },
            "`relative_key`",
        ),
        (
            |it| drop(it.files.insert("vocab.txt", LINES[2..].join("\n"))),
            "the special token `[UNK]` is missing",
        ),
        (
            |it| {
                drop(
                    it.files
                        .insert("vocab.txt", "[UNK]\n[CLS]\n[SEP]\na\na".to_owned()),
                )
            },
            "`a` in line 5 is there twice",
        ),
        (
            |it| drop(it.files.insert("vocab.txt", String::new())),
            "0 tokens",
        ),
        (
            |it| {
                drop(it.files.insert(
                    "sentence_bert_config.json",
                    "{\"max_seq_length\": 9}".to_owned(),
                ))
            },
            "`max_seq_length` is 9, wanted 2 to 8",
        ),
        (
            |it| {
                drop(it.files.insert(
                    "sentence_bert_config.json",
                    "{\"max_seq_length\": 1}".to_owned(),
                ))
            },
            "`max_seq_length` is 1",
        ),
        (
            |it| {
                drop(it.files.insert(
                    "modules.json",
                    "[{\"type\": \"sentence_transformers.models.Dense\"}]".to_owned(),
                ))
            },
            "models.Dense` is not supported",
        ),
        (
            |it| {
                drop(it.files.insert(
                    "1_Pooling/config.json",
                    "{\"pooling_mode_max_tokens\": true}".to_owned(),
                ))
            },
            "only the mean",
        ),
        (
            |it| {
                drop(it.files.insert(
                    "1_Pooling/config.json",
                    "{\"word_embedding_dimension\": 31}".to_owned(),
                ))
            },
            "`word_embedding_dimension` is 31",
        ),
        (
            |it| {
                it.tensor("encoder.layer.1.output.dense.weight").3[64 * 4 * 3..][..4]
                    .copy_from_slice(&f32::NAN.to_le_bytes())
            },
            "not finite in row 3",
        ),
        (
            |it| {
                it.tensor("embeddings.LayerNorm.bias").3[..4]
                    .copy_from_slice(&f32::INFINITY.to_le_bytes())
            },
            "not finite",
        ),
        (
            |it| it.tensor("embeddings.LayerNorm.bias").1 = "I32",
            "is I32, wanted F32, F16 or BF16",
        ),
        (
            |it| it.tensor("embeddings.LayerNorm.bias").1 = "F4",
            "the type `F4` is unknown",
        ),
        (
            |it| it.tensor("embeddings.LayerNorm.bias").0 = "surprise".to_owned(),
            "has no tensor `embeddings.LayerNorm.bias`",
        ),
        (
            |it| {
                it.tensors
                    .push(("surprise".to_owned(), "F32", vec![1], vec![0; 4]))
            },
            "tensor `surprise` is no part",
        ),
    ];
    for (change, wanted) in table {
        let mut folder = Folder::small();
        change(&mut folder);
        let error = chain(&folder.load(Engine::Exact).unwrap_err());
        assert!(error.contains(wanted), "{error}\nwanted {wanted}");
    }
}

#[test]
fn broken_safetensors_are_refused_by_name() {
    let tensor = |from: u64, to: u64| {
        format!(r#"{{"dtype": "F32", "shape": [1], "data_offsets": [{from}, {to}]}}"#)
    };
    let header = |entries: &[(&str, String)]| {
        let entries = entries.iter().map(|(name, it)| format!("\"{name}\": {it}"));
        format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
    };
    let good = tensor(0, 4);
    let bomb = |length: u64| [length.to_le_bytes().as_slice(), b"{}"].concat();
    let table: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "empty",
            Vec::new(),
            "the header is said to take 0 bytes of a file of 0",
        ),
        ("half a length", vec![1; 7], "of a file of 7"),
        (
            "a header of 2^64 - 1",
            bomb(u64::MAX),
            "18446744073709551615 bytes",
        ),
        ("a header of 100 MB", bomb(100_000_000), "100000000 bytes"),
        ("a header one byte too long", bomb(3), "take 3 bytes"),
        ("no JSON", safetensors("x", b""), "the header is not right"),
        ("a list", safetensors("[]", b""), "a map of tensors"),
        (
            "a million brackets",
            safetensors(&"[".repeat(1 << 20), b""),
            "the header is not right",
        ),
        (
            "a deep value",
            safetensors(&format!("{{\"a\": {}", "[".repeat(100_000)), b""),
            "the header is not right",
        ),
        (
            "a name twice",
            safetensors(
                &header(&[("a", good.clone()), ("a", tensor(4, 8))]),
                &[0; 8],
            ),
            "`a` is there twice",
        ),
        (
            "an overlap",
            safetensors(
                &header(&[("a", good.clone()), ("b", tensor(2, 6))]),
                &[0; 8],
            ),
            "wanted 4 on",
        ),
        (
            "a gap",
            safetensors(
                &header(&[("a", good.clone()), ("b", tensor(8, 12))]),
                &[0; 12],
            ),
            "wanted 4 on",
        ),
        (
            "the same place",
            safetensors(
                &header(&[("a", good.clone()), ("b", good.clone())]),
                &[0; 4],
            ),
            "wanted 4 on",
        ),
        (
            "more than there is",
            safetensors(&header(&[("a", good.clone())]), &[0; 3]),
            "ends at 4 of 3 bytes",
        ),
        (
            "less than there is",
            safetensors(&header(&[("a", good.clone())]), &[0; 5]),
            "1 bytes lie behind",
        ),
        (
            "backwards",
            safetensors(&header(&[("a", tensor(4, 0))]), &[0; 4]),
            "lies at 4 to 0",
        ),
        (
            "a shape too large",
            safetensors(
                &header(&[("a", good.replace("[1]", "[4294967296, 4294967296]"))]),
                &[0; 4],
            ),
            "`a`",
        ),
        (
            "a negative shape",
            safetensors(&header(&[("a", good.replace("[1]", "[-1]"))]), &[0; 4]),
            "the header is not right",
        ),
        (
            "nine dimensions",
            safetensors(
                &header(&[("a", good.replace("[1]", "[1,1,1,1,1,1,1,1,1]"))]),
                &[0; 4],
            ),
            "more than 8",
        ),
        (
            "an unknown field",
            safetensors(
                &header(&[("a", good.replace("\"shape\"", "\"x\": 1, \"shape\""))]),
                &[0; 4],
            ),
            "unknown field",
        ),
        ("nothing", safetensors("{}", b""), "has no tensor"),
        (
            "metadata alone",
            safetensors("{\"__metadata__\": {\"format\": \"pt\"}}", b""),
            "has no tensor",
        ),
    ];
    for (what, weights, wanted) in table {
        let mut folder = Folder::small();
        folder.weights = Some(weights);
        let error = chain(&folder.load(Engine::Exact).unwrap_err());
        assert!(error.contains(wanted), "{what}: {error}");
    }
}

#[test]
fn no_cut_of_an_archive_makes_it_panic() {
    let whole = Folder::small().archive();
    for length in (0..whole.len()).step_by(97) {
        assert!(
            Archive::from_bytes(whole[..length].to_vec()).is_err(),
            "{length}"
        );
    }
}

#[test]
fn a_file_says_by_its_first_bytes_what_it_is() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let options = LoadOptions::default();
    let open = || Model::open(file.path(), &options, &mut |_| {});
    std::fs::write(file.path(), Folder::small().archive()).unwrap();
    assert_eq!(open().unwrap().info().embeddings, Some(32));
    std::fs::write(file.path(), [0; 600]).unwrap();
    assert!(matches!(open(), Err(ModelError::Gguf(_))));
}
