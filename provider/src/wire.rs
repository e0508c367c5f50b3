//! The protocol between the daemon's processes: one message a frame, over a stream socket.
//!
//! In: messages, or whatever the other side sent. Out: the same messages, or a typed reason why
//! they are none. A frame is four bytes of length, little-endian, and so many bytes of CBOR; its
//! length is checked before memory is taken, and memory is taken as bytes arrive. All processes
//! are of one build, so a message has one spelling and no versions; each side still takes the
//! other for a stranger, since a worker runs strangers' code.

mod messages;

use std::{io, marker::PhantomData};

use minicbor::{Decode, Encode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

pub use messages::{
    Content, Denial, FromSigner, FromWorker, GuestFault, Hello, Isolation, Opening, Posting, Ready,
    RunDone, RunRefused, RunRequest, Secret, SignerHello, ToSigner, ToWorker, WhoseFault,
};

/// The most bytes a message may take in its frame. The largest are a run's input and its opening;
/// who admits jobs has to hold inputs below this, with some room for the documents beside them.
pub const FRAME_BYTES_MAX: usize = 64 << 20;
/// The most bytes of input that surely fit a [`RunRequest`] with all its documents.
pub const INPUT_BYTES_MAX: usize = FRAME_BYTES_MAX - (2 << 20);
/// The most bytes of output or log in one message; more goes out in several.
pub const CHUNK_BYTES_MAX: usize = 256 << 10;

/// Why nothing more can be said over a connection.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// A frame announces, or a message would take, more than [`FRAME_BYTES_MAX`].
    #[error("a message of {found} bytes, of at most {FRAME_BYTES_MAX}")]
    TooLong {
        /// Bytes of it.
        found: usize,
    },
    /// The connection ended within a frame.
    #[error("the connection ended within a message")]
    CutOff,
    /// The bytes are no message of this direction.
    #[error("what came is no message: {message}")]
    Malformed {
        /// What the decoder found.
        message: String,
    },
    /// The socket failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
}

/// The reading half: messages of one type.
#[derive(Debug)]
pub struct FrameReader<R, M> {
    inner: R,
    bytes: Vec<u8>,
    message: PhantomData<fn() -> M>,
}

impl<R: AsyncRead + Unpin, M: for<'b> Decode<'b, ()>> FrameReader<R, M> {
    /// Reads from `inner`, to which a buffer belongs if many messages are small.
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            bytes: Vec::new(),
            message: PhantomData,
        }
    }

    /// The next message; `None` when the other side has closed between two.
    ///
    /// Not to be dropped half-way, as in a `select!`: what was read would be lost. A reader has a
    /// task of its own.
    ///
    /// # Errors
    /// [`WireError`]; nothing that comes after it can be trusted to be a frame.
    pub async fn read(&mut self) -> Result<Option<M>, WireError> {
        let Some(length) = self.read_length().await? else {
            return Ok(None);
        };
        self.bytes.clear();
        let mut body = (&mut self.inner).take(length as u64);
        if body.read_to_end(&mut self.bytes).await? < length {
            return Err(WireError::CutOff);
        }
        let message = decode(&self.bytes)?;
        // One large message must not hold its memory until the connection ends.
        self.bytes.shrink_to(CHUNK_BYTES_MAX);
        Ok(Some(message))
    }

    async fn read_length(&mut self) -> Result<Option<usize>, WireError> {
        let mut length = [0; 4];
        let mut filled = 0;
        while let Some(rest) = length.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.inner.read(rest).await? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(WireError::CutOff),
                read => filled += read,
            }
        }
        let found = u32::from_le_bytes(length) as usize;
        if found > FRAME_BYTES_MAX {
            return Err(WireError::TooLong { found });
        }
        Ok(Some(found))
    }
}

impl<R: AsyncRead + Unpin, M: for<'b> Decode<'b, ()>> FrameReader<BufReader<R>, M> {
    /// Whether the next frame is here already, so that reading it does not wait.
    pub fn has_next(&self) -> bool {
        let bytes = self.inner.buffer();
        bytes.first_chunk().is_some_and(|length| {
            let length = u32::from_le_bytes(*length) as usize;
            bytes.len() - 4 >= length
        })
    }
}

/// The writing half: messages of one type.
#[derive(Debug)]
pub struct FrameWriter<W, M> {
    inner: W,
    bytes: Vec<u8>,
    message: PhantomData<fn(M)>,
}

impl<W: AsyncWrite + Unpin, M: Encode<()>> FrameWriter<W, M> {
    /// Writes to `inner`, each message at once.
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            bytes: Vec::new(),
            message: PhantomData,
        }
    }

    /// Sends one message; returns when the socket has taken all of it.
    ///
    /// # Errors
    /// [`WireError::TooLong`], after which the connection can go on, since nothing was sent;
    /// [`WireError::Io`] if the other side is gone.
    pub async fn write(&mut self, message: &M) -> Result<(), WireError> {
        self.put(message)?;
        self.send().await
    }

    /// Adds a message to those that [`FrameWriter::send`] will send together; whether there is room
    /// for another.
    ///
    /// # Errors
    /// [`WireError::TooLong`]; the message was not added.
    pub fn put(&mut self, message: &M) -> Result<bool, WireError> {
        append(&mut self.bytes, message)?;
        Ok(self.bytes.len() < CHUNK_BYTES_MAX)
    }

    /// Sends what was added; returns when the socket has taken all of it.
    ///
    /// # Errors
    /// [`WireError::Io`] if the other side is gone.
    pub async fn send(&mut self) -> Result<(), WireError> {
        let sent = self.inner.write_all(&self.bytes).await;
        self.bytes.clear();
        self.bytes.shrink_to(CHUNK_BYTES_MAX);
        sent?;
        Ok(self.inner.flush().await?)
    }

    /// Says that nothing more will come.
    ///
    /// # Errors
    /// [`WireError::Io`].
    pub async fn close(&mut self) -> Result<(), WireError> {
        Ok(self.inner.shutdown().await?)
    }
}

/// Adds a whole frame to `bytes`; leaves them as they were on an error.
fn append<M: Encode<()>>(bytes: &mut Vec<u8>, message: &M) -> Result<(), WireError> {
    let start = bytes.len();
    bytes.extend([0; 4]);
    minicbor::encode(message, &mut *bytes).expect("writing CBOR to memory cannot fail");
    let found = bytes.len() - start - 4;
    let length = match u32::try_from(found) {
        Ok(length) if found <= FRAME_BYTES_MAX => length,
        _ => {
            bytes.truncate(start);
            return Err(WireError::TooLong { found });
        }
    };
    bytes[start..start + 4].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

/// A message from the bytes of a frame, all of them.
fn decode<M: for<'b> Decode<'b, ()>>(bytes: &[u8]) -> Result<M, WireError> {
    let malformed = |message: String| WireError::Malformed { message };
    let mut decoder = minicbor::Decoder::new(bytes);
    let message = decoder
        .decode()
        .map_err(|error| malformed(error.to_string()))?;
    match bytes.len() - decoder.position() {
        0 => Ok(message),
        more => Err(malformed(format!("{more} bytes more than a message has"))),
    }
}

#[cfg(test)]
mod tests;
