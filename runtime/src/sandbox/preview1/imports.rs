//! The complete list of what a preview 1 module may import, and the check against it.
//!
//! In: bytes that are known to be a core module. Out: nothing, or the import that is not
//! offered. The list is what Rust's std and wasi-libc link; the functions on paths and files are
//! there because a C library links them into modules that never call them, and find no folder.

use wasmparser::{Parser, Payload};

use crate::sandbox::imports::ModuleError;

/// WASI preview 1, in the order of its specification.
const WASI: &[&str] = &[
    "args_get",
    "args_sizes_get",
    "environ_get",
    "environ_sizes_get",
    "clock_res_get",
    "clock_time_get",
    "fd_close",
    "fd_datasync",
    "fd_fdstat_get",
    "fd_fdstat_set_flags",
    "fd_filestat_get",
    "fd_filestat_set_size",
    "fd_filestat_set_times",
    "fd_pread",
    "fd_prestat_get",
    "fd_prestat_dir_name",
    "fd_pwrite",
    "fd_read",
    "fd_readdir",
    "fd_seek",
    "fd_sync",
    "fd_tell",
    "fd_write",
    "path_create_directory",
    "path_filestat_get",
    "path_filestat_set_times",
    "path_link",
    "path_open",
    "path_readlink",
    "path_remove_directory",
    "path_rename",
    "path_symlink",
    "path_unlink_file",
    "poll_oneoff",
    "proc_exit",
    "random_get",
    "sched_yield",
];

/// wasi-nn, as the crate `wasi-nn` 0.6 imports it.
const NN: &[&str] = &[
    "load",
    "load_by_name",
    "init_execution_context",
    "set_input",
    "compute",
    "get_output",
];

/// Checks the imports of a core module.
///
/// # Errors
/// The first import that is not offered, or what cannot be parsed.
pub(crate) fn check(module: &[u8]) -> Result<(), ModuleError> {
    for payload in Parser::new(0).parse_all(module) {
        let Payload::ImportSection(section) = payload.map_err(ModuleError::Invalid)? else {
            continue;
        };
        for import in section.into_imports() {
            let import = import.map_err(ModuleError::Invalid)?;
            check_import(import.module, import.name)?;
        }
    }
    Ok(())
}

fn check_import(module: &str, name: &str) -> Result<(), ModuleError> {
    let reason = match module {
        "wasi_snapshot_preview1" if WASI.contains(&name) => return Ok(()),
        "wasi_ephemeral_nn" if NN.contains(&name) => return Ok(()),
        "wasi_snapshot_preview1" if name.starts_with("sock_") => {
            "there is no network in the sandbox; take data from the job's input instead"
        }
        "wasi_snapshot_preview1" => {
            "only what Rust's std and wasi-libc link by themselves is offered"
        }
        "wasi_ephemeral_nn" => "wasi-nn is offered as the crate `wasi-nn` 0.6 imports it",
        _ => {
            "modules of abi preview1 import from wasi_snapshot_preview1 and wasi_ephemeral_nn alone"
        }
    };
    Err(ModuleError::Import {
        import: format!("{module}::{name}"),
        reason,
    })
}

#[cfg(test)]
mod tests {
    use wasmtime::{Engine, Module};

    use super::*;

    #[test]
    fn every_offered_import_is_linked() {
        let engine = Engine::default();
        let linker = crate::sandbox::preview1::linker(&engine).expect("it links");
        for (module, names) in [("wasi_snapshot_preview1", WASI), ("wasi_ephemeral_nn", NN)] {
            for name in names {
                let text = format!("(module (import \"{module}\" \"{name}\" (global i32)))");
                let bytes = wat::parse_str(text).expect("wasm");
                let wrong = Module::new(&engine, bytes).expect("wasm");
                let error = linker.instantiate_pre(&wrong).map(drop);
                let error = format!("{:#}", error.expect_err("it is no global"));
                // The complaint is of the type, not of something unknown.
                assert!(
                    error.contains("incompatible import type"),
                    "{name}: {error}"
                );
            }
        }
    }
}
