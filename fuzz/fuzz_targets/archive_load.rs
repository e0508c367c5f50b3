//! Any bytes as a model folder archive, and as the weights, the configuration or the vocabulary in an
//! archive that is right otherwise: no panic. What is taken as an archive is spelled the one way it can be.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tussah_inference::archive::{Archive, NAMES, write_folder};
use tussah_inference::{CancelToken, LoadOptions, Model, OverLong};

/// The archive of a folder that has these files.
fn archive(files: &[(&str, &[u8])]) -> Option<Vec<u8>> {
    let folder = std::env::temp_dir().join(format!("tussah-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("1_Pooling")).ok()?;
    for name in NAMES {
        let _ = std::fs::remove_file(folder.join(name));
    }
    for (name, bytes) in files {
        std::fs::write(folder.join(name), bytes).ok()?;
    }
    let mut out = Vec::new();
    write_folder(&folder, &mut out).ok()?;
    Some(out)
}

fn load(bytes: Vec<u8>) {
    let Ok(archive) = Archive::from_bytes(bytes) else {
        return;
    };
    let options = LoadOptions {
        threads: 1,
        ..LoadOptions::default()
    };
    if let Ok(model) = Model::from_archive(archive, &options, &mut |_| {}) {
        let texts = ["", "a é 中 !"];
        let _ = model.embed(&texts, OverLong::Cut, &CancelToken::new());
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((which, rest)) = bytes.split_first() else {
        return;
    };
    const CONFIG: &[u8] = br#"{"model_type": "bert", "hidden_act": "gelu", "hidden_size": 32,
        "intermediate_size": 32, "layer_norm_eps": 1e-12, "max_position_embeddings": 4,
        "num_attention_heads": 2, "num_hidden_layers": 1, "type_vocab_size": 1, "vocab_size": 4}"#;
    const VOCABULARY: &[u8] = b"[UNK]\n[CLS]\n[SEP]\na";
    const WEIGHTS: &[u8] = b"\x02\0\0\0\0\0\0\0{}";
    let (config, weights, vocabulary) = match which % 4 {
        0 => return load(rest.to_vec()),
        1 => (CONFIG, rest, VOCABULARY),
        2 => (rest, WEIGHTS, VOCABULARY),
        _ => (CONFIG, WEIGHTS, rest),
    };
    let files = [
        ("config.json", config),
        ("model.safetensors", weights),
        ("vocab.txt", vocabulary),
    ];
    if let Some(bytes) = archive(&files) {
        load(bytes);
    }
});
