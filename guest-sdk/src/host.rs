//! Where host calls go: to the host that runs the module, or natively to a script.
//!
//! In: calls in the shape of the WIT world. Out: their answers. The rest of the SDK does
//! not know which of the two it talks to.

#[cfg(target_family = "wasm")]
mod wasm;

#[cfg(target_family = "wasm")]
pub(crate) use wasm::{Graph, Model, Session, emit, log, progress, random};

#[cfg(not(target_family = "wasm"))]
pub(crate) use crate::testing::host::{Graph, Model, Session, emit, log, progress, random};
