//! Blobs to a provider, in pieces: what is there already is not sent again.
//!
//! In: a blob and a provider. Out: a provider that has it. A line that breaks costs the piece that
//! was under way.

use tussah_manifest::Digest;
use ureq::http::{Method, StatusCode, header};

use super::{Call, Patience, Remote, RemoteError};
use crate::ui::Ui;

/// Bytes of one piece: what is sent again after a line broke, and a step of the progress bar.
const PIECE_BYTES: usize = 1 << 20;

/// Times that the provider may say that a piece begins at another place than it said before.
const TRIES_MAX: u32 = 5;

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Uploaded {
    pub(crate) bytes: u64,
}

/// Makes sure that a provider has a blob.
///
/// # Errors
/// [`RemoteError`] if it does not take it, or the line stays broken.
pub(crate) fn upload(
    remote: &Remote,
    label: &'static str,
    blob: &[u8],
    ui: &Ui,
) -> Result<Uploaded, RemoteError> {
    let digest = Digest::of(blob);
    let total = u64::try_from(blob.len()).unwrap_or(u64::MAX);
    let mut uploaded = Uploaded::default();
    let Some(there) = missing_from(remote, &digest)? else {
        return Ok(uploaded);
    };
    let mut offset = resume_at(there, total);
    let bar = ui.bytes_bar(label, total);
    bar.start_at(offset);
    let mut patience = Patience::new();
    let mut at_offset = 0;
    while offset < total {
        match piece(remote, &digest, blob, offset) {
            Ok(Some(next)) if next > offset && next <= total => {
                uploaded.bytes += next - offset;
                offset = next;
                patience.renew();
                at_offset = 0;
                bar.set(offset);
                continue;
            }
            // It was whole before, by somebody else's hand.
            Ok(None) => return Ok(uploaded),
            Ok(Some(next)) => {
                let message = format!("after {offset} of {total} bytes it says it has {next}");
                return Err(RemoteError::Nonsense(message));
            }
            Err(error) if error.is_refusal("wrong_offset") && at_offset < TRIES_MAX => {
                at_offset += 1;
            }
            Err(error) => patience.after(error, remote)?,
        }
        // How much of the piece has arrived, only the provider knows.
        match missing_from(remote, &digest)? {
            Some(there) => offset = resume_at(there, total),
            None => return Ok(uploaded),
        }
    }
    Ok(uploaded)
}

/// Where to go on. As many bytes as the whole has, and yet no blob, are not its bytes.
const fn resume_at(there: u64, total: u64) -> u64 {
    if there < total { there } else { 0 }
}

/// From which byte on the provider lacks the blob; `None` if it has all of it.
fn missing_from(remote: &Remote, digest: &Digest) -> Result<Option<u64>, RemoteError> {
    let mut patience = Patience::new();
    loop {
        let call = Call::new(Method::HEAD, path_of(digest));
        let exchange = match remote.send(&call) {
            Ok(exchange) => exchange,
            Err(error) => {
                patience.after(error, remote)?;
                continue;
            }
        };
        return match exchange.status {
            StatusCode::OK => Ok(None),
            StatusCode::NOT_FOUND => Ok(Some(0)),
            StatusCode::NO_CONTENT => {
                let offset = exchange.header(header::HeaderName::from_static("upload-offset"));
                let offset = offset.and_then(|text| text.parse().ok());
                let nonsense = || RemoteError::Nonsense("no `upload-offset`".to_owned());
                offset.map(Some).ok_or_else(nonsense)
            }
            _ => {
                let error = remote.refusal(exchange);
                patience.after(error, remote)?;
                continue;
            }
        };
    }
}

/// Sends the piece from `offset` on; how much is there afterwards, `None` if all was before.
fn piece(
    remote: &Remote,
    digest: &Digest,
    blob: &[u8],
    offset: u64,
) -> Result<Option<u64>, RemoteError> {
    let from = usize::try_from(offset)
        .unwrap_or(usize::MAX)
        .min(blob.len());
    let to = from.saturating_add(PIECE_BYTES).min(blob.len());
    let range = format!("bytes {from}-{}/{}", to.saturating_sub(1), blob.len());
    let call = Call::new(Method::PUT, path_of(digest))
        .header(header::CONTENT_RANGE, range)
        .body(blob[from..to].to_vec());
    let answer = remote.ask_once(&call, super::ANSWER_BYTES_MAX)?;
    match answer.status {
        StatusCode::OK => Ok(None),
        StatusCode::CREATED => Ok(Some(u64::try_from(blob.len()).unwrap_or(u64::MAX))),
        _ => {
            let bytes = answer.json()?["bytes"]
                .as_str()
                .and_then(|text| text.parse().ok());
            let nonsense = || RemoteError::Nonsense("no count of bytes".to_owned());
            bytes.map(Some).ok_or_else(nonsense)
        }
    }
}

fn path_of(digest: &Digest) -> String {
    format!("/v1/blobs/{}", digest.to_hex())
}
