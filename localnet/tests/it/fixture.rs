//! A server on a port of its own, a client that says exactly what it is told to, and time that
//! stands still unless it is moved.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tussah_localnet::{Network, Server, ServerConfig, developer};
use tussah_settlement::chain::embedded::external_message;
use tussah_settlement::wallet::OutMessage;
use tussah_settlement::{Address, Cell};
use tycho_types::boc::Boc;

/// Seconds since 1970 at the start of each test.
pub(crate) const START: u32 = 1_790_000_000;
pub(crate) const GRAM: u64 = 1_000_000_000;

/// A running server; it stops when it is dropped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: Option<tokio::task::JoinHandle<std::io::Result<()>>>,
    runtime: Runtime,
}

impl Running {
    pub(crate) fn in_memory() -> Self {
        let network = Network::in_memory(Box::new(|| START)).unwrap();
        Self::with(network, &[])
    }

    pub(crate) fn in_folder(folder: &Path) -> Self {
        Self::with(Network::open(folder, Box::new(|| START)).unwrap(), &[])
    }

    pub(crate) fn with(network: Network, cors: &[&str]) -> Self {
        let runtime = Runtime::new().unwrap();
        let config = ServerConfig {
            port: 0,
            cors: cors.iter().map(|origin| (*origin).to_owned()).collect(),
        };
        let server = runtime.block_on(Server::bind(network, &config)).unwrap();
        let address = server.address();
        let (stop, stopped) = oneshot::channel();
        let task = runtime.spawn(server.serve(async {
            let _ = stopped.await;
        }));
        Self {
            address,
            stop: Some(stop),
            task: Some(task),
            runtime,
        }
    }

    /// Ends it as Ctrl-C does, and waits for the end.
    pub(crate) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let (Some(stop), Some(task)) = (self.stop.take(), self.task.take()) {
            let _ = stop.send(());
            self.runtime.block_on(task).unwrap().unwrap();
        }
    }

    /// Sends these bytes; the status and the body that come back, and the headers.
    pub(crate) fn raw(&self, request: &[u8]) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        // The server may have answered and closed before it read everything.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_owned(), body.to_owned())
    }

    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let (status, _, body) = self.raw(request.as_bytes());
        (status, serde_json::from_str(&body).unwrap())
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> (u16, Value) {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let (status, _, body) = self.raw(request.as_bytes());
        (status, serde_json::from_str(&body).unwrap())
    }

    /// toncenter's JSON-RPC; the result, or the error's code and words.
    pub(crate) fn rpc(&self, method: &str, params: Value) -> Result<Value, (u16, String)> {
        let request = json!({ "id": "1", "jsonrpc": "2.0", "method": method, "params": params });
        let (status, mut body) = self.post("/api/v2/jsonRPC", &request.to_string());
        assert_eq!(
            (&body["id"], &body["jsonrpc"]),
            (&json!("1"), &json!("2.0"))
        );
        assert_eq!(body["ok"], json!(status == 200), "{body}");
        if status == 200 {
            return Ok(body["result"].take());
        }
        assert_eq!(body["code"], json!(status), "{body}");
        Err((status, body["error"].as_str().unwrap().to_owned()))
    }

    pub(crate) fn ask(&self, method: &str, params: Value) -> Value {
        let asked = format!("{method} {params}");
        self.rpc(method, params)
            .unwrap_or_else(|error| panic!("{asked}: {error:?}"))
    }

    pub(crate) fn balance(&self, address: &Address) -> u64 {
        let balance = self.ask("getAddressBalance", json!({ "address": raw(address) }));
        balance.as_str().unwrap().parse().unwrap()
    }

    /// The developer's wallet sends this much.
    pub(crate) fn pay(&self, to: &Address, nanograms: u64, body: Cell) {
        let boc = transfer(self.seqno(), to, nanograms, body);
        assert_eq!(
            self.ask("sendBoc", json!({ "boc": boc })),
            json!({ "@type": "ok" })
        );
    }

    pub(crate) fn seqno(&self) -> u32 {
        let (wallet, _) = developer();
        let ask = json!({ "address": raw(&wallet.address()), "method": "seqno", "stack": [] });
        let answer = self.ask("runGetMethod", ask);
        let number = answer["stack"][0][1].as_str().unwrap();
        u32::from_str_radix(number.trim_start_matches("0x"), 16).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// A transfer of the developer's wallet, signed.
pub(crate) fn transfer(seqno: u32, to: &Address, nanograms: u64, body: Cell) -> String {
    let (wallet, key) = developer();
    let message = OutMessage {
        to: to.clone(),
        value: tussah_manifest::Nanograms::new(nanograms).unwrap(),
        bounce: false,
        init: None,
        body,
    };
    let signed = wallet.transfer(&key, seqno, u32::MAX, &[message]).unwrap();
    let message = external_message(&wallet.address(), None, &signed).unwrap();
    base64(&Boc::encode(message))
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

pub(crate) fn raw(address: &Address) -> String {
    address.to_string()
}

/// Somebody without a history.
pub(crate) fn stranger(number: u8) -> Address {
    Address::new(0, tycho_types::cell::HashBytes([number; 32]))
}
