//! A man in the middle: what a client asks goes on to a daemon, or does not, and what comes back is
//! what a test makes of it. One request a connection, all of it in memory, on loopback.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

/// What was asked.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) path: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    asked: Vec<Asked>,
    kept: BTreeMap<String, Vec<u8>>,
}

/// The proxy; its threads end with the test's process.
#[derive(Clone, Debug)]
pub(super) struct Proxy {
    pub(super) address: String,
    state: Arc<Mutex<State>>,
}

impl Proxy {
    /// `answer` gets the request, a way to have it answered by the daemon, and this; no bytes are
    /// a connection that breaks.
    pub(super) fn new(
        daemon: &str,
        answer: impl Fn(&Asked, &dyn Fn() -> Vec<u8>, &Proxy) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap().to_string(),
            state: Arc::default(),
        };
        let (daemon, answer, of_thread) = (daemon.to_owned(), Arc::new(answer), proxy.clone());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (daemon, answer) = (daemon.clone(), Arc::clone(&answer));
                let proxy = of_thread.clone();
                std::thread::spawn(move || {
                    let Some(asked) = read(&stream) else {
                        return;
                    };
                    proxy.state.lock().unwrap().asked.push(asked.clone());
                    let answer = answer(&asked, &|| forward(&daemon, &asked), &proxy);
                    // A client that has gone is part of some tests.
                    let _ = stream.write_all(&answer);
                });
            }
        });
        proxy
    }

    /// The requests so far, as `POST /v1/jobs`.
    pub(super) fn asked(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let asked = state.asked.iter();
        asked
            .map(|asked| format!("{} {}", asked.method, asked.path))
            .collect()
    }

    /// How often this was asked so far, this time included.
    pub(super) fn times(&self, method: &str, path: &str) -> usize {
        let this = format!("{method} {path}");
        self.asked().iter().filter(|asked| **asked == this).count()
    }

    /// A header of each request whose path ends so.
    pub(super) fn header_of(&self, path_end: &str, name: &str) -> Vec<Option<String>> {
        let state = self.state.lock().unwrap();
        let asked = state.asked.iter();
        asked
            .filter(|asked| asked.path.ends_with(path_end))
            .map(|asked| asked.headers.get(name).cloned())
            .collect()
    }

    /// The answer that was kept first under this name; now this one, if none was.
    pub(super) fn first_of(&self, name: &str, answer: Vec<u8>) -> Vec<u8> {
        let mut state = self.state.lock().unwrap();
        state.kept.entry(name.to_owned()).or_insert(answer).clone()
    }
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.to_owned()),
            None => break,
        };
    }
    let length = headers.get("content-length");
    let mut body = vec![0; length.map_or(0, |text| text.parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    Some(Asked {
        method,
        path,
        headers,
        body,
    })
}

/// The daemon's whole answer, head and all.
fn forward(daemon: &str, asked: &Asked) -> Vec<u8> {
    let mut stream = TcpStream::connect(daemon).unwrap();
    let mut head = format!("{} {} HTTP/1.1\r\n", asked.method, asked.path);
    for (name, value) in &asked.headers {
        if name != "connection" {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    head.push_str("connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&asked.body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}
