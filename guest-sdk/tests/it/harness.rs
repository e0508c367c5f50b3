//! The scripted host counts and refuses as its rules say, and as the host does.

use std::panic::catch_unwind;

use tussah_sdk::{
    Error, ErrorCode, FinishReason, Json, JsonLines, Message, Model, Output, Session, Stream,
    cosine, emit, job, log,
    nn::{Graph, Tensor},
    progress, rank,
    testing::{HostCall, Scripted},
};

fn open(text: &str) -> Session {
    Model::load("m").unwrap().session().open_text(text).unwrap()
}

#[track_caller]
fn code<T>(result: Result<T, Error>, code: ErrorCode) {
    match result {
        Ok(_) => panic!("it succeeded"),
        Err(error) => assert_eq!(error.code(), code, "{error}"),
    }
}

#[test]
fn what_a_job_does_is_captured() {
    #[job]
    fn run(name: String) -> Result<(), Error> {
        progress(1, 2, "greeting");
        log(format_args!("{} bytes", name.len()));
        let session = Model::load("m")?
            .session()
            .open_chat(&[Message::system("Be kind."), Message::user(&name)])?;
        for chunk in session {
            emit(chunk?.text)?;
        }
        Err(Error::with_code(ErrorCode::Job(7), "out of kindness"))
    }
    let ran = Scripted::model("m").reply("Hello, Ann!").run(run, "Ann");
    assert_eq!(
        ran.result,
        Err(Error::with_code(ErrorCode::Job(7), "out of kindness"))
    );
    let output = ran.output;
    assert_eq!(output.text(), "Hello, Ann!");
    assert_eq!(output.pieces, [5, 1, 4, 1]);
    assert_eq!(output.progress.len(), 1);
    assert_eq!(
        (output.progress[0].done, output.progress[0].note.as_str()),
        (1, "greeting")
    );
    assert_eq!(output.log, ["3 bytes"]);
    assert_eq!(output.prompts, ["system: Be kind.\nuser: Ann\n"]);
}

#[test]
fn inputs_and_outputs_are_typed() {
    fn double(Json(number): Json<u32>) -> Json<u32> {
        Json(number * 2)
    }
    fn lines(text: String) -> JsonLines<std::vec::IntoIter<usize>> {
        JsonLines(text.lines().map(str::len).collect::<Vec<_>>().into_iter())
    }
    fn words(bytes: Vec<u8>) -> Stream<impl Iterator<Item = Result<Vec<u8>, Error>>> {
        Stream(bytes.into_iter().map(|byte| {
            if byte == b'!' {
                Err(Error::new("!"))
            } else {
                Ok(vec![byte])
            }
        }))
    }
    fn write(_: String) -> Result<(), Error> {
        use std::io::Write;
        writeln!(Output, "{} and {}", 1, 2)?;
        Ok(())
    }
    let ran = Scripted::nothing().run(double, "21");
    assert_eq!(ran.output.json::<u32>(), 42);
    let ran = Scripted::nothing().run(double, "-1");
    code(ran.result, ErrorCode::BadInput);
    assert_eq!(
        Scripted::nothing().run(lines, "a\nbcd").output.text(),
        "1\n3\n"
    );
    let ran = Scripted::nothing().run(words, b"ab!c");
    assert_eq!(
        (ran.output.text(), ran.result),
        ("ab", Err(Error::new("!")))
    );
    let ran = Scripted::nothing().run(write, "");
    assert_eq!(
        (ran.output.text(), ran.output.pieces.len()),
        ("1 and 2\n", 1)
    );
    code(
        Scripted::nothing().run(lines, b"\xff").result,
        ErrorCode::BadInput,
    );
    let full = Scripted::nothing().fails(HostCall::Emit, ErrorCode::LimitExceeded, "full");
    code(full.run(write, "").result, ErrorCode::LimitExceeded);
}

#[test]
fn contexts_are_full_at_their_edge() {
    // "one two three" is 3 tokens.
    for (context, appended, reply, reason) in [
        (2, false, "", None),
        (3, true, "", Some(FinishReason::Length)),
        (4, true, "a", Some(FinishReason::Length)),
        (5, true, "a b", Some(FinishReason::Length)),
        (6, true, "a b", Some(FinishReason::EndOfText)),
    ] {
        Scripted::model("m").reply("a b").scope(|| {
            let model = Model::load("m").unwrap();
            let mut session = model.session().context_tokens_max(context).open().unwrap();
            match session.append("one two three") {
                Ok(tokens) => assert_eq!((tokens, appended), (3, true)),
                Err(error) => {
                    assert_eq!((error.code(), appended), (ErrorCode::ContextFull, false));
                    assert_eq!(session.usage().prompt_tokens, 0);
                    return;
                }
            }
            let generated = session.generate_with(|_| Ok(())).unwrap();
            assert_eq!(
                (generated.text.as_str(), Some(generated.finish_reason)),
                (reply, reason),
                "{context}"
            );
        });
    }
}

#[test]
fn generations_end_as_on_the_host() {
    let check =
        |tokens: &[&[u8]], most: u32, stops: &[&str], expected: &[&str], reason: FinishReason| {
            Scripted::model("m").reply_tokens(tokens).scope(|| {
                let model = Model::load("m").unwrap();
                let mut builder = model.session().generated_tokens_max(most);
                for stop in stops {
                    builder = builder.stop(*stop);
                }
                let mut session = builder.open_text("p").unwrap();
                assert_eq!(session.finish_reason(), None);
                let chunks: Vec<String> = (&mut session)
                    .map(|chunk| chunk.unwrap().text)
                    .filter(|text| !text.is_empty())
                    .collect();
                assert_eq!(
                    (chunks.as_slice(), session.finish_reason()),
                    (
                        &expected.iter().map(ToString::to_string).collect::<Vec<_>>()[..],
                        Some(reason)
                    )
                );
                assert!(session.next_chunk().unwrap().is_none());
            });
        };
    check(&[b"a", b"b"], 0, &[], &["a", "b"], FinishReason::EndOfText);
    check(&[b"a", b"b"], 1, &[], &["a"], FinishReason::Length);
    check(&[b"a", b"b"], 2, &[], &["a", "b"], FinishReason::Length);
    check(
        &[b"a E", b"N", b"D b"],
        0,
        &["END"],
        &["a "],
        FinishReason::Stop,
    );
    check(
        &[b"EN", b"x"],
        0,
        &["END"],
        &["ENx"],
        FinishReason::EndOfText,
    );
    check(
        &[b"\xf0\x9f", b"\x98\x80", b"!"],
        0,
        &[],
        &["😀", "!"],
        FinishReason::EndOfText,
    );
    check(
        &[b"x\xf0\x9f"],
        0,
        &[],
        &["x", "\u{fffd}"],
        FinishReason::EndOfText,
    );
}

#[test]
fn options_and_arguments_out_of_range_are_refused() {
    Scripted::model("m").reply("r").scope(|| {
        let model = Model::load("m").unwrap();
        for builder in [
            model.session().temperature(-0.1),
            model.session().temperature(f32::NAN),
            model.session().temperature(100.1),
            model.session().top_p(0.0),
            model.session().min_p(1.1),
            model.session().repetition_penalty(0.0),
            model.session().context_tokens_max(0),
            model.session().context_tokens_max(2049),
            model.session().stop(""),
            model.session().stop("x".repeat(1025)),
            (0..17).fold(model.session(), |builder, at| {
                builder.stop(format!("stop {at}"))
            }),
        ] {
            code(builder.open(), ErrorCode::InvalidArgument);
        }
        let mut empty = model.session().temperature(0.0).top_k(0).open().unwrap();
        code(empty.next_chunk(), ErrorCode::InvalidArgument);
        code(empty.candidates(1), ErrorCode::InvalidArgument);
        let mut session = open("p");
        code(session.candidates(0), ErrorCode::InvalidArgument);
        code(session.candidates(1025), ErrorCode::InvalidArgument);
        assert_eq!(session.candidates(1024).unwrap().len(), 256);
        code(session.accept(60_000), ErrorCode::InvalidArgument);
        code(
            session.append_tokens(&[1, 60_000]),
            ErrorCode::InvalidArgument,
        );
        session.close();
        code(session.append("x"), ErrorCode::InvalidArgument);
        code(session.next_chunk(), ErrorCode::InvalidArgument);
        code(session.fork(), ErrorCode::InvalidArgument);
        code(Model::load("other"), ErrorCode::UnknownModel);
    });
}

#[test]
fn forks_go_their_own_ways() {
    Scripted::model("m")
        .reply("one two")
        .reply("three")
        .scope(|| {
            let mut first = open("p");
            let second = first.fork().unwrap();
            assert_eq!(first.next_chunk().unwrap().unwrap().text, "one");
            let mut third = first.fork().unwrap();
            assert_eq!(third.fork().unwrap().text().unwrap(), " two");
            assert_eq!(third.text().unwrap(), " two");
            assert_eq!(first.text().unwrap(), " two");
            let mut second = second;
            assert_eq!(second.text().unwrap(), "three");
            assert_eq!(second.usage().generated_tokens, 1);
        });
}

#[test]
fn scripted_errors_come_once() {
    let script = Scripted::model("m")
        .reply("r")
        .fails(HostCall::Open, ErrorCode::OutOfMemory, "no memory")
        .without_chat();
    script.scope(|| {
        let model = Model::load("m").unwrap();
        code(model.session().open(), ErrorCode::OutOfMemory);
        let mut session = model.session().open().unwrap();
        code(
            session.append_chat(&[Message::user("x")]),
            ErrorCode::UnsupportedOperation,
        );
        code(model.embed(&["x"]), ErrorCode::UnsupportedOperation);
    });
}

#[test]
fn embeddings_are_ranked() {
    let script = Scripted::model("m")
        .context_tokens_max(3)
        .embedding("cat", &[2.0, 0.0])
        .embedding("dog", &[3.0, 3.0])
        .embeddings_with(2, |_| vec![0.0, 5.0]);
    script.scope(|| {
        let model = Model::load("m").unwrap();
        let all = model.embed(&["cat", "dog", "stone"]).unwrap();
        assert!(
            all.iter()
                .all(|one| (cosine(&one.0, &one.0) - 1.0).abs() < 1e-6)
        );
        let order: Vec<usize> = rank(&all[0], &all[1..])
            .iter()
            .map(|place| place.index)
            .collect();
        assert_eq!(order, [0, 1]);
        code(model.embed(&["a b c d"]), ErrorCode::ContextFull);
        assert_eq!(model.embed_cut(&["a b c d"]).unwrap().len(), 1);
        assert_eq!(model.embed(&vec!["cat"; 1500]).unwrap().len(), 1500);
    });
}

#[test]
fn graphs_compute_from_named_tensors() {
    let script = Scripted::model("m").computes(|inputs| {
        let (name, tensor) = &inputs[0];
        assert_eq!(name, "text");
        Ok(vec![(
            "length".into(),
            Tensor::from_i64(&[], &[i64::try_from(tensor.data().len()).unwrap()])?,
        )])
    });
    script.scope(|| {
        let outputs = Graph::load("m")
            .unwrap()
            .compute([("text", Tensor::text("four"))])
            .unwrap();
        assert_eq!(outputs.get("length").unwrap().to_i64().unwrap(), [4]);
        code(outputs.get("size"), ErrorCode::InvalidArgument);
        code(
            outputs.get("length").unwrap().to_f32(),
            ErrorCode::InvalidArgument,
        );
        code(Graph::load("n"), ErrorCode::UnknownModel);
    });
    for (dimensions, fits) in [
        (&[][..], true),
        (&[1], true),
        (&[0], false),
        (&[2], false),
        (&[u32::MAX, u32::MAX, u32::MAX], false),
    ] {
        assert_eq!(
            Tensor::from_f64(dimensions, &[1.0]).is_ok(),
            fits,
            "{dimensions:?}"
        );
    }
}

#[test]
fn output_over_the_limit_ends_the_job() {
    fn write(_: String) -> Result<(), Error> {
        emit("1234")?;
        emit("567")?;
        emit("8")
    }
    let ran = Scripted::nothing().output_bytes_max(7).run(write, "");
    assert_eq!(ran.output.text(), "1234567");
    let error = ran.result.unwrap_err();
    assert_eq!(error.code(), ErrorCode::LimitExceeded);
    assert_eq!(
        error.message(),
        "the host ended the job: 8 bytes of output, output_bytes_max is 7"
    );
    let ran = Scripted::nothing().output_bytes_max(8).run(write, "");
    assert_eq!(ran.result, Ok(()));
}

#[test]
fn the_nth_call_fails() {
    let script = Scripted::model("m").fails_at(HostCall::Append, 2, ErrorCode::ContextFull, "no");
    let (appended, _) = script.scope(|| {
        let mut session = Model::load("m").unwrap().session().open().unwrap();
        [(); 3].map(|()| session.append("a").is_ok())
    });
    assert_eq!(appended, [true, false, true]);
}

#[test]
fn replies_follow_from_the_prompt_once_the_others_are_used_up() {
    let script = Scripted::model("m")
        .reply("first")
        .replies_with(|prompt| format!("{prompt}?"));
    let (texts, _) = script.scope(|| ["a", "b", "c"].map(|prompt| open(prompt).text().unwrap()));
    assert_eq!(texts, ["first", "b?", "c?"]);
}

#[test]
fn texts_with_words_in_common_are_close() {
    Scripted::model("m").embeds_words().scope(|| {
        let texts = [
            "how silk is made",
            "trains run late",
            "silk is made by moths",
        ];
        let all = Model::load("m").unwrap().embed(&texts).unwrap();
        assert_eq!(rank(&all[0], &all[1..])[0].index, 1);
    });
}

#[test]
fn scripts_of_threads_do_not_meet() {
    let threads = ["a", "b", "c"].map(|reply| {
        let text = move || {
            Scripted::model("m")
                .reply(reply)
                .scope(|| open("p").text().unwrap())
        };
        std::thread::spawn(move || text().0)
    });
    let said = threads.map(|thread| thread.join().unwrap());
    assert_eq!(said, ["a", "b", "c"]);
}

#[test]
fn what_is_not_scripted_says_what_to_script() {
    #[track_caller]
    fn panics(body: impl FnOnce() + std::panic::UnwindSafe, expected: &str) {
        let panic = catch_unwind(body).unwrap_err();
        let message = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        let message = message.unwrap();
        assert!(message.contains(expected), "{message}");
    }
    panics(|| drop(Model::load("m")), "Scripted::model(\"NAME\").run");
    panics(
        || drop(Scripted::model("m").scope(|| open("p").text())),
        "add .reply(\"...\")",
    );
    panics(
        || drop(Scripted::model("m").scope(|| open("p").text())),
        "harness.rs:",
    );
    panics(
        || {
            drop(
                Scripted::model("m")
                    .embedding("a", &[1.0])
                    .scope(|| Model::load("m").unwrap().embed(&["b"])),
            )
        },
        "add .embedding(\"b\", &[...])",
    );
    panics(
        || {
            drop(Scripted::model("m").scope(|| {
                Graph::load("m")
                    .unwrap()
                    .compute([("text", Tensor::text(""))])
            }))
        },
        "add .computes(",
    );
    // A script that panicked leaves nothing behind.
    panics(|| drop(Model::load("m")), "without a script");
}
