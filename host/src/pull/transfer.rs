//! A file over HTTP, whole: resumed after errors, kills and reboots.
//!
//! In: a URL. Out: a [`Partial`] with every byte that the server promised. What is on disk from an
//! earlier try counts only while the server's validator is the same (ETag or date, by If-Range);
//! what a server says of sizes is compared with what it sends.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use ureq::http::{StatusCode, header};

use super::{
    Context,
    http::{Exchange, Get, HttpError},
};
use crate::{
    exit_code::Exit,
    failure::Failure,
    interrupt::Interrupt,
    partial::{self, Partial, PartialError, Validator},
    ui,
};

/// Tries without one more byte than before.
const TRIES_MAX: u32 = 5;
/// Before the second try; doubled before each one after it.
const WAIT_MIN: Duration = Duration::from_millis(250);
/// A server that asks for a longer pause is not asked again.
const WAIT_MAX: Duration = Duration::from_secs(120);
/// More than the largest models have.
pub(crate) const FILE_BYTES_MAX: u64 = 2 << 40;
/// More than any hub's description of a repository.
const TEXT_BYTES_MAX: usize = 32 << 20;

/// What to download.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) url: String,
    pub(crate) token: Option<String>,
    /// What the source says elsewhere.
    pub(crate) size_bytes: Option<u64>,
    /// Whether a digest of it is known.
    pub(crate) pinned: bool,
}

/// Why a file did not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransferError {
    /// The exchange.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The disk.
    #[error(transparent)]
    Partial(#[from] PartialError),
    /// Two statements of the size differ.
    #[error("{url} has {found} bytes, and {expected} were announced")]
    Size {
        url: String,
        expected: u64,
        found: u64,
    },
    /// It ended early.
    #[error("{url} ended after {found} of {expected} bytes")]
    Short {
        url: String,
        expected: u64,
        found: u64,
    },
    /// The bytes on disk belong to another version.
    #[error("{url} changed while it was downloaded")]
    Changed { url: String },
    /// Compressed on the way, though that was not asked for.
    #[error("{url} came encoded as {encoding}, which was not asked for")]
    Encoded { url: String, encoding: String },
    /// Not a size that a model has.
    #[error("{url} has more than {FILE_BYTES_MAX} bytes")]
    TooLarge { url: String },
}

impl TransferError {
    fn retry(&self) -> Option<Duration> {
        match self {
            Self::Http(error) => error.retry(),
            Self::Short { .. } | Self::Changed { .. } => Some(Duration::ZERO),
            _ => None,
        }
    }
}

impl From<TransferError> for Failure {
    fn from(error: TransferError) -> Self {
        let error = match error {
            TransferError::Partial(error) => return error.into(),
            other => other,
        };
        let (exit, help) = match &error {
            TransferError::Http(HttpError::Interrupted) => return Self::interrupted(),
            TransferError::Http(HttpError::Status { status, .. }) => {
                let help = match *status {
                    StatusCode::NOT_FOUND => "check the address: there is no such file",
                    StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                        "the file is not public; for a hub, set HF_TOKEN to a token that may read it"
                    }
                    _ => "try again later",
                };
                let exit = if status.is_client_error() {
                    Exit::USAGE
                } else {
                    Exit::HOST_FAILED
                };
                (exit, help.to_owned())
            }
            TransferError::Http(
                HttpError::Url { .. } | HttpError::Insecure { .. } | HttpError::Redirects { .. },
            ) => (Exit::USAGE, format!("wanted {}", super::FORMS)),
            TransferError::Http(_) | TransferError::Short { .. } => (
                Exit::HOST_FAILED,
                "run the same command again: it goes on where this one ended".to_owned(),
            ),
            _ => (
                Exit::HOST_FAILED,
                "the server does not do what it says; try another".to_owned(),
            ),
        };
        Self::new(exit, error).help(help)
    }
}

/// Downloads a file, or the rest of it.
///
/// # Errors
/// A failure whose help says whether another run goes on.
pub(crate) fn download(context: Context<'_>, request: &Request) -> Result<Partial, Failure> {
    let partial = Partial::of(context.home, &request.url)?;
    let (mut tries, mut most) = (0, partial.len()?);
    loop {
        let error = match attempt(context, request, &partial) {
            Ok(()) => return Ok(partial),
            Err(error) => error,
        };
        let length = partial.len()?;
        if length > most {
            (tries, most) = (0, length);
        }
        tries += 1;
        let Some(wanted) = error
            .retry()
            .filter(|wait| *wait <= WAIT_MAX && tries < TRIES_MAX)
        else {
            if length == 0 {
                partial.discard();
            }
            return Err(kept(error.into(), length));
        };
        context.ui.note(&format!("{error}; trying again"));
        pause(
            wanted.max(WAIT_MIN * 2u32.pow(tries - 1)),
            context.interrupt,
        )?;
    }
}

/// Says what a next run will find.
fn kept(failure: Failure, length: u64) -> Failure {
    if failure.exit == Exit::INTERRUPTED && length > 0 {
        let kept = format!(
            "{} are kept: the same command goes on there",
            ui::size(length)
        );
        return failure.help(kept);
    }
    failure
}

fn pause(time: Duration, interrupt: &Interrupt) -> Result<(), Failure> {
    let started = Instant::now();
    while started.elapsed() < time {
        if interrupt.requested() {
            return Err(Failure::interrupted());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// One exchange: from what is on disk to the end of the file.
fn attempt(
    context: Context<'_>,
    request: &Request,
    partial: &Partial,
) -> Result<(), TransferError> {
    let validator = partial.validator();
    // Without a validator nobody knows what the bytes on disk belong to, unless a digest will tell.
    let have = match partial.len()? {
        length if validator.tag.is_some() || request.pinned => length,
        _ => 0,
    };
    let get = Get {
        url: request.url.clone(),
        token: request.token.clone(),
        from: have,
        if_range: validator.tag.clone(),
        pinned: request.pinned,
    };
    let mut exchange = Exchange::start(get, context.interrupt)?;
    let changed = || {
        partial.restart(&Validator::default())?;
        let url = request.url.clone();
        Err(TransferError::Changed { url })
    };
    let (have, size) = match exchange.status {
        StatusCode::OK => {
            let size = begin(request, partial, &exchange)?;
            (0, size)
        }
        StatusCode::PARTIAL_CONTENT => match resumed(&exchange, have, &validator) {
            Some(size) => (have, size),
            None => return changed(),
        },
        StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => {
            // All of it is here already, if the server means the same file.
            let total = exchange.header(header::CONTENT_RANGE);
            let total = total.and_then(|range| range.strip_prefix("bytes */")?.parse().ok());
            match total {
                Some(total) if total == have && validator.size_bytes == Some(total) => {
                    return Ok(());
                }
                _ => return changed(),
            }
        }
        _ => return Err(exchange.refused().into()),
    };
    let received = receive(context, request, partial, &mut exchange, have, size)?;
    match size.or(request.size_bytes) {
        Some(expected) if expected != received => Err(TransferError::Short {
            url: request.url.clone(),
            expected,
            found: received,
        }),
        _ => Ok(()),
    }
}

/// The whole file comes: what is on disk goes.
fn begin(
    request: &Request,
    partial: &Partial,
    exchange: &Exchange,
) -> Result<Option<u64>, TransferError> {
    let url = || request.url.clone();
    if let Some(encoding) = exchange.header(header::CONTENT_ENCODING)
        && encoding != "identity"
    {
        let encoding = encoding.to_owned();
        return Err(TransferError::Encoded {
            url: url(),
            encoding,
        });
    }
    let length = exchange.header(header::CONTENT_LENGTH);
    let size_bytes: Option<u64> = length.and_then(|length| length.parse().ok());
    if let (Some(expected), Some(found)) = (request.size_bytes, size_bytes)
        && expected != found
    {
        return Err(TransferError::Size {
            url: url(),
            expected,
            found,
        });
    }
    if size_bytes.is_some_and(|size| size > FILE_BYTES_MAX) {
        return Err(TransferError::TooLarge { url: url() });
    }
    partial.restart(&Validator {
        tag: tag(exchange),
        size_bytes,
    })?;
    if let Some(size) = size_bytes {
        let folder = partial.path().parent().unwrap_or(partial.path());
        partial::check_space(folder, size)?;
    }
    Ok(size_bytes)
}

/// A strong ETag, or the date of the last change: what If-Range takes.
fn tag(exchange: &Exchange) -> Option<String> {
    let strong = exchange
        .header(header::ETAG)
        .filter(|tag| !tag.starts_with("W/"));
    let found = strong.or_else(|| exchange.header(header::LAST_MODIFIED));
    found.map(str::to_owned)
}

/// The size of the whole file, if the answer goes on where the bytes on disk end.
fn resumed(exchange: &Exchange, have: u64, validator: &Validator) -> Option<Option<u64>> {
    let range = exchange
        .header(header::CONTENT_RANGE)?
        .strip_prefix("bytes ")?;
    let (range, total) = range.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    let total = total.parse::<u64>().ok();
    let same_tag = match (tag(exchange), &validator.tag) {
        (Some(new), Some(old)) => new == *old,
        _ => true,
    };
    let same_size = match (total, validator.size_bytes) {
        (Some(new), Some(old)) => new == old,
        _ => true,
    };
    let fits = first.parse() == Ok(have) && same_tag && same_size;
    fits.then_some(total.or(validator.size_bytes))
}

/// Writes what comes; the length of the file at the end.
fn receive(
    context: Context<'_>,
    request: &Request,
    partial: &Partial,
    exchange: &mut Exchange,
    have: u64,
    size: Option<u64>,
) -> Result<u64, TransferError> {
    let bar = match size.or(request.size_bytes) {
        Some(size) => context.ui.bytes_bar("downloading", size),
        None => context.ui.unsized_bar("downloading"),
    };
    bar.start_at(have);
    let mut length = have;
    while let Some(bytes) = exchange.chunk(context.interrupt)? {
        length += bytes.len() as u64;
        // A server that sends more than it said, or never ends.
        if length > size.unwrap_or(FILE_BYTES_MAX) {
            partial.restart(&Validator::default())?;
            let url = request.url.clone();
            return Err(match size {
                Some(expected) => TransferError::Size {
                    url,
                    expected,
                    found: length,
                },
                None => TransferError::TooLarge { url },
            });
        }
        partial
            .file()
            .write_all(&bytes)
            .map_err(|source| PartialError::Io {
                path: partial.path().to_owned(),
                source,
            })?;
        bar.set(length);
    }
    Ok(length)
}

/// A short text, such as a hub's answer; tried as often as a file.
///
/// # Errors
/// As [`download`].
pub(crate) fn text(context: Context<'_>, request: &Request) -> Result<Vec<u8>, Failure> {
    let mut tries = 0;
    loop {
        let error = match read_text(context, request) {
            Ok(text) => return Ok(text),
            Err(error) => error,
        };
        tries += 1;
        let Some(wanted) = error
            .retry()
            .filter(|wait| *wait <= WAIT_MAX && tries < TRIES_MAX)
        else {
            return Err(error.into());
        };
        pause(
            wanted.max(WAIT_MIN * 2u32.pow(tries - 1)),
            context.interrupt,
        )?;
    }
}

fn read_text(context: Context<'_>, request: &Request) -> Result<Vec<u8>, TransferError> {
    let get = Get {
        url: request.url.clone(),
        token: request.token.clone(),
        pinned: request.pinned,
        ..Get::default()
    };
    let mut exchange = Exchange::start(get, context.interrupt)?;
    if exchange.status != StatusCode::OK {
        return Err(exchange.refused().into());
    }
    let mut text = Vec::new();
    while let Some(bytes) = exchange.chunk(context.interrupt)? {
        text.extend(bytes);
        if text.len() > TEXT_BYTES_MAX {
            let url = request.url.clone();
            return Err(TransferError::TooLarge { url });
        }
    }
    Ok(text)
}
