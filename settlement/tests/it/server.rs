//! An HTTP server on loopback that follows a script, and a clock whose waits pass at once.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use tussah_settlement::chain::Clock;

/// What the server does with one request.
#[derive(Clone)]
pub(crate) enum Say {
    /// Answers with a status, headers of its own and a body.
    Http(u16, &'static str, Vec<u8>),
    /// Announces more than it sends.
    Truncated,
    /// Hangs up.
    Nothing,
}

pub(crate) fn ok(result: &Value) -> Say {
    let body = json!({ "ok": true, "result": result, "jsonrpc": "2.0", "id": "1" });
    Say::Http(200, "", body.to_string().into_bytes())
}

/// A server on loopback that follows its script, a connection a request; joined, it returns what
/// it was asked: headers and body.
pub(crate) struct Server {
    pub(crate) url: String,
    thread: JoinHandle<Vec<(String, Value)>>,
}

impl Server {
    pub(crate) fn start(script: Vec<Say>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/api/v2", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let mut asked = Vec::new();
            for say in script {
                let (mut stream, _) = listener.accept().unwrap();
                asked.push(read_request(&mut BufReader::new(&stream)));
                let response = match say {
                    Say::Http(status, headers, body) => {
                        let head = format!(
                            "HTTP/1.1 {status} X\r\n{headers}connection: close\r\ncontent-length: {}\r\n\r\n",
                            body.len()
                        );
                        [head.into_bytes(), body].concat()
                    }
                    Say::Truncated => {
                        b"HTTP/1.1 200 X\r\ncontent-length: 99\r\n\r\n{\"ok\":".to_vec()
                    }
                    Say::Nothing => Vec::new(),
                };
                // A client that has enough hangs up.
                let _ = stream.write_all(&response);
            }
            asked
        });
        Self { url, thread }
    }

    pub(crate) fn asked(self) -> Vec<(String, Value)> {
        self.thread.join().unwrap()
    }
}

fn read_request(stream: &mut impl BufRead) -> (String, Value) {
    let mut head = String::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&line.to_lowercase());
    }
    let (_, length) = head.split_once("content-length: ").unwrap();
    let length = length.split_once('\r').unwrap().0.parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    (head, serde_json::from_slice(&body).unwrap())
}

/// Time that passes when somebody waits.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    now: Mutex<Duration>,
    pub(crate) waits: Mutex<Vec<Duration>>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct TestClock(pub(crate) Arc<Waits>);

impl Clock for TestClock {
    fn now(&self) -> Duration {
        *self.0.now.lock().unwrap()
    }

    async fn sleep(&self, time: Duration) {
        *self.0.now.lock().unwrap() += time;
        self.0.waits.lock().unwrap().push(time);
    }

    fn any_number(&self) -> u64 {
        500
    }
}
