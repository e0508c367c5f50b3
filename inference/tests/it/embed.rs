//! Texts to vectors: MiniLM beside sentence-transformers, and what embedding refuses.

use std::sync::Arc;
use std::time::Instant;

use serde::Deserialize;
use tussah_inference::{
    AddBos, CancelToken, EmbedError, EncodeOptions, Engine, Model, OverLong, Sampling, Session,
    SessionOptions, SimdLevel,
};

use crate::{builder, fixture, goldens};

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    vector: Vec<f64>,
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("../goldens/minilm.json")).unwrap()
}

fn edges() -> Vec<Case> {
    serde_json::from_str(include_str!("../goldens/minilm-edges.json")).unwrap()
}

fn embed(model: &Model, texts: &[&str]) -> Vec<Vec<f32>> {
    let embeddings = model.embed(texts, OverLong::Cut, &CancelToken::new());
    embeddings.unwrap().vectors
}

fn cosine_distance(a: &[f32], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let a: Vec<f64> = a.iter().map(|value| f64::from(*value)).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    1.0 - dot(&a, b) / (dot(&a, &a) * dot(b, b)).sqrt()
}

#[test]
fn minilm_has_the_token_ids_of_the_reference() {
    let Some(model) = fixture::minilm(Engine::Oracle, SimdLevel::Auto, 1) else {
        return;
    };
    let options = EncodeOptions {
        add_bos: AddBos::ByMetadata,
        parse_special: false,
    };
    for case in cases().iter().chain(&edges()) {
        let mut tokens = model.tokenizer().encode(&case.text, options).unwrap();
        if tokens.len() > 256 {
            let last = tokens.pop();
            tokens.truncate(255);
            tokens.extend(last);
        }
        assert_eq!(tokens, goldens::ids(&case.ids), "{:?}", case.text);
    }
}

#[test]
fn minilm_vectors_are_those_of_the_reference() {
    let Some(exact) = fixture::minilm(Engine::Exact, SimdLevel::Auto, 0) else {
        return;
    };
    let Some(oracle) = fixture::minilm(Engine::Oracle, SimdLevel::Auto, 0) else {
        return;
    };
    let cases: Vec<Case> = cases().into_iter().chain(edges()).collect();
    let texts: Vec<&str> = cases.iter().map(|case| case.text.as_str()).collect();
    let vectors = embed(&exact, &texts);
    let (mut worst, mut length) = (0f64, 0f64);
    for (index, (case, vector)) in cases.iter().zip(&vectors).enumerate() {
        let distance = cosine_distance(vector, &case.vector);
        assert!(distance < 1e-6, "{:?}: {distance:e}", case.text);
        worst = worst.max(distance);
        let squares: f64 = vector.iter().map(|value| f64::from(*value).powi(2)).sum();
        length = length.max((squares.sqrt() - 1.0).abs());
        // The oracle is slow: some texts will do.
        if index % 4 == 0 && case.ids.len() < 100 {
            let plain = embed(&oracle, &[case.text.as_str()]);
            assert!(
                cosine_distance(&plain[0], &case.vector) < 1e-9,
                "{:?}",
                case.text
            );
        }
    }
    println!("largest cosine distance {worst:e}, length off by {length:e}");
    assert!(length < 1e-6);
}

#[test]
fn a_vector_depends_on_its_text_alone() {
    let cases: Vec<Case> = cases().into_iter().chain(edges()).collect();
    // Every fourth: the scalar kernels take seconds a text, nine times over.
    let texts = cases.iter().step_by(4).map(|case| case.text.as_str());
    let texts: Vec<&str> = texts.collect();
    let mut first: Option<Vec<Vec<u32>>> = None;
    for simd in SimdLevel::available() {
        for threads in [1, 2, 3] {
            let Some(model) = fixture::minilm(Engine::Exact, simd, threads) else {
                return;
            };
            let bits = |vectors: Vec<Vec<f32>>| -> Vec<Vec<u32>> {
                let bits = |vector: Vec<f32>| vector.into_iter().map(f32::to_bits).collect();
                vectors.into_iter().map(bits).collect()
            };
            let together = bits(embed(&model, &texts));
            let reversed: Vec<&str> = texts.iter().rev().copied().collect();
            let mut backwards = bits(embed(&model, &reversed));
            backwards.reverse();
            let first = first.get_or_insert_with(|| {
                texts
                    .iter()
                    .flat_map(|text| bits(embed(&model, &[text])))
                    .collect()
            });
            assert!(*first == together, "{} {threads}", simd.name());
            assert!(*first == backwards, "{} {threads}", simd.name());
        }
    }
}

#[test]
fn embedding_is_counted_and_limited() {
    let Some(model) = fixture::minilm(Engine::Exact, SimdLevel::Auto, 0) else {
        return;
    };
    let info = model.info();
    assert_eq!(
        (info.architecture.as_str(), info.embeddings),
        ("bert", Some(384))
    );
    assert_eq!(info.context_tokens_max, 256);
    let cancel = CancelToken::new();
    let nothing = model.embed(&[], OverLong::Refuse, &cancel).unwrap();
    assert_eq!(
        (
            nothing.vectors.len(),
            nothing.tokens,
            nothing.inference_units
        ),
        (0, 0, 0)
    );
    // Two tokens: all matrices twice, and 2 · layers · length · n².
    let empty = model.embed(&[""], OverLong::Refuse, &cancel).unwrap();
    let matrices = 6 * (4 * 384 * 384 + 2 * 384 * 1536);
    assert_eq!(empty.tokens, 2);
    assert_eq!(empty.inference_units, 2 * matrices + 2 * 6 * 384 * 4);
    assert_eq!(
        model.embed_units(&[""], OverLong::Refuse).unwrap(),
        empty.inference_units
    );
    // One token of a text each, and two around it: 254 fit, 255 do not.
    let fits = "a ".repeat(254);
    assert_eq!(
        model
            .embed(&[&fits], OverLong::Refuse, &cancel)
            .unwrap()
            .tokens,
        256
    );
    let long = "a ".repeat(255);
    let error = model
        .embed(&["", &long], OverLong::Refuse, &cancel)
        .unwrap_err();
    let wanted = "text 1 has 257 tokens, the model takes 256: cut it, or ask for it to be cut";
    assert_eq!(error.to_string(), wanted);
    assert!(matches!(
        model.embed_units(&["", &long], OverLong::Refuse),
        Err(EmbedError::TooLong { index: 1, .. })
    ));
    assert_eq!(embed(&model, &[&long]), embed(&model, &[&fits]));
    let many = vec![""; 1025];
    let error = model.embed(&many, OverLong::Cut, &cancel).unwrap_err();
    assert_eq!(
        error.to_string(),
        "1025 texts in one call, at most 1024 are allowed"
    );
    assert_eq!(embed(&model, &many[..1024]).len(), 1024);
    cancel.cancel();
    let stopped = model.embed(&["x"], OverLong::Cut, &cancel);
    assert!(matches!(stopped, Err(EmbedError::Cancelled)));
    assert!(model.embed_memory_bytes(1) > 1 << 20);
    let options = SessionOptions {
        context_tokens_max: 16,
        sampling: Sampling::default(),
        seed: [0; 32],
        cancel: CancelToken::new(),
    };
    let error = Session::open(&Arc::new(model), options).unwrap_err();
    let wanted = "a model of architecture `bert` generates no text, it only embeds";
    assert_eq!(error.to_string(), wanted);
}

#[test]
fn embedding_is_fast() {
    let Some(model) = fixture::minilm(Engine::Exact, SimdLevel::Auto, 0) else {
        return;
    };
    let text = cases()[0].text.clone();
    let texts = vec![text.as_str(); 64];
    let start = Instant::now();
    let embeddings = model
        .embed(&texts, OverLong::Cut, &CancelToken::new())
        .unwrap();
    let rate = |count: u64| count as f64 / start.elapsed().as_secs_f64();
    let engine = &model.info().engine;
    let (texts, tokens) = (rate(64), rate(embeddings.tokens));
    println!("{texts:.0} texts/s, {tokens:.0} tokens/s on {engine}");
}

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
