//! What servers do, well and badly, and what comes of it.

use std::path::PathBuf;

use super::model;
use crate::{
    fixture::Sandbox,
    server::{Reply, Request, Server, honest},
};

type Answer = fn(&Request, &[u8]) -> Reply;

/// What a server does, the exit code, what is said, and how many requests it takes.
const SERVERS: &[(&str, Answer, i32, &str, usize)] = &[
    (
        "has no such file",
        |_, _| Reply::new("404 Not Found").body(b"no"),
        2,
        "answered 404",
        1,
    ),
    (
        "wants a token",
        |_, _| Reply::new("403 Forbidden").body(b""),
        2,
        "HF_TOKEN",
        1,
    ),
    (
        "fails twice, then works",
        |request, file| match request.number {
            0 | 1 => Reply::new("503 Service Unavailable").body(b""),
            _ => honest(request, file, "\"a\""),
        },
        0,
        "answered 503",
        3,
    ),
    (
        "always fails",
        |_, _| Reply::new("500 Internal Server Error").body(b""),
        5,
        "answered 500",
        5,
    ),
    (
        "asks for patience without end",
        |_, _| {
            Reply::new("429 Too Many Requests")
                .header("Retry-After", 86_400)
                .body(b"")
        },
        2,
        "answered 429",
        1,
    ),
    (
        "leads to a file of this machine",
        |_, _| {
            Reply::new("302 Found")
                .header("Location", "file:///etc/passwd")
                .body(b"")
        },
        2,
        "which is not https",
        1,
    ),
    (
        "leads in circles",
        |request, _| {
            Reply::new("302 Found")
                .header("Location", &request.path)
                .body(b"")
        },
        2,
        "more than 8 times",
        9,
    ),
    (
        "leads to another path",
        |request, file| match request.path.as_str() {
            "/x/m.gguf" => Reply::new("307 Temporary Redirect")
                .header("Location", "../real")
                .body(b""),
            _ => honest(request, file, "\"a\""),
        },
        0,
        "",
        2,
    ),
    (
        "breaks once",
        |request, file| match request.number {
            0 => cut(file, file.len()).header("ETag", "\"a\""),
            _ => {
                assert_eq!(request.from(), Some(file.len() / 2));
                assert_eq!(request.header("if-range"), Some("\"a\""));
                honest(request, file, "\"a\"")
            }
        },
        0,
        "trying again",
        2,
    ),
    (
        "breaks once and knows dates only",
        |request, file| {
            let date = "Sat, 01 Aug 2026 00:00:00 GMT";
            match request.number {
                0 => cut(file, file.len()).header("Last-Modified", date),
                _ => {
                    assert_eq!(request.header("if-range"), Some(date));
                    honest(request, file, date)
                }
            }
        },
        0,
        "trying again",
        2,
    ),
    (
        "breaks each time, and knows no ranges",
        |_, file| cut(file, file.len()),
        5,
        "broke",
        5,
    ),
    (
        "breaks once, and a weak tag is no validator",
        |request, file| match request.number {
            0 => cut(file, file.len()).header("ETag", "W/\"a\""),
            _ => {
                assert_eq!(request.from(), None);
                honest(request, file, "\"a\"")
            }
        },
        0,
        "trying again",
        2,
    ),
    (
        "ignores ranges",
        |request, file| match request.number {
            0 => cut(file, file.len()).header("ETag", "\"a\""),
            _ => Reply::new("200 OK").header("ETag", "\"a\"").body(file),
        },
        0,
        "trying again",
        2,
    ),
    (
        "has another version after a break",
        |request, file| match request.number {
            0 => cut(&vec![7; file.len()], file.len()).header("ETag", "\"old\""),
            _ => honest(request, file, "\"new\""),
        },
        0,
        "trying again",
        2,
    ),
    (
        "goes on with another version",
        |request, file| match request.number {
            0 => cut(&vec![7; file.len()], file.len()).header("ETag", "\"old\""),
            1 => {
                let from = request.from().unwrap();
                let range = format!("bytes {from}-{}/{}", file.len() - 1, file.len());
                let reply = Reply::new("206 Partial Content").header("ETag", "\"new\"");
                reply.header("Content-Range", range).body(&file[from..])
            }
            _ => honest(request, file, "\"new\""),
        },
        0,
        "changed while it was downloaded",
        3,
    ),
    (
        "goes on somewhere else",
        |request, file| match request.number {
            0 => cut(file, file.len()).header("ETag", "\"a\""),
            1 => {
                let range = format!("bytes 0-{}/{}", file.len() - 1, file.len());
                let reply = Reply::new("206 Partial Content").header("ETag", "\"a\"");
                reply.header("Content-Range", range).body(file)
            }
            _ => honest(request, file, "\"a\""),
        },
        0,
        "changed while it was downloaded",
        3,
    ),
    (
        "says it is smaller than it is",
        |_, file| {
            Reply::new("200 OK")
                .header("Content-Length", file.len() - 99)
                .bytes(file)
        },
        2,
        "past the end of the file",
        1,
    ),
    (
        "says it is larger than it is",
        |_, file| cut(file, file.len() + 99),
        5,
        "broke",
        5,
    ),
    (
        "says no size",
        |_, file| Reply::new("200 OK").bytes(file),
        0,
        "",
        1,
    ),
    (
        "says a size that no model has",
        |_, _| Reply::new("200 OK").header("Content-Length", 1u64 << 60),
        5,
        "more than",
        1,
    ),
    (
        "says a size that no disk has",
        |_, _| Reply::new("200 OK").header("Content-Length", 1u64 << 40),
        5,
        "free",
        1,
    ),
    (
        "compresses unasked",
        |_, file| {
            Reply::new("200 OK")
                .header("Content-Encoding", "gzip")
                .body(file)
        },
        5,
        "encoded as gzip",
        1,
    ),
    (
        "sends a page",
        |_, _| Reply::new("200 OK").body(b"<html>Sign in</html>"),
        2,
        "not a GGUF file",
        1,
    ),
    (
        "sends nothing",
        |_, _| Reply::new("200 OK").body(b""),
        2,
        "not a GGUF file",
        1,
    ),
    (
        "talks no HTTP",
        |_, _| Reply::default(),
        5,
        "cannot read",
        5,
    ),
];

/// Half of a file, said to be `size` bytes.
pub(super) fn cut(file: &[u8], size: usize) -> Reply {
    let reply = Reply::new("200 OK").header("Content-Length", size);
    reply.bytes(&file[..file.len() / 2])
}

#[test]
fn servers_good_and_bad() {
    let model = model();
    // Each in a home of its own, side by side: most of the time is pauses between tries.
    std::thread::scope(|scope| {
        for (what, answer, code, says, requests) in SERVERS {
            let model = &model;
            scope.spawn(move || {
                let sandbox = Sandbox::new();
                let bytes = model.bytes.clone();
                let server = Server::new(move |request| answer(request, &bytes));
                let ended = sandbox.pull(&server.url("/x/m.gguf"), &[]);
                assert_eq!(ended.code, *code, "{what}: {ended:?}");
                assert!(ended.stderr.contains(says), "{what}: {ended:?}");
                assert_eq!(server.requests().len(), *requests, "{what}: {ended:?}");
                if *code == 0 {
                    assert!(ended.stdout.contains(&model.digest), "{what}: {ended:?}");
                    assert_eq!(sandbox.downloads(), Vec::<PathBuf>::new(), "{what}");
                } else {
                    assert!(ended.stderr.contains("help: "), "{what}: {ended:?}");
                    assert_eq!(sandbox.blobs(), 0, "{what}");
                }
            });
        }
    });
}
