//! `Timed`: a connection whose other end has to read.
//!
//! In: a stream. Out: the same, whose writes fail once nothing could be written for a time. Reads
//! are left alone: how long a request may take is the business of who reads it.

use std::error::Error;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Nothing could be written for the time that there is.
#[derive(Debug, thiserror::Error)]
#[error("the client read nothing for {} ms", .0.as_millis())]
struct Stalled(Duration);

/// Whether this error, or one that caused it, is that of a client that does not read.
pub(super) fn is_stalled(error: &(dyn Error + 'static)) -> bool {
    let mut at = Some(error);
    while let Some(error) = at {
        let io = error.downcast_ref::<io::Error>();
        if io
            .and_then(io::Error::get_ref)
            .is_some_and(|inner| inner.is::<Stalled>())
        {
            return true;
        }
        at = error.source();
    }
    false
}

/// A stream whose writes have a time-out.
#[derive(Debug)]
pub(super) struct Timed<S> {
    stream: S,
    time_max: Duration,
    /// Set while nothing can be written.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Timed<S> {
    pub(super) fn new(stream: S, time_max: Duration) -> Self {
        Self {
            stream,
            time_max,
            stalled: None,
        }
    }

    fn bounded<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let time_max = self.time_max;
        let sleep = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(time_max)));
        ready!(sleep.as_mut().poll(context));
        let stalled = io::Error::new(io::ErrorKind::TimedOut, Stalled(time_max));
        Poll::Ready(Err(stalled))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.bounded(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.bounded(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.bounded(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.bounded(context, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn who_reads_is_waited_for_and_who_does_not_is_not() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (near, mut far) = tokio::io::duplex(4);
            let mut near = Timed::new(near, Duration::from_millis(300));
            let mut heard = [0; 8];
            let (written, read) =
                tokio::join!(near.write_all(b"all read"), far.read_exact(&mut heard));
            written.unwrap();
            read.unwrap();
            let error = near.write_all(b"and nothing").await.unwrap_err();
            assert_eq!(error.to_string(), "the client read nothing for 300 ms");
            assert!(is_stalled(&error));
            assert!(!is_stalled(&io::Error::other("something else")));
        });
    }
}
