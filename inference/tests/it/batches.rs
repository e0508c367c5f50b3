//! Sessions that share steps: nobody can tell from what a session gives or counts, whoever else is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tussah_inference::{
    CancelToken, LoadOptions, Model, Sampling, Scope, Session, SessionError, SessionOptions,
    SimdLevel, TokenId, Usage,
};

use crate::builder::{Q4_1, SMALL, llama, session};

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % bound
    }

    fn tokens(&mut self, count: u64) -> Vec<TokenId> {
        (0..count)
            .map(|_| TokenId(u32::try_from(self.below(268)).unwrap()))
            .collect()
    }
}

/// What a session has given so far, to the bit.
#[derive(Debug, Default, PartialEq, Eq)]
struct Account {
    bits: Vec<u32>,
    usage: Vec<Usage>,
}

impl Account {
    fn note(&mut self, session: &mut Session) {
        let logits = session.logits().unwrap();
        self.bits.extend(logits.iter().map(|logit| logit.to_bits()));
        self.usage.push(session.usage());
    }
}

const SAMPLING: Sampling = Sampling {
    temperature: 1.0,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    repetition_penalty: 1.0,
};

/// A session that appends, generates, scores and forks as its seed has it.
fn script(model: &Arc<Model>, seed: u64) -> Account {
    let mut numbers = Numbers(seed);
    let mut account = Account::default();
    let mut current = session(model, 500, SAMPLING);
    let prompt = numbers.below(170) + 1;
    current.append(&numbers.tokens(prompt)).unwrap();
    account.note(&mut current);
    for _ in 0..6 {
        match numbers.below(4) {
            0 => {
                let count = numbers.below(40) + 1;
                current.append(&numbers.tokens(count)).unwrap();
            }
            1 => {
                let count = numbers.below(5) + 1;
                let scored = current.append_scored(&numbers.tokens(count)).unwrap();
                account
                    .bits
                    .extend(scored.iter().map(|logit| logit.to_bits()));
            }
            2 => {
                let mut fork = current.fork().unwrap();
                current.append(&numbers.tokens(3)).unwrap();
                account.note(&mut current);
                fork.append(&numbers.tokens(2)).unwrap();
                current = fork;
            }
            _ => {
                for _ in 0..numbers.below(9) {
                    let token = TokenId(u32::try_from(numbers.below(268)).unwrap());
                    current.accept(token).unwrap();
                    account.note(&mut current);
                }
            }
        }
        account.note(&mut current);
    }
    account
}

/// A session that is cancelled while it reads a prompt or generates.
fn cancelled(model: &Arc<Model>, seed: u64) {
    let mut numbers = Numbers(seed);
    let cancel = CancelToken::new();
    let options = SessionOptions {
        context_tokens_max: 512,
        sampling: SAMPLING,
        seed: [0; 32],
        cancel: cancel.clone(),
    };
    let mut session = Session::open(model, options).unwrap();
    let prompt = numbers.tokens(200);
    std::thread::scope(|scope| {
        let runs = scope.spawn(move || -> Result<(), SessionError> {
            session.append(&prompt)?;
            loop {
                session.accept(TokenId(1))?;
                session.logits()?;
            }
        });
        for _ in 0..numbers.below(200) {
            std::thread::yield_now();
        }
        cancel.cancel();
        assert!(matches!(
            runs.join().unwrap(),
            Err(SessionError::Cancelled | SessionError::ContextFull { .. })
        ));
    });
}

fn loaded(simd: SimdLevel, threads: usize) -> Option<Arc<Model>> {
    let options = LoadOptions {
        threads,
        simd,
        ..LoadOptions::default()
    };
    match llama(SMALL, Q4_1).load(&options) {
        Ok(model) => Some(Arc::new(model)),
        Err(error) => {
            println!("not on this CPU: {error}");
            None
        }
    }
}

#[test]
fn what_a_session_gives_does_not_depend_on_who_shares_its_steps() {
    let seeds = 1..13u64;
    let mut of_first = None;
    for simd in SimdLevel::available() {
        let Some(model) = loaded(simd, 2) else {
            continue;
        };
        let alone: Vec<_> = seeds.clone().map(|seed| script(&model, seed)).collect();
        std::thread::scope(|scope| {
            let run = |seed| {
                let model = &model;
                scope.spawn(move || script(model, seed))
            };
            let together: Vec<_> = seeds.clone().map(run).collect();
            let leaving: Vec<_> = (0..4)
                .map(|seed| {
                    let model = &model;
                    scope.spawn(move || cancelled(model, seed))
                })
                .collect();
            for (found, alone) in together.into_iter().zip(&alone) {
                assert!(found.join().unwrap() == *alone, "{simd:?}");
            }
            for one in leaving {
                one.join().unwrap();
            }
        });
        let first = of_first.get_or_insert(alone);
        assert!(
            *first
                == seeds
                    .clone()
                    .map(|seed| script(&model, seed))
                    .collect::<Vec<_>>()
        );
    }
}

#[test]
fn who_generates_goes_on_while_a_long_prompt_is_read() {
    let mut file = llama(SMALL, Q4_1);
    file.set("llama.context_length", crate::builder::Value::U32(8192));
    let options = LoadOptions {
        threads: 2,
        ..LoadOptions::default()
    };
    let model = Arc::new(file.load(&options).unwrap());
    let prompt = Numbers(5).tokens(4096);
    let (reading, made) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut reader = session(&model, 4200, SAMPLING);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut generating = session(&model, 8000, SAMPLING);
            generating.append(&[TokenId(3)]).unwrap();
            reading.store(true, Ordering::SeqCst);
            while reading.load(Ordering::SeqCst) {
                generating.accept(TokenId(4)).unwrap();
                generating.logits().unwrap();
                made.fetch_add(1, Ordering::SeqCst);
            }
        });
        while made.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        let before = made.load(Ordering::SeqCst);
        reader.append(&prompt).unwrap();
        let during = made.load(Ordering::SeqCst) - before;
        reading.store(false, Ordering::SeqCst);
        // A piece has 128 tokens at most, so there were 32 steps; in how many the other had asked in time
        // depends on the machine.
        assert!(
            during >= 16,
            "{during} tokens while a prompt of 4096 was read"
        );
    });
}

#[test]
fn equal_beginnings_are_shared_within_a_scope_and_nobody_can_tell() {
    let model = loaded(SimdLevel::Auto, 2).unwrap();
    let beginning = Numbers(9).tokens(150);
    let scope = Scope::new();
    let options = || SessionOptions {
        context_tokens_max: 400,
        sampling: SAMPLING,
        seed: [0; 32],
        cancel: CancelToken::new(),
    };
    // The whole beginning at once, and after it what is a session's own; then a fork.
    let account = |mut session: Session, seed: u64| {
        let mut numbers = Numbers(seed);
        let mut account = Account::default();
        let mut prompt = beginning.clone();
        prompt.extend(numbers.tokens(20));
        session.append(&prompt).unwrap();
        account.note(&mut session);
        let mut fork = session.fork().unwrap();
        for session in [&mut session, &mut fork] {
            session.append(&numbers.tokens(40)).unwrap();
            account.note(session);
        }
        (account, session.shared_tokens())
    };
    let alone = |seed| account(Session::open(&model, options()).unwrap(), seed);
    let shared = |seed| account(Session::open_in(&model, options(), &scope).unwrap(), seed);
    let (first, of_first) = shared(1);
    assert!(first == alone(1).0);
    assert_eq!((of_first, alone(1).1), (0, 0));
    // Of 150 tokens four pages are full, and of the very same prompt five; a fork's are its own.
    for (seed, tokens) in [(2, 128), (1, 160), (2, 160)] {
        let (found, of_found) = shared(seed);
        assert!(found == alone(seed).0, "{seed}");
        assert_eq!(of_found, tokens, "{seed}");
    }
    // Others see nothing of it, even at the same time.
    let other = Session::open_in(&model, options(), &Scope::new()).unwrap();
    assert_eq!(account(other, 1).1, 0);
    std::thread::scope(|scope| {
        let run = |seed| scope.spawn(move || (seed, shared(seed).0));
        for together in (1..9).map(run).collect::<Vec<_>>() {
            let (seed, found) = together.join().unwrap();
            assert!(found == alone(seed).0, "{seed}");
        }
    });
}
