//! The HTTP server: toncenter's paths, and a few of this network's own, on loopback.
//!
//! In: requests of programs on this machine. Out: JSON. A browser's page from elsewhere gets
//! nothing: the Host header must name this machine (else a name that was pointed here would reach
//! it), a page's origin must have been allowed, and what changes something must say that it is
//! JSON, which no page can do unasked. Bodies are bounded.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Query, Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    CONTENT_TYPE, HOST, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::Response;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use crate::address;
use crate::methods::{ApiError, Asked, call};
use crate::network::{Network, developer, giver};
use crate::parameters::Parameters;

/// A request's body, at most; TON's external messages have 64 KiB.
pub const BODY_BYTES_MAX: usize = 1 << 20;

const API: &str = "/api/v2/";

/// How the server is reached.
#[derive(Debug, Clone, Default)]
pub struct ServerConfig {
    /// The port on 127.0.0.1; 0 lets the system choose.
    pub port: u16,
    /// Origins whose pages may use it, such as `http://localhost:3000`.
    pub cors: Vec<String>,
}

/// A server that has its port and does not answer yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Whoever answers a request has it for as long as the answer takes.
    network: Mutex<Network>,
    cors: Vec<String>,
}

impl Server {
    /// Takes the port.
    ///
    /// # Errors
    /// [`io::Error`] if somebody else has it.
    pub async fn bind(network: Network, config: &ServerConfig) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, config.port)).await?;
        Ok(Self {
            address: listener.local_addr()?,
            listener,
            shared: Arc::new(Shared {
                network: Mutex::new(network),
                cors: config.cors.clone(),
            }),
        })
    }

    /// Where it is reached.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// toncenter's v2 root, for clients of its REST form; `jsonRPC` is under it.
    pub fn url(&self) -> String {
        format!("http://{}/api/v2", self.address)
    }

    /// Answers until `stop` is done, then lets the requests end that are being answered.
    ///
    /// # Errors
    /// [`io::Error`] if the port is lost.
    pub async fn serve(self, stop: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        let router = Router::new().fallback(handle).with_state(self.shared);
        axum::serve(self.listener, router)
            .with_graceful_shutdown(stop)
            .await
    }
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let origin = request.headers().get(ORIGIN).cloned();
    let allowed = match allowed_origin(&shared, origin.as_ref()) {
        Ok(allowed) => allowed,
        Err(error) => return answer(Reply::error(error, None)),
    };
    let mut response = match respond(shared, request).await {
        Ok(reply) => answer(reply),
        Err(error) => answer(Reply::error(error, None)),
    };
    if let Some(origin) = allowed {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let ours = "content-type, x-api-key, x-ton-client-version";
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ours));
        headers.insert(
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, POST"),
        );
        headers.insert(VARY, HeaderValue::from_static("origin"));
    }
    response
}

/// The origin to answer to; nothing for a program that is no page.
fn allowed_origin(
    shared: &Shared,
    origin: Option<&HeaderValue>,
) -> Result<Option<HeaderValue>, ApiError> {
    let Some(origin) = origin else {
        return Ok(None);
    };
    let is_listed = |text: &str| shared.cors.iter().any(|listed| listed == text);
    match origin.to_str() {
        Ok(text) if is_listed(text) => Ok(Some(origin.clone())),
        _ => Err(ApiError::new(403, "this origin is not allowed; see --cors")),
    }
}

/// Whether a Host header names this machine.
fn is_this_machine(headers: &HeaderMap) -> bool {
    let Some(Ok(host)) = headers.get(HOST).map(HeaderValue::to_str) else {
        return false;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    ["127.0.0.1", "localhost", "[::1]"].contains(&name)
}

/// What goes back, and how toncenter wraps it.
struct Reply {
    status: u16,
    body: Value,
}

impl Reply {
    fn plain(body: Value) -> Self {
        Self { status: 200, body }
    }

    fn error(error: ApiError, id: Option<Value>) -> Self {
        let mut body = json!({ "ok": false, "error": error.message, "code": error.code });
        add_id(&mut body, id);
        Self {
            status: error.code,
            body,
        }
    }

    fn result(result: Result<Value, ApiError>, extra: &str, id: Option<Value>) -> Self {
        match result {
            Ok(value) => {
                let mut body = json!({ "ok": true, "result": value, "@extra": extra });
                add_id(&mut body, id);
                Self::plain(body)
            }
            Err(error) => Self::error(error, id),
        }
    }
}

fn add_id(body: &mut Value, id: Option<Value>) {
    if let Some(id) = id {
        body["jsonrpc"] = json!("2.0");
        body["id"] = id;
    }
}

fn answer(reply: Reply) -> Response {
    let mut response = Response::new(Body::from(reply.body.to_string()));
    *response.status_mut() =
        StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

async fn respond(shared: Arc<Shared>, request: Request) -> Result<Reply, ApiError> {
    if !is_this_machine(request.headers()) {
        let message = "the Host header does not name this machine";
        return Err(ApiError::new(403, message));
    }
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let body = match parts.method {
        Method::GET => None,
        Method::POST => {
            require_json(&parts.headers)?;
            let bytes = to_bytes(body, BODY_BYTES_MAX).await.map_err(|_| {
                ApiError::new(413, format!("a body has {BODY_BYTES_MAX} bytes at most"))
            })?;
            Some(object(&bytes)?)
        }
        Method::OPTIONS => return Ok(Reply::plain(json!({}))),
        other => {
            return Err(ApiError::new(
                405,
                format!("unsupported http method: {other}"),
            ));
        }
    };
    let query = match Query::<Vec<(String, String)>>::try_from_uri(&parts.uri) {
        Ok(Query(pairs)) => Parameters::from_pairs(pairs),
        Err(_) => return Err(ApiError::malformed("the query cannot be read")),
    };
    // Work on the chain is short, but it is work: it has a thread that may wait.
    let work = tokio::task::spawn_blocking(move || {
        let mut network = shared
            .network
            .lock()
            // A message is applied whole or not at all, so what a panic left behind can be used.
            .unwrap_or_else(PoisonError::into_inner);
        route(&mut network, &path, query, body)
    });
    let lost = |_| ApiError::new(500, "the answer could not be worked out");
    work.await.map_err(lost)?
}

fn require_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).map(str::trim);
    match kind {
        Some(kind) if kind.eq_ignore_ascii_case("application/json") => Ok(()),
        _ => Err(ApiError::new(
            415,
            "a POST says content-type: application/json",
        )),
    }
}

fn object(bytes: &[u8]) -> Result<Map<String, Value>, ApiError> {
    let parsed = serde_json::from_slice(bytes);
    let error = match parsed {
        Ok(Value::Object(object)) => return Ok(object),
        Ok(_) => "it is not an object".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(ApiError::malformed(format!(
        "failed to parse post request: {error}"
    )))
}

fn route(
    network: &mut Network,
    path: &str,
    query: Parameters,
    body: Option<Map<String, Value>>,
) -> Result<Reply, ApiError> {
    if let Some(method) = path.strip_prefix(API) {
        if method == "jsonRPC" {
            let Some(body) = body else {
                return Err(ApiError::new(405, "method GET is not supported"));
            };
            return Ok(json_rpc(network, body));
        }
        let result = match body {
            Some(body) => call(network, method, &body.into(), Asked::ByPost),
            None => call(network, method, &query, Asked::ByGet),
        };
        return Ok(Reply::result(result, &extra(network), None));
    }
    match (path, body) {
        ("/" | "/localnet/status", None) => Ok(Reply::plain(status(network)?)),
        ("/localnet/faucet", Some(body)) => faucet(network, &body.into()),
        ("/localnet/advance", Some(body)) => advance(network, &body.into()),
        ("/localnet/faucet" | "/localnet/advance", None) => {
            Err(ApiError::new(405, format!("{path} is asked for with POST")))
        }
        _ => Err(ApiError::not_found(format!("there is nothing at {path}"))),
    }
}

/// What toncenter puts there: when, and which session answered.
fn extra(network: &Network) -> String {
    format!(
        "{}:{}:0",
        network.chain().now(),
        network.blocks().last().seqno
    )
}

fn json_rpc(network: &mut Network, mut body: Map<String, Value>) -> Reply {
    let id = body.remove("id").unwrap_or(Value::Null);
    let result = json_rpc_result(network, &mut body);
    Reply::result(result, &extra(network), Some(id))
}

fn json_rpc_result(
    network: &mut Network,
    body: &mut Map<String, Value>,
) -> Result<Value, ApiError> {
    let Some(Value::String(method)) = body.remove("method") else {
        return Err(ApiError::malformed("the request names no method"));
    };
    let parameters = match body.remove("params") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(parameters)) => parameters,
        Some(Value::Array(list)) if list.is_empty() => Map::new(),
        Some(_) => return Err(ApiError::malformed("params must contain an object")),
    };
    call(network, &method, &parameters.into(), Asked::ByPost)
}

fn status(network: &mut Network) -> Result<Value, ApiError> {
    network.tick();
    let chain = network.chain();
    let (giver, _) = giver();
    let (developer, developer_key) = developer();
    let seed = crate::cells::hex(developer_key.to_bytes().as_slice());
    Ok(json!({
        "network": chain.network_id().0,
        "now": chain.now(),
        "ahead_seconds": network.ahead(),
        "seqno": network.blocks().last().seqno,
        "accounts": chain.accounts().count(),
        "held_nanograms": chain.total()?.to_string(),
        "fees_nanograms": chain.fees().to_string(),
        "giver": address::friendly(&giver.address(), false, true),
        "developer": {
            "address": address::friendly(&developer.address(), false, true),
            "wallet": "V5R1",
            "seed": seed,
        },
    }))
}

fn faucet(network: &mut Network, parameters: &Parameters) -> Result<Reply, ApiError> {
    parameters.only(&["address", "amount"])?;
    let to = parameters.address("address")?;
    parameters.required("amount")?;
    let amount = parameters.unsigned("amount")?.unwrap_or_default();
    let transactions = network.faucet(&to, amount)?;
    let account = network.chain().account_now(&to)?;
    let last = transactions.last();
    Ok(Reply::plain(json!({
        "ok": true,
        "address": address::friendly(&to, false, true),
        "amount": amount.to_string(),
        "balance": account.balance.get().to_string(),
        "lt": last.map_or(0, |transaction| transaction.lt).to_string(),
    })))
}

fn advance(network: &mut Network, parameters: &Parameters) -> Result<Reply, ApiError> {
    parameters.only(&["seconds"])?;
    parameters.required("seconds")?;
    let seconds = parameters.unsigned("seconds")?.unwrap_or_default();
    let Ok(seconds) = u32::try_from(seconds) else {
        return Err(ApiError::malformed("the clock ends in 2106"));
    };
    let now = network.advance(seconds)?;
    Ok(Reply::plain(json!({ "ok": true, "now": now })))
}
