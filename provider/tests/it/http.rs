//! The HTTP interface on loopback, as clients meet it: byte by byte where it matters.

mod cors;
mod jobs;
mod malformed;
mod money;
mod openai;
mod openapi;
mod page;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tussah_manifest::Manifest;
use tussah_provider::blobs::{BlobRules, Uploads};
use tussah_provider::gateway::{Gateway, GatewayConfig};
use tussah_provider::http::{HttpConfig, serve};
use tussah_provider::ledger::Shape;

use crate::fixture::*;
use crate::peer;

/// A gateway that answers on loopback.
struct Server {
    gateway: Gateway,
    address: SocketAddr,
    key: String,
    _folder: tempfile::TempDir,
}

/// What came back.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    fn code(&self) -> String {
        let json = self.json();
        let error = &json["error"];
        assert!(
            error["message"].is_string() && error["type"].is_string(),
            "{json}"
        );
        error["code"].as_str().unwrap().to_owned()
    }
}

async fn server(
    change: impl FnOnce(&mut GatewayConfig, &mut HttpConfig, &mut BlobRules),
) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let mut http = HttpConfig {
        body_bytes_max: 1 << 20,
        ..HttpConfig::default()
    };
    let mut rules = BlobRules {
        blob_bytes_max: 1000,
        quota_bytes: 5000,
        allowed: None,
    };
    let configure = |config: &mut GatewayConfig| change(config, &mut http, &mut rules);
    let gateway = peer::gateway(folder.path(), configure).await;
    let ledger = gateway.ledger();
    let key = ledger.new_api_key("test", "bot", NOW).unwrap();
    for (name, shape) in [
        ("chat", Shape::Chat),
        ("completions", Shape::Completions),
        ("embeddings", Shape::Embeddings),
        ("null", Shape::Raw),
    ] {
        ledger.deploy(name, &manifest(name), shape, NOW).unwrap();
    }
    ledger
        .deploy("nonsense", &manifest("nonsense"), Shape::Chat, NOW)
        .unwrap();
    ledger
        .deploy("echo-chat", &manifest("null"), Shape::Chat, NOW)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let uploads = Uploads::new(gateway.config().blobs.clone(), rules);
    let serving = serve(
        gateway.clone(),
        uploads,
        http,
        None,
        listener,
        std::future::pending(),
    );
    tokio::spawn(serving);
    Server {
        gateway,
        address,
        key: key.reveal().to_owned(),
        _folder: folder,
    }
}

impl Server {
    async fn with_worker() -> Self {
        let server = server(|_, _, _| ()).await;
        drop(peer::attach(&server.gateway));
        server
    }

    /// Sends these bytes and reads until the other side closes.
    async fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // One that is refused early may close before it has read everything.
        let _ = stream.write_all(bytes).await;
        read_answer(&mut stream).await
    }

    async fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let head = self.head(method, path, headers, Some(body.len()));
        self.raw(&[head.as_bytes(), body].concat()).await
    }

    fn head(&self, method: &str, path: &str, headers: &str, length: Option<usize>) -> String {
        let length = length.map_or_else(String::new, |n| format!("Content-Length: {n}\r\n"));
        format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost:1\r\nConnection: close\r\n\
             Authorization: Bearer {}\r\n{length}{headers}\r\n",
            self.key
        )
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", b"").await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        let json = "Content-Type: application/json\r\n";
        self.send("POST", path, json, body.to_string().as_bytes())
            .await
    }
}

async fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    let read = tokio::time::timeout(Duration::from_secs(60), read);
    // A reset after the answer is a way to close.
    let _ = read.await.expect("no answer in a minute");
    let split = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let split = split.unwrap_or_else(|| panic!("no head: {:?}", String::from_utf8_lossy(&bytes)));
    let head = String::from_utf8(bytes[..split].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut answer = Answer {
        status,
        head,
        body: bytes[split + 4..].to_vec(),
    };
    if answer.header("transfer-encoding") == Some("chunked") {
        answer.body = dechunked(&answer.body);
    }
    answer
}

fn dechunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        let start = end + 2;
        body.extend_from_slice(&bytes[start..start + size]);
        bytes = &bytes[start + size + 2..];
    }
    body
}

/// The events of a stream: name (`message` if it has none) and data.
fn events(text: &str) -> Vec<(String, String)> {
    let blocks = text.split("\n\n").filter(|block| !block.trim().is_empty());
    blocks
        .map(|block| {
            let field = |name: &str| {
                let prefix = format!("{name}: ");
                let line = block.lines().find_map(|line| line.strip_prefix(&prefix));
                line.map(str::to_owned)
            };
            let name = field("event").unwrap_or_else(|| "message".to_owned());
            (name, field("data").unwrap_or_default())
        })
        .collect()
}

fn toml(manifest: &Manifest) -> String {
    manifest.to_toml()
}
