//! The daemon's children: this program again, with a socket for standard input.

use std::os::{fd::AsFd as _, unix::net::UnixStream};

use crate::failure::Failure;

/// The socket that this process was started with; it does not block.
///
/// # Errors
/// A usage failure if there is none: somebody typed a command that only the daemon uses.
pub(crate) fn child_socket() -> Result<UnixStream, Failure> {
    let refuse = |error: std::io::Error| {
        Failure::usage(error)
            .context("standard input is no socket")
            .help("this command is started by `tussah serve`")
    };
    let socket = std::io::stdin().as_fd().try_clone_to_owned();
    let socket = UnixStream::from(socket.map_err(refuse)?);
    socket.peer_addr().map_err(refuse)?;
    socket.set_nonblocking(true).map_err(refuse)?;
    Ok(socket)
}
