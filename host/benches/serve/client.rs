//! Clients: each has one connection that it keeps, and asks for one job after the other.
//!
//! It speaks as much of HTTP/1.1 as this server answers with, and no more: it shares the machine
//! with what it measures.

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::LocalSet,
};

use super::{Result, daemon::Daemon, figures::Spread};

/// How long a client that was refused waits before it asks again.
const PAUSE: Duration = Duration::from_millis(50);

/// When jobs are asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// Each client asks again when it was answered.
    Fastest,
    /// So many a second of all clients together, each at its own moment: a job is timed from then,
    /// also where its client was still busy with the one before.
    Rate(f64),
}

/// What came of a load.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// From asking to the end of the job, of those that were done.
    times: Vec<Duration>,
    /// Answers 429.
    pub(crate) refused: usize,
    /// Other answers than a job that is done.
    pub(crate) failed: usize,
    took: Duration,
}

impl Load {
    fn count(&mut self, status: u16, done: bool, due: Instant) {
        match (status, done) {
            (200, true) => self.times.push(due.elapsed()),
            (429, _) => self.refused += 1,
            _ => self.failed += 1,
        }
    }

    pub(crate) fn spread(&self) -> Spread {
        Spread::of(&mut self.times.clone())
    }

    /// Jobs that were done, a second.
    pub(crate) fn rate(&self) -> f64 {
        count(self.times.len()) / self.took.as_secs_f64()
    }

    pub(crate) fn accepted_share(&self) -> f64 {
        let all = self.times.len() + self.refused + self.failed;
        count(self.times.len()) / count(all.max(1))
    }
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}

/// So many clients ask for so many jobs in all.
///
/// # Errors
/// The connection's.
pub(crate) async fn load(daemon: &Daemon, clients: u32, jobs: u32, pace: Pace) -> Result<Load> {
    let load = Rc::new(RefCell::new(Load::default()));
    let next = Rc::new(RefCell::new(0..jobs));
    let request = Rc::new(request(daemon));
    let begun = Instant::now();
    let local = LocalSet::new();
    let mut all = Vec::new();
    for _ in 0..clients {
        let mut connection = Connection::open(&daemon.address).await?;
        let (load, next, request) = (Rc::clone(&load), Rc::clone(&next), Rc::clone(&request));
        all.push(local.spawn_local(async move {
            loop {
                let Some(number) = next.borrow_mut().next() else {
                    return Ok::<_, std::io::Error>(());
                };
                let due = match pace {
                    Pace::Fastest => Instant::now(),
                    Pace::Rate(rate) => begun + Duration::from_secs_f64(f64::from(number) / rate),
                };
                // A timer is a millisecond late at best: who is due at once does not set one.
                if Instant::now() < due {
                    tokio::time::sleep_until(due.into()).await;
                }
                let (status, done) = connection.ask(&request).await?;
                load.borrow_mut().count(status, done, due);
                if status == 429 && matches!(pace, Pace::Fastest) {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }));
    }
    local.await;
    for task in all {
        task.await??;
    }
    let mut load = load.take();
    load.took = begun.elapsed();
    Ok(load)
}

/// One job, answered when it has ended.
fn request(daemon: &Daemon) -> Vec<u8> {
    let body = r#"{"model":"null","input":""}"#;
    format!(
        "POST /v1/jobs HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nPrefer: wait=60\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        daemon.address,
        daemon.key,
        body.len()
    )
    .into_bytes()
}

/// A connection, and what of an answer has come.
struct Connection {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Connection {
    async fn open(address: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            bytes: Vec::with_capacity(8192),
        })
    }

    /// The answer's status, and whether it is of a job that is done.
    async fn ask(&mut self, request: &[u8]) -> std::io::Result<(u16, bool)> {
        self.stream.write_all(request).await?;
        self.bytes.clear();
        loop {
            if self.stream.read_buf(&mut self.bytes).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if let Some((status, body)) = whole(&self.bytes) {
                let done = find(body, br#""status":"done""#).is_some();
                return Ok((status, done));
            }
        }
    }
}

/// The status and the body of an answer, once all of it is there.
fn whole(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let end = find(bytes, b"\r\n\r\n")?;
    let head = std::str::from_utf8(bytes.get(..end)?).ok()?;
    let status = head.get(9..12)?.parse().ok()?;
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    let length = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
    let length: usize = length.1.trim().parse().ok()?;
    let body = bytes.get(end + 4..end + 4 + length)?;
    Some((status, body))
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}
