//! `Link`: one end of the socket between two of the daemon's processes.
//!
//! In: a socket that does not block. Out: bytes in both directions, within a runtime. It waits for
//! what it needs and no more: the system calls a Unix socket writable again whenever the other side
//! has read, and a process that listens for that is woken once more for each message.

use std::{
    io::{self, Read as _, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{
    AsyncRead, AsyncWrite, Interest, ReadBuf,
    unix::{AsyncFd, AsyncFdRegisterError},
};

/// A socket of the runtime that it was made in.
#[derive(Debug)]
pub(crate) struct Link {
    socket: AsyncFd<UnixStream>,
    /// The same socket, to be waited for when there is no room in it: made beforehand, since a
    /// process that has no descriptor left still has to write.
    spare: Option<UnixStream>,
    /// The spare one, while there is no room.
    full: Option<AsyncFd<UnixStream>>,
}

impl Link {
    /// Takes a socket that does not block. To be called within a runtime.
    ///
    /// # Errors
    /// [`io::Error`] if the runtime cannot wait for it, or there is no second descriptor.
    pub(crate) fn new(socket: UnixStream) -> io::Result<Self> {
        Ok(Self {
            spare: Some(socket.try_clone()?),
            socket: register(socket, Interest::READABLE)?,
            full: None,
        })
    }
}

fn register(
    socket: UnixStream,
    interest: Interest,
) -> Result<AsyncFd<UnixStream>, AsyncFdRegisterError<UnixStream>> {
    #[expect(
        unsafe_code,
        reason = "tokio's word for a descriptor that stays what it is"
    )]
    // SAFETY: a `UnixStream` owns an open socket until it is dropped, and nothing here takes it out.
    unsafe {
        AsyncFd::register_with_interest(socket, interest)
    }
}

impl AsyncRead for Link {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.socket.poll_read_ready(context))?;
            let read = ready.try_io(|socket| socket.get_ref().read(buffer.initialize_unfilled()));
            match read {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            if let Some(full) = &self.full {
                ready!(full.poll_write_ready(context))?.clear_ready();
            }
            match self.socket.get_ref().write(bytes) {
                Ok(count) => {
                    if let Some(full) = self.full.take() {
                        self.spare = Some(full.into_inner());
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Some(spare) = self.spare.take() {
                        match register(spare, Interest::WRITABLE) {
                            Ok(full) => self.full = Some(full),
                            Err(failed) => {
                                let (spare, error) = failed.into_parts();
                                self.spare = Some(spare);
                                return Poll::Ready(Err(error));
                            }
                        }
                    }
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.socket.get_ref().shutdown(Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn pair() -> (Link, Link) {
        let (one, other) = UnixStream::pair().unwrap();
        let link = |socket: UnixStream| {
            socket.set_nonblocking(true).unwrap();
            Link::new(socket).unwrap()
        };
        (link(one), link(other))
    }

    #[tokio::test]
    async fn more_than_the_socket_holds_comes_through_whole_both_ways_at_once() {
        let (one, other) = pair();
        let bytes: Vec<u8> = (0..4_000_000_u32)
            .map(|at| (at / 251).to_le_bytes()[0])
            .collect();
        let both = [one, other].map(|link| {
            let bytes = bytes.clone();
            tokio::spawn(async move {
                let (mut reader, mut writer) = tokio::io::split(link);
                let sent = bytes.clone();
                let writing = tokio::spawn(async move {
                    writer.write_all(&sent).await.unwrap();
                    writer.shutdown().await.unwrap();
                    writer
                });
                let mut found = Vec::new();
                reader.read_to_end(&mut found).await.unwrap();
                assert!(found == bytes);
                writing.await.unwrap()
            })
        });
        for task in both {
            task.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_writer_learns_that_the_other_side_is_gone() {
        let (mut one, other) = pair();
        drop(other);
        let error = one.write_all(b"anybody?").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(one.read(&mut [0; 8]).await.unwrap(), 0);
    }

    /// A full socket is waited for, and only as long as it is full.
    #[tokio::test]
    async fn a_socket_with_room_waits_for_nothing_but_bytes() {
        let (mut one, mut other) = pair();
        let much = vec![7; 1 << 20];
        let writing = tokio::spawn(async move {
            one.write_all(&much).await.unwrap();
            one
        });
        let mut found = vec![0; 1 << 20];
        other.read_exact(&mut found).await.unwrap();
        let mut one = writing.await.unwrap();
        one.write_all(b"!").await.unwrap();
        assert!(one.full.is_none() && one.spare.is_some());
    }
}
