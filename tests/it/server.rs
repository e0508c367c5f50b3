//! A web server on loopback that does what a test tells it, well or badly.
//!
//! In: for each request, what to answer. Out: bytes on the wire, and a list of what was asked.
//! It never leaves loopback, and never waits for a fixed time.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
};

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) path: String,
    /// Names in lowercase.
    pub(crate) headers: BTreeMap<String, String>,
    /// How many requests came before this one.
    pub(crate) number: usize,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The first byte wanted, by `Range: bytes=N-`.
    pub(crate) fn from(&self) -> Option<usize> {
        let range = self.header("range")?.strip_prefix("bytes=")?;
        range.strip_suffix('-')?.parse().ok()
    }
}

/// What to answer: a head, a body, and whether the connection stays silent after it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    head: String,
    body: Vec<u8>,
    holds: bool,
}

impl Reply {
    pub(crate) fn new(status: &str) -> Self {
        Self {
            head: format!("HTTP/1.1 {status}\r\nConnection: close\r\n"),
            ..Self::default()
        }
    }

    pub(crate) fn header(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.head.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// A body, and nothing in the head that says how long it is.
    pub(crate) fn bytes(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }

    /// A body and its length.
    pub(crate) fn body(self, body: &[u8]) -> Self {
        self.header("Content-Length", body.len()).bytes(body)
    }

    /// After the body the server says no more until the test ends.
    pub(crate) fn holds(mut self) -> Self {
        self.holds = true;
        self
    }
}

/// As every web server does it: the whole file, or the rest of it while the tag is the same.
pub(crate) fn honest(request: &Request, file: &[u8], tag: &str) -> Reply {
    let same = request
        .header("if-range")
        .is_none_or(|wanted| wanted == tag);
    match request.from().filter(|_| same) {
        Some(from) if from >= file.len() => Reply::new("416 Range Not Satisfiable")
            .header("Content-Range", format!("bytes */{}", file.len())),
        Some(from) => Reply::new("206 Partial Content")
            .header("ETag", tag)
            .header(
                "Content-Range",
                format!("bytes {from}-{}/{}", file.len() - 1, file.len()),
            )
            .body(&file[from..]),
        None => Reply::new("200 OK").header("ETag", tag).body(file),
    }
}

/// The server; its thread ends with the test's process.
#[derive(Debug)]
pub(crate) struct Server {
    address: String,
    seen: Arc<Mutex<Vec<Request>>>,
    /// Dropped with the server, which ends every answer that holds.
    _holding: mpsc::Sender<()>,
}

impl Server {
    pub(crate) fn new(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (holding, held) = mpsc::channel();
        let held = Arc::new(Mutex::new(held));
        let (answer, requests) = (Arc::new(answer), Arc::clone(&seen));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, requests) = (Arc::clone(&answer), Arc::clone(&requests));
                let held = Arc::clone(&held);
                std::thread::spawn(move || {
                    let Some(mut request) = read(&stream) else {
                        return;
                    };
                    {
                        let mut requests = requests.lock().unwrap();
                        request.number = requests.len();
                        requests.push(request.clone());
                    }
                    let reply = answer(&request);
                    // A client that has gone is part of some tests.
                    let _ = write(&stream, &reply);
                    if reply.holds {
                        let _ = held.lock().unwrap().recv();
                    }
                });
            }
        });
        Self {
            address,
            seen,
            _holding: holding,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    /// What was asked so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let path = first.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    for line in lines.map_while(Result::ok) {
        match line.split_once(": ") {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.to_owned()),
            None => break,
        };
    }
    Some(Request {
        path,
        headers,
        number: 0,
    })
}

fn write(mut stream: &TcpStream, reply: &Reply) -> std::io::Result<()> {
    stream.write_all(reply.head.as_bytes())?;
    stream.write_all(b"\r\n")?;
    stream.write_all(&reply.body)?;
    stream.flush()
}
