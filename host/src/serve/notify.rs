//! Tells the service manager that started the daemon how it is: systemd's notification protocol.
//!
//! In: what to say. Out: one datagram to the socket that `NOTIFY_SOCKET` names; nothing where
//! there is none. What the manager makes of it is its own affair, so nothing here fails.
//! <https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html> has the format.

use std::{ffi::OsStr, io, os::unix::net::UnixDatagram};

/// Clients are served.
pub(super) const READY: &str = "READY=1";
/// No more jobs are taken.
pub(super) const STOPPING: &str = "STOPPING=1";

/// Says it to the manager, if there is one.
pub(super) fn notify(state: &str) {
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET") {
        // A manager that is gone needs no word.
        let _ = send(&socket, state);
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    match socket.as_encoded_bytes() {
        [b'/', ..] => sender.send_to(state.as_bytes(), socket)?,
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => {
            use std::os::{linux::net::SocketAddrExt as _, unix::net::SocketAddr};
            sender.send_to_addr(state.as_bytes(), &SocketAddr::from_abstract_name(name)?)?
        }
        _ => return Err(io::ErrorKind::Unsupported.into()),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(listener: &UnixDatagram) -> String {
        let mut bytes = [0; 64];
        let count = listener.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    #[test]
    fn the_manager_hears_it_by_a_path_or_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), READY).unwrap();
        assert_eq!(heard(&listener), "READY=1");
        #[cfg(target_os = "linux")]
        {
            use std::os::{linux::net::SocketAddrExt as _, unix::net::SocketAddr};
            let name = format!("tussah-notify-{}", std::process::id());
            let address = SocketAddr::from_abstract_name(&name).unwrap();
            let listener = UnixDatagram::bind_addr(&address).unwrap();
            send(OsStr::new(&format!("@{name}")), STOPPING).unwrap();
            assert_eq!(heard(&listener), "STOPPING=1");
        }
        for nobody in ["", "notify", "vsock:2:1", "/no/such/socket"] {
            assert!(send(OsStr::new(nobody), READY).is_err(), "{nobody}");
        }
    }
}
