//! As much of an HTTP server as the tests need: one answer a connection, from a function.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub struct Request {
    pub path: String,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    fn read(stream: &TcpStream) -> Option<Self> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let path = line.split(' ').nth(1)?.to_owned();
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut request = Self {
            path,
            headers,
            body: Vec::new(),
        };
        let length = request
            .header("content-length")
            .map_or(0, |it| it.parse().unwrap());
        request.body.resize(length, 0);
        reader.read_exact(&mut request.body).ok()?;
        Some(request)
    }
}

pub struct Answer {
    status: u16,
    kind: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Between two lines of the body.
    pause: Duration,
}

impl Answer {
    pub fn new(status: u16, kind: &'static str, body: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            headers: Vec::new(),
            body: body.into().into_bytes(),
            pause: Duration::ZERO,
        }
    }

    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    /// A connection that ends without a word.
    pub fn broken() -> Self {
        Self::new(0, "", "")
    }

    pub fn slowly(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    fn write(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        if self.status == 0 {
            return Ok(());
        }
        let mut head = format!(
            "HTTP/1.1 {} x\r\ncontent-type: {}\r\nconnection: close\r\n",
            self.status, self.kind
        );
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        for line in self.body.split_inclusive(|byte| *byte == b'\n') {
            stream.write_all(line)?;
            std::thread::sleep(self.pause);
        }
        Ok(())
    }
}

/// A server on a port of its own, and what its function keeps.
pub struct Server<S> {
    pub url: String,
    address: SocketAddr,
    state: Arc<Mutex<S>>,
    end: Arc<AtomicBool>,
}

impl<S: Send + 'static> Server<S> {
    pub fn start(
        state: S,
        mut answer: impl FnMut(&mut S, &Request) -> Answer + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (state, end) = (
            Arc::new(Mutex::new(state)),
            Arc::new(AtomicBool::new(false)),
        );
        let (kept, ended) = (Arc::clone(&state), Arc::clone(&end));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let mut stream = stream.unwrap();
                if let Some(request) = Request::read(&stream) {
                    let answer = answer(&mut kept.lock().unwrap(), &request);
                    // A client that is gone needs none.
                    std::thread::spawn(move || drop(answer.write(&mut stream)));
                }
            }
        });
        Self {
            url: format!("http://{address}"),
            address,
            state,
            end,
        }
    }

    pub fn with<T>(&self, look: impl FnOnce(&mut S) -> T) -> T {
        look(&mut self.state.lock().unwrap())
    }
}

impl<S> Drop for Server<S> {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}
