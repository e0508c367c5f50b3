//! The daemon: the gateway's process, which starts the signer and the worker and looks after them.
//!
//! In: settings, the home folder. Out: an HTTP service until a signal ends it. This process runs
//! no module and signs nothing; what it starts gets a socket, a cleared environment and nothing
//! else of it. A worker that dies is started again, after a while that grows; without its signer
//! the daemon ends, since nothing could be finished.

mod child;

pub(crate) use child::child_socket;

/// The daemon's folder below the home folder.
pub(crate) const FOLDER: &str = "serve";
/// The ledger, in that folder.
pub(crate) const LEDGER: &str = "ledger.sqlite";
