//! Memory of sessions: who gets it, who is told that there is none, and when it comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tussah_inference::{
    BackendError, CancelToken, ContextMemory, LoadOptions, Model, Sampling, Scope, Session,
    SessionError, SessionOptions, TokenId,
};

use crate::builder::{Q4_1, SMALL, llama};
use crate::fixture::{self, Real};

fn options(context_tokens_max: u32) -> SessionOptions {
    SessionOptions {
        context_tokens_max,
        sampling: Sampling::default(),
        seed: [0; 32],
        cancel: CancelToken::new(),
    }
}

/// A small model, and what a page of 32 positions takes of its memory.
fn model(pages: u64) -> (Arc<Model>, ContextMemory, u64) {
    let load = |context_memory: &ContextMemory| {
        let options = LoadOptions {
            threads: 1,
            context_memory: context_memory.clone(),
            ..LoadOptions::default()
        };
        Arc::new(llama(SMALL, Q4_1).load(&options).unwrap())
    };
    let ample = ContextMemory::of(1 << 30);
    let page = {
        let model = load(&ample);
        let _one = Session::open(&model, options(32)).unwrap();
        ample.taken_bytes()
    };
    assert_eq!(ample.taken_bytes(), 0, "its model is gone");
    let memory = ContextMemory::of(pages * page);
    (load(&memory), memory, page)
}

fn tokens(count: u32) -> Vec<TokenId> {
    (0..count).map(|at| TokenId((at * 31 + 7) % 256)).collect()
}

/// The logits after a prompt, and how much of it others had computed.
fn read(session: &mut Session, prompt: &[TokenId]) -> (Vec<u32>, u32) {
    session.append(prompt).unwrap();
    let logits = session.logits().unwrap().iter();
    (
        logits.map(|it| it.to_bits()).collect(),
        session.shared_tokens(),
    )
}

#[test]
fn a_session_that_has_no_room_is_told_so_and_gets_it_once_others_are_gone() {
    let Some(path) = fixture::path(Real::SmolLm2) else {
        return;
    };
    // A page of this model takes 760,320 bytes.
    let memory = ContextMemory::of(80 * 760_320);
    let load = LoadOptions {
        threads: 2,
        context_memory: memory.clone(),
        ..LoadOptions::default()
    };
    let model = Arc::new(Model::open(&path, &load, &mut |_| {}).unwrap());
    let open = |context| Session::open(&model, options(context));
    let no_room = |context| match open(context).unwrap_err() {
        SessionError::Backend(error @ BackendError::NoRoom { .. }) => error.to_string(),
        other => panic!("{other}"),
    };
    let whole = no_room(8192);
    assert!(whole.contains("no room for another sequence"), "{whole}");
    let mut first = open(1024).unwrap();
    let second = open(1024).unwrap();
    no_room(1024);
    // Whoever was let in has all that was promised.
    read(&mut first, &tokens(1024));
    drop(second);
    let third = open(1024).unwrap();
    assert!(memory.taken_bytes() <= 80 * 760_320);
    drop((first, third));
    assert_eq!(memory.taken_bytes(), 0);
}

#[test]
fn what_was_kept_for_a_scope_makes_room_for_others() {
    let (model, memory, page) = model(10);
    let scope = Scope::new();
    let prompt = tokens(160);
    let mut alone = Session::open(&model, options(192)).unwrap();
    let (wanted, _) = read(&mut alone, &prompt);
    drop(alone);
    for shared in [0, 128] {
        let mut session = Session::open_in(&model, options(192), &scope).unwrap();
        assert_eq!(read(&mut session, &prompt), (wanted.clone(), shared));
    }
    assert!(memory.taken_bytes() >= 5 * page, "its pages are kept");
    // Not for one that could not have it even so.
    let more = Session::open(&model, options(11 * 32));
    assert!(more.is_err());
    let mut session = Session::open_in(&model, options(192), &scope).unwrap();
    assert_eq!(read(&mut session, &prompt), (wanted.clone(), 128));
    drop(session);
    let other = Session::open(&model, options(8 * 32)).unwrap();
    drop(other);
    let mut session = Session::open_in(&model, options(192), &scope).unwrap();
    let (found, shared) = read(&mut session, &prompt);
    assert!(found == wanted && shared < 128, "{shared}");
}

#[test]
fn a_scopes_memory_comes_back_with_its_end() {
    let (model, memory, _) = model(100);
    let scope = Scope::new();
    let mut session = Session::open_in(&model, options(200), &scope).unwrap();
    session.append(&tokens(150)).unwrap();
    drop(session);
    assert!(memory.taken_bytes() > 0, "kept for the scope");
    drop(scope);
    assert_eq!(memory.taken_bytes(), 0);
    // A session outlives its scope's other clones, and takes what is left with it.
    let scope = Scope::new();
    let mut session = Session::open_in(&model, options(200), &scope).unwrap();
    drop(scope);
    session.append(&tokens(150)).unwrap();
    let fork = session.fork().unwrap();
    drop(session);
    assert!(memory.taken_bytes() > 0);
    drop(fork);
    assert_eq!(memory.taken_bytes(), 0);
}

#[test]
fn models_share_their_memory_for_sessions() {
    let (one, memory, page) = model(10);
    let load = LoadOptions {
        threads: 1,
        context_memory: memory.clone(),
        ..LoadOptions::default()
    };
    let other = Arc::new(llama(SMALL, Q4_1).load(&load).unwrap());
    let first = Session::open(&one, options(6 * 32)).unwrap();
    assert!(Session::open(&other, options(6 * 32)).is_err());
    drop(first);
    let second = Session::open(&other, options(6 * 32)).unwrap();
    assert!(memory.taken_bytes() >= 6 * page);
    drop((second, other));
    assert_eq!(memory.taken_bytes(), 0);
}

#[test]
fn those_who_open_and_fork_without_end_keep_nobody_from_generating() {
    let (model, _, _) = model(10_000);
    let over = AtomicBool::new(false);
    let mut session = Session::open(&model, options(300)).unwrap();
    session.append(&tokens(9)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let opened = Session::open(&model, options(64)).unwrap();
                    drop(opened.fork().unwrap());
                }
            });
        }
        for _ in 0..200 {
            session.next().unwrap();
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(session.usage().prompt_tokens, 9);
}
