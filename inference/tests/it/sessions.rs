//! Sessions: limits, cancellation, forks, usage, sampling.

use std::sync::Arc;

use expect_test::{Expect, expect};
use tussah_inference::{
    CancelToken, FinishReason, Sampling, Session, SessionError, SessionOptions, StopStrings,
    TextStream, TokenId,
};

use crate::builder::{session, small_model};

fn tokens(count: u32) -> Vec<TokenId> {
    (0..count).map(|i| TokenId(97 + i % 20)).collect()
}

#[track_caller]
fn check<T>(result: Result<T, SessionError>, expected: &Expect) {
    expected.assert_eq(
        &result
            .map(|_| "fine".to_owned())
            .unwrap_or_else(|error| error.to_string()),
    );
}

#[test]
fn a_context_has_its_edges() {
    let model = small_model();
    let open = |context_tokens_max| {
        let cancel = CancelToken::new();
        let options = SessionOptions {
            context_tokens_max,
            sampling: Sampling::default(),
            seed: [0; 32],
            cancel,
        };
        Session::open(&model, options)
    };
    check(
        open(0),
        &expect!["a context of 0 tokens was asked for, this model allows 1 to 512"],
    );
    check(open(1), &expect!["fine"]);
    check(open(512), &expect!["fine"]);
    check(
        open(513),
        &expect!["a context of 513 tokens was asked for, this model allows 1 to 512"],
    );
    let mut session = open(10).unwrap();
    check(
        session.next(),
        &expect!["the session is empty: append a prompt first"],
    );
    check(session.append(&[]), &expect!["fine"]);
    check(
        session.append(&tokens(11)),
        &expect!["context is full: 0 of 10 tokens are used, 11 more were asked for"],
    );
    check(session.append(&tokens(9)), &expect!["fine"]);
    session.accept(TokenId(97)).unwrap();
    check(session.candidates(1), &expect!["fine"]);
    check(
        session.next(),
        &expect!["context is full: 10 of 10 tokens are used, 1 more were asked for"],
    );
    check(
        session.accept(TokenId(97)),
        &expect!["context is full: 10 of 10 tokens are used, 1 more were asked for"],
    );
}

#[test]
fn ids_outside_the_vocabulary_are_refused_before_anything_runs() {
    let model = small_model();
    let mut session = session(&model, 10, Sampling::default());
    check(
        session.append(&[TokenId(1), TokenId(9999)]),
        &expect!["token 9999 is outside the vocabulary of 268"],
    );
    check(
        session.accept(TokenId(268)),
        &expect!["token 268 is outside the vocabulary of 268"],
    );
    assert_eq!(session.position(), 0);
    assert_eq!(session.usage().inference_units, 0);
}

#[test]
fn a_cancelled_session_stops() {
    let model = small_model();
    let cancel = CancelToken::new();
    let options = SessionOptions {
        context_tokens_max: 400,
        sampling: Sampling::default(),
        seed: [0; 32],
        cancel: cancel.clone(),
    };
    let mut session = Session::open(&model, options).unwrap();
    session.append(&tokens(3)).unwrap();
    cancel.cancel();
    check(session.next(), &expect!["cancelled"]);
    check(session.append(&tokens(3)), &expect!["cancelled"]);
}

#[test]
fn equal_seeds_give_equal_texts_and_forks_go_their_own_ways() {
    let model = small_model();
    let sampling = Sampling {
        temperature: 1.0,
        ..Sampling::default()
    };
    let mut first = session(&model, 60, sampling);
    let mut second = session(&model, 60, sampling);
    first.append(&tokens(8)).unwrap();
    second.append(&tokens(8)).unwrap();
    let take = |session: &mut Session, count: usize| -> Vec<Option<TokenId>> {
        (0..count).map(|_| session.next().unwrap()).collect()
    };
    assert_eq!(take(&mut first, 5), take(&mut second, 5));
    let mut fork = first.fork().unwrap();
    assert_eq!(take(&mut fork, 5), take(&mut second, 5));
    assert_eq!(take(&mut first, 5).len(), 5);
    fork.append(&tokens(2)).unwrap();
    let (fork_usage, usage) = (fork.usage(), first.usage());
    assert_eq!(fork_usage.prompt_tokens, usage.prompt_tokens + 2);
    assert_ne!(fork.logits().unwrap(), first.logits().unwrap());
}

#[test]
fn usage_follows_the_stated_formula() {
    let model = small_model();
    let mut session = session(&model, 40, Sampling::default());
    // SMALL: per layer q and o 64x64, k and v 32x64, gate, up and down 64x96; two layers; head 268x64.
    let matrices = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 96);
    let attention = |position: u64| 2 * 2 * 64 * (position + 1);
    let head = 268 * 64;
    session.append(&tokens(3)).unwrap();
    let mut wanted = 3 * matrices + (0..3).map(attention).sum::<u64>() + head;
    assert_eq!(session.usage().inference_units, wanted);
    session.accept(TokenId(5)).unwrap();
    assert_eq!(
        session.usage().inference_units,
        wanted,
        "an accepted token runs when it is needed"
    );
    session.candidates(3).unwrap();
    wanted += matrices + attention(3) + head;
    let usage = session.usage();
    assert_eq!(
        (
            usage.prompt_tokens,
            usage.generated_tokens,
            usage.inference_units
        ),
        (3, 1, wanted)
    );
}

#[test]
fn the_cost_of_an_append_is_known_before_it_runs() {
    let model = small_model();
    // None, one, a batch of the engine less one, exactly, and one more; then with a token accepted before.
    for count in [0, 1, 5, 127, 128, 129, 300] {
        let mut session = session(&model, 512, Sampling::default());
        let append = |session: &mut Session, count: u32| {
            let (before, cost) = (
                session.usage().inference_units,
                session.inference_units_for(count as usize),
            );
            session.append(&tokens(count)).unwrap();
            assert_eq!(session.usage().inference_units - before, cost, "{count}");
        };
        append(&mut session, count);
        session.accept(TokenId(97)).unwrap();
        append(&mut session, count.min(200));
    }
    let mut session = session(&model, 40, Sampling::default());
    session.append(&tokens(7)).unwrap();
    assert_eq!(session.inference_units_of_next(), 0, "its logits are there");
    session.next().unwrap();
    let (before, next) = (
        session.usage().inference_units,
        session.inference_units_of_next(),
    );
    session.candidates(1).unwrap();
    assert_eq!(session.usage().inference_units - before, next);
    assert!(next > 0);
    // What no context holds is a number all the same.
    assert_eq!(session.inference_units_for(usize::MAX), u64::MAX);
}

#[test]
fn scored_tokens_have_the_logits_of_each_position() {
    let model = small_model();
    let text = tokens(300);
    let mut one_by_one = session(&model, 400, Sampling::default());
    let mut wanted = Vec::new();
    for token in &text {
        one_by_one.append(&[*token]).unwrap();
        wanted.extend_from_slice(one_by_one.logits().unwrap());
    }
    // More than a batch, after a token that was accepted and not run.
    let mut scored = session(&model, 400, Sampling::default());
    assert!(scored.append_scored(&[]).unwrap().is_empty());
    scored.append(&text[..2]).unwrap();
    scored.accept(text[2]).unwrap();
    let found = scored.append_scored(&text[3..]).unwrap();
    let vocabulary = model.info().vocabulary_size as usize;
    assert!(found == wanted[3 * vocabulary..]);
    assert!(scored.logits().unwrap() == one_by_one.logits().unwrap());
    // The logits of the first token and of the third were not computed.
    let mut more = session(&model, 400, Sampling::default());
    more.append(&text[..1]).unwrap();
    let of_one = more.usage().inference_units;
    let rest = one_by_one.usage().inference_units - scored.usage().inference_units;
    assert!(rest > 0 && rest < 2 * of_one, "{rest} of {of_one}");
    check(
        scored.append_scored(&tokens(101)),
        &expect!["context is full: 300 of 400 tokens are used, 101 more were asked for"],
    );
}

#[test]
fn candidates_are_in_order_and_the_best_is_the_greedy_choice() {
    let model = small_model();
    let mut session = session(&model, 40, Sampling::default());
    session.append(&tokens(4)).unwrap();
    let logits = session.logits().unwrap().to_vec();
    let all = session.candidates(usize::MAX).unwrap();
    assert_eq!(all.len(), 268);
    assert!(
        all.is_sorted_by(|a, b| a.logit > b.logit || (a.logit == b.logit && a.token < b.token))
    );
    assert!(
        all.iter()
            .all(|it| logits[it.token.0 as usize].to_bits() == it.logit.to_bits())
    );
    assert_eq!(session.candidates(5).unwrap(), all[..5]);
    assert!(session.candidates(0).unwrap().is_empty());
    assert_eq!(session.next().unwrap(), Some(all[0].token));
}

#[test]
fn a_stream_ends_at_its_limit_or_at_a_full_context() {
    let model = small_model();
    for (context, max_tokens, made) in [(40, 5, 5), (8, 100, 4), (40, 0, 0)] {
        let mut session = session(&model, context, Sampling::default());
        session.append(&tokens(4)).unwrap();
        let mut stream = TextStream::new(StopStrings::none(), max_tokens);
        let mut found = 0;
        while let Some(chunk) = stream.next(&mut session).unwrap() {
            found += chunk.tokens.len();
        }
        assert_eq!(
            (found, stream.finish_reason()),
            (made, Some(FinishReason::Length))
        );
        assert_eq!(stream.next(&mut session).unwrap(), None);
    }
}

#[test]
fn memory_is_known_before_it_is_taken() {
    let model = small_model();
    let small = Session::memory_bytes_for(&model, 16);
    let large = Session::memory_bytes_for(&model, 512);
    assert!(small < large);
    assert_eq!(
        session(&model, 512, Sampling::default()).memory_bytes(),
        large
    );
    // 2 layers, 2 heads of 16: keys and values of 2 bytes and two exponents of 4 for each position.
    let cache = |positions: u64| 2 * 2 * positions * (16 * 4 + 8);
    assert!(large - small >= cache(512) - cache(32));
}

#[test]
fn sampling_parameters_have_ranges() {
    let fine = Sampling::default();
    let table = [
        (
            Sampling {
                temperature: f32::NAN,
                ..fine
            },
            "temperature",
        ),
        (
            Sampling {
                temperature: -1.0,
                ..fine
            },
            "temperature",
        ),
        (
            Sampling {
                temperature: 1e-9,
                ..fine
            },
            "temperature",
        ),
        (
            Sampling {
                temperature: f32::INFINITY,
                ..fine
            },
            "temperature",
        ),
        (Sampling { top_p: 0.0, ..fine }, "top-p"),
        (
            Sampling {
                top_p: 1.01,
                ..fine
            },
            "top-p",
        ),
        (
            Sampling {
                top_p: f32::NAN,
                ..fine
            },
            "top-p",
        ),
        (
            Sampling {
                min_p: -0.1,
                ..fine
            },
            "min-p",
        ),
        (Sampling { min_p: 1.5, ..fine }, "min-p"),
        (
            Sampling {
                repetition_penalty: 0.0,
                ..fine
            },
            "repetition penalty",
        ),
        (
            Sampling {
                repetition_penalty: -1.0,
                ..fine
            },
            "repetition penalty",
        ),
        (
            Sampling {
                repetition_penalty: f32::NAN,
                ..fine
            },
            "repetition penalty",
        ),
    ];
    for (sampling, parameter) in table {
        assert_eq!(
            sampling.check().unwrap_err().parameter,
            parameter,
            "{sampling:?}"
        );
    }
    for fine in [
        fine,
        Sampling {
            temperature: 100.0,
            top_k: u32::MAX,
            top_p: 0.001,
            min_p: 1.0,
            repetition_penalty: 100.0,
        },
        Sampling {
            temperature: 0.001,
            top_k: 1,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 0.001,
        },
    ] {
        fine.check().unwrap();
        let model = small_model();
        let mut session = session(&model, 20, fine);
        session.append(&tokens(4)).unwrap();
        session.next().unwrap();
    }
}

#[test]
fn two_sessions_run_at_once_on_one_model() {
    let options = tussah_inference::LoadOptions {
        threads: 2,
        ..Default::default()
    };
    let file = crate::builder::llama(crate::builder::SMALL, crate::builder::Q4_1);
    let model = Arc::new(file.load(&options).unwrap());
    let run = || {
        let mut session = session(
            &model,
            60,
            Sampling {
                temperature: 0.9,
                ..Sampling::default()
            },
        );
        session.append(&tokens(9)).unwrap();
        (0..40).map(|_| session.next().unwrap()).collect::<Vec<_>>()
    };
    let alone = run();
    std::thread::scope(|scope| {
        let others: Vec<_> = (0..3).map(|_| scope.spawn(run)).collect();
        for other in others {
            assert_eq!(other.join().unwrap(), alone);
        }
    });
}
