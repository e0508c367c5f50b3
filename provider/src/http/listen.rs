//! Connections: who gets one, how long it may stand still, and how all of them end.
//!
//! In: a listener. Out: requests for a router. Connections are bounded in all and for each
//! address; one that sends or reads nothing for its time is closed, whatever it was in the middle
//! of, and what its request had under way is dropped with it.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::HttpConfig;
use super::timed::{self, Timed};
use super::tls::Tls;
use crate::gateway::Gateway;

/// Bytes of a request's head, at most: hyper refuses what is still no head after so many, and the
/// guard one that came at once.
pub(super) const HEAD_BYTES_MAX: usize = 32 << 10;
/// How often connections without a word are asked whether they are still there.
const ALIVE_EVERY: Duration = Duration::from_secs(30);
/// What one gets whose address has its most.
const TOO_MANY: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\n\
    retry-after: 1\r\nconnection: close\r\ncontent-length: 139\r\n\r\n\
    {\"error\":{\"message\":\"your address has as many connections as it may\",\
    \"type\":\"rate_limit_error\",\"code\":\"too_many_connections\",\"param\":null}}";

/// Which connections are counted: clients' are, those of the machine's own monitoring are not.
#[derive(Debug, Clone)]
pub(super) enum Counted {
    Clients(Gateway),
    Monitors,
}

impl Counted {
    fn refused(&self) {
        if let Self::Clients(gateway) = self {
            gateway.metrics().connections_refused.add(1);
        }
    }

    fn slow(&self) {
        if let Self::Clients(gateway) = self {
            gateway.metrics().connections_slow.add(1);
        }
    }
}

/// The address that a request's connection came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// A service whose requests say where they are from.
struct WithPeer<S> {
    service: S,
    peer: Peer,
}

impl<S: Service<Request<B>>, B> Service<Request<B>> for WithPeer<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, mut request: Request<B>) -> S::Future {
        request.extensions_mut().insert(self.peer);
        self.service.call(request)
    }
}

/// Answers by this router until `stop` is done, then lets what is being answered end.
pub(super) async fn listen(
    router: Router,
    config: &HttpConfig,
    tls: Option<Tls>,
    listener: TcpListener,
    counted: Counted,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(config.connections_max));
    let addresses = Addresses::new(config.connections_per_address_max);
    let open = GracefulShutdown::new();
    let mut builder = http1::Builder::new();
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
        let (place, (stream, peer)) = tokio::select! {
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
        let Some(held) = addresses.hold(peer.ip()) else {
            counted.refused();
            if tls.is_none() {
                // It fits into the empty buffer of a new socket; if not, closing says enough.
                let _ = stream.try_write(TOO_MANY);
            }
            continue;
        };
        set_options(&stream, config.write_time_max);
        let open_now = match &counted {
            Counted::Clients(gateway) => Some(gateway.metrics().connections_open.hold()),
            Counted::Monitors => None,
        };
        let stream = Timed::new(stream, config.write_time_max);
        let (builder, router, watcher) = (builder.clone(), router.clone(), open.watcher());
        let (counted, tls) = (counted.clone(), tls.clone());
        let greeting_time_max = config.head_time_max;
        // One client has all of a network of version 6, in what it may try too.
        let peer = Peer(network_of(peer.ip()));
        tokio::spawn(async move {
            match tls {
                None => answer(&builder, router, watcher, &counted, peer, stream).await,
                Some(tls) => {
                    let greeted = tls.acceptor().accept(stream);
                    match tokio::time::timeout(greeting_time_max, greeted).await {
                        Ok(Ok(stream)) => {
                            answer(&builder, router, watcher, &counted, peer, stream).await;
                        }
                        Ok(Err(error)) => tracing::debug!(%error, "a client spoke no TLS"),
                        Err(_) => counted.slow(),
                    }
                }
            }
            drop((place, held, open_now));
        });
    }
    open.shutdown().await;
    Ok(())
}

async fn answer(
    builder: &http1::Builder,
    router: Router,
    watcher: Watcher,
    counted: &Counted,
    peer: Peer,
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
) {
    let service = WithPeer {
        service: TowerToHyperService::new(router),
        peer,
    };
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        if error.is_timeout() || timed::is_stalled(&error) {
            counted.slow();
        }
        tracing::debug!(%error, "a connection ended early");
    }
}

/// What the system is to do with a connection. One that it cannot do is one that it need not.
fn set_options(stream: &TcpStream, write_time_max: Duration) {
    // Answers are small and streams are to be seen at once.
    let _ = stream.set_nodelay(true);
    let socket = socket2::SockRef::from(stream);
    // A client whose machine is gone says nothing, and acknowledges nothing.
    let alive = socket2::TcpKeepalive::new().with_time(ALIVE_EVERY);
    let _ = socket.set_tcp_keepalive(&alive);
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(write_time_max));
    #[cfg(not(target_os = "linux"))]
    let _ = write_time_max;
}

/// How many connections each address has. Addresses of version 6 count by their network of 64
/// bits, of which one client has all.
#[derive(Debug, Clone)]
struct Addresses {
    max: usize,
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Addresses {
    fn new(max: usize) -> Self {
        Self {
            max,
            counts: Arc::default(),
        }
    }

    /// One more connection, for as long as what this gives is kept; `None` if it has its most.
    fn hold(&self, address: IpAddr) -> Option<HeldAddress> {
        let address = network_of(address);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(&address).copied().unwrap_or_default();
        if count >= self.max {
            return None;
        }
        counts.insert(address, count + 1);
        Some(HeldAddress {
            counts: Arc::clone(&self.counts),
            address,
        })
    }
}

/// One connection of an address.
#[derive(Debug)]
struct HeldAddress {
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: IpAddr,
}

impl Drop for HeldAddress {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let network = address.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
    }
}

/// Whether the next connection may do better: this one is gone, its network is, a firewall wants
/// none of it, or files or memory are short just now. Only a socket that is none stays so.
fn is_passing(error: &io::Error) -> bool {
    /// EBADF, EFAULT, EINVAL; ENOTSOCK and EOPNOTSUPP of Linux, then of macOS.
    const FOR_GOOD: [i32; 7] = [9, 14, 22, 88, 95, 38, 102];
    error
        .raw_os_error()
        .is_none_or(|code| !FOR_GOOD.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_most_and_gets_places_back() {
        let addresses = Addresses::new(2);
        let of = |text: &str| text.parse::<IpAddr>().unwrap();
        let one = addresses.hold(of("10.0.0.1")).unwrap();
        let _two = addresses.hold(of("::ffff:10.0.0.1")).unwrap();
        assert!(addresses.hold(of("10.0.0.1")).is_none());
        let _other = addresses.hold(of("10.0.0.2")).unwrap();
        drop(one);
        let _again = addresses.hold(of("10.0.0.1")).unwrap();
        // All of a network of 64 bits is one client's.
        let six = [of("2001:db8::1"), of("2001:db8::ffff:2")];
        let held: Vec<_> = six.iter().map(|six| addresses.hold(*six)).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(addresses.hold(of("2001:db8:0:0:8000::")).is_none());
        assert!(addresses.hold(of("2001:db8:0:1::")).is_some());
        drop(held);
        assert_eq!(addresses.counts.lock().unwrap().len(), 2);
    }

    #[test]
    fn the_refusal_is_whole() {
        let text = std::str::from_utf8(TOO_MANY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.ends_with(&format!("content-length: {}", body.len())),
            "{head}"
        );
        let json: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(json["error"]["code"], "too_many_connections");
    }
}
