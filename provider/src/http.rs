//! The HTTP interface: the jobs API, OpenAI's shape over it, uploads, the owner's page, and health
//! on a port of its own.
//!
//! In: requests of anybody who reaches the port. Out: JSON, events, blobs. Who is not known gets
//! nothing but that; a page of another origin gets nothing at all, since no answer allows one and
//! the Host header must be one of ours. Sizes, times, depths and counts of all that comes in are
//! bounded, and whatever is refused is refused with OpenAI's error body.

mod auth;
mod blobs;
mod body;
mod budget;
mod channels;
mod content;
mod error;
mod guard;
mod health;
mod in_path;
mod jobs;
mod listen;
mod openai;
mod openapi;
mod ordered;
mod page;
mod prices;
mod single;
mod timed;
mod tls;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post, put};
use tokio::net::TcpListener;

use crate::blobs::Uploads;
use crate::gateway::Gateway;
use guard::Hosts;
use listen::Counted;
pub use tls::{Tls, TlsError, fingerprint};

/// How the gateway is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// The names under which it is reached, without ports: what a Host header may say, besides
    /// the address that is listened on.
    pub hosts: Vec<String>,
    /// The one origin, such as `https://app.example.org`, whose pages may use this too.
    pub cors_origin: Option<String>,
    /// The account of requests without a key; without one they are refused.
    pub anonymous: Option<String>,
    /// Bytes of a JSON body, at most.
    pub body_bytes_max: usize,
    /// Bytes of ended jobs' contents that are on their way to clients at a time.
    pub answers_bytes_max: usize,
    /// The same of one account.
    pub account_answers_bytes_max: usize,
    /// Bytes of bodies whose jobs are not on the disk yet, of everybody.
    pub bodies_bytes_max: usize,
    /// The same, of one account.
    pub account_bodies_bytes_max: usize,
    /// Connections at a time; more wait to be accepted.
    pub connections_max: usize,
    /// Connections at a time from one address; more are closed.
    pub connections_per_address_max: usize,
    /// How long the head of a request may take, and a connection be idle.
    pub head_time_max: Duration,
    /// How long a JSON body may take, and how long the next bytes of an upload.
    pub body_time_max: Duration,
    /// How many bytes a second an upload has to make, after [`Self::body_time_max`] of grace.
    pub upload_bytes_per_second_min: u32,
    /// How long a client may read nothing of an answer.
    pub write_time_max: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            hosts: ["localhost", "127.0.0.1", "[::1]"]
                .map(str::to_owned)
                .to_vec(),
            cors_origin: None,
            anonymous: None,
            body_bytes_max: 24 << 20,
            answers_bytes_max: 512 << 20,
            account_answers_bytes_max: 192 << 20,
            bodies_bytes_max: 256 << 20,
            account_bodies_bytes_max: 96 << 20,
            connections_max: 1024,
            connections_per_address_max: 512,
            head_time_max: Duration::from_secs(15),
            body_time_max: Duration::from_secs(60),
            upload_bytes_per_second_min: 4096,
            write_time_max: Duration::from_secs(30),
        }
    }
}

/// What every request can reach.
#[derive(Debug, Clone)]
struct App {
    gateway: Gateway,
    config: Arc<HttpConfig>,
    hosts: Hosts,
    uploads: Uploads,
    bodies: budget::Budget,
    owner: Arc<page::Owner>,
    answers: budget::Budget,
}

/// Answers clients until `stop` is done, then lets what is being answered end; by TLS alone, where
/// there is a certificate.
///
/// # Errors
/// [`io::Error`] if the port is lost.
pub async fn serve(
    gateway: Gateway,
    uploads: Uploads,
    config: HttpConfig,
    tls: Option<Tls>,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let config = Arc::new(config);
    let bodies = budget::Budget::new(
        "the bodies",
        config.bodies_bytes_max,
        config.account_bodies_bytes_max,
    );
    let answers = budget::Budget::new(
        "the contents that go out",
        config.answers_bytes_max,
        config.account_answers_bytes_max,
    );
    let app = App {
        gateway: gateway.clone(),
        config: Arc::clone(&config),
        hosts: Hosts::new(&config.hosts, listener.local_addr()?),
        uploads,
        bodies,
        owner: Arc::new(page::Owner::new(tls.is_some())),
        answers,
    };
    let counted = Counted::Clients(gateway);
    listen::listen(router(app), &config, tls, listener, counted, stop).await
}

/// Answers `/healthz`, `/readyz`, `/metrics` and `/status`, for this machine's own monitoring: the
/// listener belongs on loopback. A Host header has to be one of `hosts`, or the address that is
/// listened on.
///
/// # Errors
/// [`io::Error`] if the port is lost.
pub async fn serve_health(
    gateway: Gateway,
    hosts: &[String],
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let hosts = Hosts::new(hosts, listener.local_addr()?);
    let router = Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/status", get(health::status))
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(axum::middleware::from_fn_with_state(
            hosts,
            guard::guard_health,
        ))
        .with_state(gateway);
    let config = HttpConfig {
        connections_max: 64,
        connections_per_address_max: 64,
        ..HttpConfig::default()
    };
    listen::listen(router, &config, None, listener, Counted::Monitors, stop).await
}

fn router(app: App) -> Router {
    let guarded = axum::middleware::from_fn_with_state(app.clone(), guard::guard);
    Router::new()
        .route("/v1/jobs", post(jobs::submit))
        .route("/v1/jobs/{id}", get(jobs::status))
        .route("/v1/jobs/{id}/events", get(jobs::events))
        .route("/v1/jobs/{id}/cancel", post(jobs::cancel))
        .route("/v1/jobs/{id}/output", get(jobs::output))
        .route("/v1/jobs/{id}/log", get(jobs::log))
        .route("/v1/jobs/{id}/receipt", get(jobs::receipt))
        .route("/v1/jobs/{id}/opening", get(jobs::opening))
        .route("/v1/manifests/{digest}", get(jobs::manifest))
        .route("/v1/jobs/{id}/claim", get(channels::claim))
        .route("/v1/channels/{address}", get(channels::channel))
        .route("/v1/channels/{address}/vouchers", post(channels::voucher))
        .route("/v1/quote", post(prices::quote))
        .route("/v1/prices", get(prices::prices))
        .route("/v1/blobs/{digest}", put(blobs::put).head(blobs::head))
        .route("/v1/models", get(openai::models::list))
        .route("/v1/models/{*name}", get(openai::models::one))
        .route("/v1/chat/completions", post(openai::text::chat))
        .route("/v1/completions", post(openai::text::completions))
        .route("/v1/embeddings", post(openai::embeddings::embeddings))
        .route("/openapi.json", get(openapi::document))
        .merge(page::router(&app))
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(guarded)
        .with_state(app)
}
