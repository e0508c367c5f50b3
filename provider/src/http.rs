//! The HTTP interface: the jobs API, OpenAI's shape over it, uploads, and health on a port of its
//! own.
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
mod error;
mod guard;
mod health;
mod jobs;
mod openai;
mod openapi;
mod ordered;
mod prices;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post, put};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::blobs::Uploads;
use crate::gateway::Gateway;

/// Bytes of a request's head, at most; hyper refuses more.
const HEAD_BYTES_MAX: usize = 32 << 10;

/// How the gateway is reached.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// The names under which it is reached, without ports: what a Host header may say.
    pub hosts: Vec<String>,
    /// The account of requests without a key; without one they are refused.
    pub anonymous: Option<String>,
    /// Bytes of a JSON body, at most.
    pub body_bytes_max: usize,
    /// Bytes of bodies whose jobs are not on the disk yet, of everybody.
    pub bodies_bytes_max: usize,
    /// The same, of one account.
    pub account_bodies_bytes_max: usize,
    /// Connections at a time; more wait to be accepted.
    pub connections_max: usize,
    /// How long the head of a request may take, and a connection be idle.
    pub head_time_max: Duration,
    /// How long a JSON body may take, and how long the next bytes of an upload.
    pub body_time_max: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            hosts: ["localhost", "127.0.0.1", "[::1]"]
                .map(str::to_owned)
                .to_vec(),
            anonymous: None,
            body_bytes_max: 24 << 20,
            bodies_bytes_max: 256 << 20,
            account_bodies_bytes_max: 96 << 20,
            connections_max: 1024,
            head_time_max: Duration::from_secs(15),
            body_time_max: Duration::from_secs(60),
        }
    }
}

/// What every request can reach.
#[derive(Debug, Clone)]
struct App {
    gateway: Gateway,
    config: Arc<HttpConfig>,
    uploads: Uploads,
    bodies: budget::Budget,
}

/// Answers clients until `stop` is done, then lets what is being answered end.
///
/// # Errors
/// [`io::Error`] if the port is lost.
pub async fn serve(
    gateway: Gateway,
    uploads: Uploads,
    config: HttpConfig,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let config = Arc::new(config);
    let bodies = budget::Budget::new(config.bodies_bytes_max, config.account_bodies_bytes_max);
    let app = App {
        gateway,
        config: Arc::clone(&config),
        uploads,
        bodies,
    };
    serve_router(router(app), &config, listener, stop).await
}

/// Answers `/healthz`, `/readyz` and `/metrics`, for this machine's own monitoring: the listener
/// belongs on loopback.
///
/// # Errors
/// [`io::Error`] if the port is lost.
pub async fn serve_health(
    gateway: Gateway,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .with_state(gateway);
    let config = HttpConfig {
        connections_max: 64,
        ..HttpConfig::default()
    };
    serve_router(router, &config, listener, stop).await
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
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(guarded)
        .with_state(app)
}

async fn serve_router(
    router: Router,
    config: &HttpConfig,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(config.connections_max));
    let open = GracefulShutdown::new();
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(config.head_time_max)
        .max_buf_size(HEAD_BYTES_MAX);
    tokio::pin!(stop);
    loop {
        let place = Arc::clone(&places).acquire_owned();
        let accepted = async {
            // The semaphore is never closed.
            let place = place.await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((place, listener.accept().await?))
        };
        let (place, (stream, _)) = tokio::select! {
            () = &mut stop => break,
            accepted = accepted => match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_passing(&error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
                Err(error) => return Err(error),
            },
        };
        // Answers are small and streams are to be seen at once.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let connection = open.watch(builder.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(place);
        });
    }
    open.shutdown().await;
    Ok(())
}

/// Whether the next connection may do better: this one is gone, or files are short just now.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, WouldBlock};
    /// Too many open files, of this process and of the system.
    const NO_FILES: [i32; 2] = [24, 23];
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted | WouldBlock
    ) || error
        .raw_os_error()
        .is_some_and(|code| NO_FILES.contains(&code))
}
