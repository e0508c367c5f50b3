//! What the wire promises: what goes in comes out, and nothing that comes in does harm.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

fn content() -> impl Strategy<Value = Content> {
    prop::collection::vec(any::<u8>(), 0..300).prop_map(Content)
}

fn to_worker() -> impl Strategy<Value = ToWorker> {
    let run = (
        any::<u64>(),
        content(),
        content(),
        content(),
        any::<Option<u64>>(),
    );
    prop_oneof![
        (any::<[u8; 32]>(), any::<u32>()).prop_map(|(key, runs_max)| ToWorker::Hello(Hello {
            cache_key: Secret(key),
            runs_max,
        })),
        run.prop_map(|(run, request, manifest, input, time_max_ms)| {
            ToWorker::Run(RunRequest {
                run,
                request,
                manifest,
                input,
                time_max_ms,
            })
        }),
        any::<u64>().prop_map(|run| ToWorker::Cancel { run }),
        Just(ToWorker::Drain),
        Just(ToWorker::Ping),
    ]
}

fn isolation() -> impl Strategy<Value = Isolation> {
    prop_oneof![
        any::<u32>().prop_map(|abi| Isolation::Full { abi }),
        ".*".prop_map(|missing| Isolation::Partial { missing }),
        ".*".prop_map(|reason| Isolation::None { reason }),
    ]
}

fn from_worker() -> impl Strategy<Value = FromWorker> {
    let fault = prop_oneof![
        Just(WhoseFault::Developer),
        Just(WhoseFault::Client),
        Just(WhoseFault::Provider)
    ];
    let guest_fault =
        (any::<Option<u32>>(), content()).prop_map(|(code, message)| GuestFault { code, message });
    let ready = (
        ".*",
        any::<Option<u64>>(),
        isolation(),
        content(),
        content(),
    );
    let progress = (any::<u64>(), any::<u64>(), any::<Option<u64>>(), content());
    let done = (
        any::<u64>(),
        content(),
        content(),
        content(),
        prop::option::of(guest_fault),
    );
    prop_oneof![
        ready.prop_map(|(device, memory_bytes, isolation, profile, evidence)| {
            FromWorker::Ready(Ready {
                device,
                memory_bytes,
                isolation,
                profile,
                evidence,
            })
        }),
        any::<u64>().prop_map(|run| FromWorker::Started { run }),
        (any::<u64>(), content()).prop_map(|(run, bytes)| FromWorker::Output { run, bytes }),
        progress.prop_map(|(run, done, total, note)| FromWorker::Progress {
            run,
            done,
            total,
            note,
        }),
        (any::<u64>(), content()).prop_map(|(run, bytes)| FromWorker::Log { run, bytes }),
        any::<(u64, u64, u64)>().prop_map(|(run, prompt, generated)| FromWorker::Tokens {
            run,
            prompt,
            generated,
        }),
        done.prop_map(|(run, consensus, evidence, opening, fault)| {
            FromWorker::Done(Box::new(RunDone {
                run,
                consensus,
                evidence,
                opening,
                fault,
            }))
        }),
        (any::<u64>(), fault, any::<u8>(), ".*").prop_map(|(run, fault, exit_code, message)| {
            FromWorker::Refused(RunRefused {
                run,
                fault,
                exit_code,
                message,
            })
        }),
        ".*".prop_map(|text| FromWorker::Warning { text }),
        (any::<u64>(), ".*").prop_map(|(run, message)| FromWorker::Lost { run, message }),
        Just(FromWorker::Pong),
    ]
}

fn from_signer() -> impl Strategy<Value = FromSigner> {
    let denial = prop_oneof![
        ".*".prop_map(|message| Denial::Malformed { message }),
        Just(Denial::OtherClient),
        Just(Denial::Channel),
        Just(Denial::UnknownJob),
        Just(Denial::Finished),
        ".*".prop_map(|field| Denial::OtherThanRequested { field }),
        any::<(u64, u64)>().prop_map(|(price, cap)| Denial::OverCap { price, cap }),
        Just(Denial::OtherAccount),
        Just(Denial::NoReceipt),
        Just(Denial::NoChannel),
        ".*".prop_map(|message| Denial::Ledger { message }),
        ".*".prop_map(|message| Denial::Damaged { message }),
    ];
    prop_oneof![
        any::<([u8; 32], [u8; 32])>().prop_map(|(provider_key, client_key)| {
            FromSigner::Hello(SignerHello {
                provider_key,
                client_key,
            })
        }),
        (any::<u64>(), content()).prop_map(|(id, document)| FromSigner::Signed { id, document }),
        (any::<u64>(), denial).prop_map(|(id, denial)| FromSigner::Denied { id, denial }),
    ]
}

fn to_signer() -> impl Strategy<Value = ToSigner> {
    prop_oneof![
        (
            any::<u64>(),
            any::<[u8; 32]>(),
            any::<i32>(),
            any::<[u8; 32]>()
        )
            .prop_map(|(id, job, network, incarnation)| ToSigner::SignClaim {
                id,
                job,
                opening: Opening {
                    network,
                    incarnation,
                },
            }),
        (any::<u64>(), content()).prop_map(|(id, body)| ToSigner::SignRequest { id, body }),
        (any::<[u64; 3]>(), any::<[i32; 2]>(), any::<[[u8; 32]; 3]>()).prop_map(
            |([id, amount, receipts], [workchain, network], [account, incarnation, root])| {
                let opening = Opening {
                    network,
                    incarnation,
                };
                let posting = Posting {
                    workchain,
                    account,
                    opening,
                    amount,
                    receipts,
                    root,
                };
                ToSigner::SignPosting { id, posting }
            }
        ),
        (any::<u64>(), content(), content()).prop_map(|(id, consensus, evidence)| {
            ToSigner::SignReceipt {
                id,
                consensus,
                evidence,
            }
        }),
    ]
}

/// Sends messages through a pipe of so many bytes, and returns what comes out.
fn through<M>(messages: &[M], pipe_bytes: usize) -> Vec<M>
where
    M: Encode<()> + for<'b> Decode<'b, ()>,
{
    let (ours, theirs) = duplex(pipe_bytes);
    let mut writer = FrameWriter::new(ours);
    let mut reader = FrameReader::<_, M>::new(theirs);
    let write = async {
        for message in messages {
            writer.write(message).await.unwrap();
        }
        writer.close().await.unwrap();
    };
    let read = async {
        let mut found = Vec::new();
        while let Some(message) = reader.read().await.unwrap() {
            found.push(message);
        }
        found
    };
    wait(async { tokio::join!(write, read).1 })
}

/// What a reader says to bytes after which the connection is closed.
fn read_all(bytes: &[u8]) -> Result<Vec<FromWorker>, WireError> {
    wait(async {
        let mut reader = FrameReader::new(bytes);
        let mut found = Vec::new();
        while let Some(message) = reader.read().await? {
            found.push(message);
        }
        Ok(found)
    })
}

fn framed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    [&length.to_le_bytes(), body].concat()
}

proptest! {
    #[test]
    fn what_goes_in_comes_out_in_order(
        to in prop::collection::vec(to_worker(), 0..8),
        from in prop::collection::vec(from_worker(), 0..8),
        asked in prop::collection::vec(to_signer(), 0..8),
        answered in prop::collection::vec(from_signer(), 0..8),
        pipe_bytes in 1usize..64,
    ) {
        prop_assert_eq!(through(&to, pipe_bytes), to);
        prop_assert_eq!(through(&from, pipe_bytes), from);
        prop_assert_eq!(through(&asked, pipe_bytes), asked);
        prop_assert_eq!(through(&answered, pipe_bytes), answered);
    }

    #[test]
    fn any_bytes_are_messages_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_all(&bytes);
        let _ = read_all(&framed(&bytes));
    }

    #[test]
    fn a_damaged_message_is_another_or_an_error(
        message in from_worker(), at in any::<prop::sample::Index>(), with in any::<u8>(),
    ) {
        let mut bytes = Vec::new();
        append(&mut bytes, &message).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = with;
        let _ = read_all(&bytes);
    }

    #[test]
    fn a_connection_that_ends_within_a_message_is_an_error(
        message in from_worker(), at in any::<prop::sample::Index>(),
    ) {
        let mut bytes = Vec::new();
        append(&mut bytes, &message).unwrap();
        let cut = at.index(bytes.len());
        let found = read_all(&bytes[..cut]);
        if cut == 0 {
            prop_assert!(found.unwrap().is_empty());
        } else {
            prop_assert!(matches!(found, Err(WireError::CutOff)), "{:?}", found);
        }
    }
}

#[test]
fn a_length_past_the_limit_is_refused_before_a_byte_of_it_is_waited_for() {
    wait(async {
        let (mut ours, theirs) = duplex(64);
        let mut reader = FrameReader::<_, ToWorker>::new(theirs);
        let one_more = u32::try_from(FRAME_BYTES_MAX + 1).unwrap();
        ours.write_all(&one_more.to_le_bytes()).await.unwrap();
        let found = reader.read().await;
        assert!(matches!(found, Err(WireError::TooLong { found }) if found == FRAME_BYTES_MAX + 1));
        assert_eq!(reader.bytes.capacity(), 0);
    });
}

#[test]
fn memory_is_taken_as_bytes_arrive_and_not_as_they_are_announced() {
    wait(async {
        let largest = u32::try_from(FRAME_BYTES_MAX).unwrap();
        let bytes = [&largest.to_le_bytes()[..], &[0; 100]].concat();
        let mut reader = FrameReader::<_, ToWorker>::new(bytes.as_slice());
        assert!(matches!(reader.read().await, Err(WireError::CutOff)));
        assert!(
            reader.bytes.capacity() < 1 << 16,
            "{}",
            reader.bytes.capacity()
        );
    });
}

#[test]
fn the_largest_input_fits_and_a_larger_message_leaves_the_connection_as_it_was() {
    let run = |bytes: usize| {
        ToWorker::Run(RunRequest {
            run: 1,
            request: Content(vec![7; 2048]),
            manifest: Content(vec![7; 1 << 20]),
            input: Content(vec![7; bytes]),
            time_max_ms: Some(u64::MAX),
        })
    };
    let mut bytes = Vec::new();
    append(&mut bytes, &run(INPUT_BYTES_MAX)).unwrap();
    let (ours, mut theirs) = duplex(1024);
    wait(async {
        let mut writer = FrameWriter::new(ours);
        let refused = writer.write(&run(FRAME_BYTES_MAX)).await;
        assert!(
            matches!(refused, Err(WireError::TooLong { .. })),
            "{refused:?}"
        );
        writer.write(&ToWorker::Drain).await.unwrap();
        writer.close().await.unwrap();
        let mut sent = Vec::new();
        theirs.read_to_end(&mut sent).await.unwrap();
        let mut reader = FrameReader::<_, ToWorker>::new(sent.as_slice());
        assert_eq!(reader.read().await.unwrap(), Some(ToWorker::Drain));
        assert_eq!(reader.read().await.unwrap(), None);
    });
}

#[test]
fn what_is_no_message_is_refused_by_name() {
    for (bytes, expected) in [
        (&[][..], "end of input"),
        (&[0xff], "unexpected type"),
        // A list that announces more entries than there is memory for.
        (
            &[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            "expected enum",
        ),
        // Text of 2^60 bytes where the frame has none.
        (
            &[0x82, 0x08, 0x81, 0x7b, 0x10, 0, 0, 0, 0, 0, 0, 0],
            "end of input",
        ),
        // A message that nobody has, and a known one with a byte more.
        (&[0x82, 0x18, 0x63, 0x80], "unknown"),
        (&[0x82, 0x01, 0x81, 0x07, 0x00], "1 bytes more"),
    ] {
        let found = read_all(&framed(bytes)).unwrap_err().to_string();
        assert!(found.contains(expected), "{bytes:02x?}: {found}");
    }
}

#[test]
fn nothing_of_a_client_or_a_key_is_printed() {
    let printed = format!(
        "{:?}{:?}",
        ToWorker::Hello(Hello {
            cache_key: Secret([0xab; 32]),
            runs_max: 1,
        }),
        FromWorker::Output {
            run: 1,
            bytes: Content(b"private".to_vec()),
        }
    );
    let shown = ["private", "171", "ab", "112"];
    assert!(
        shown.iter().all(|part| !printed.contains(part)),
        "{printed}"
    );
    assert!(printed.contains("7 bytes"), "{printed}");
}
