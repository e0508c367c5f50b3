//! The complete list of what a guest may import, and the check of a module against it.
//!
//! In: module bytes that nobody has looked at. Out: nothing, or why they cannot be run.
//! The check parses and validates; it compiles nothing.

use tussah_manifest::Abi;
use wasmparser::{ComponentTypeRef, Encoding, Parser, Payload, Validator, WasmFeatures};

use super::preview1;

/// The interfaces that are offered, without their version.
///
/// `tussah:job` is ours, `wasi:nn` is the standard's proposal of one date. The rest is what Rust's standard library links by itself; none of
/// it reaches the machine: the clocks are virtual, random bytes come from the request's
/// nonce, the standard streams are captured, arguments and environment are empty. The
/// filesystem is there because the C library of some toolchains links it into every module;
/// it has no folder, so no file of the host can even be named.
const OFFERED: &[(&str, &str)] = &[
    ("tussah:job/types", "0.1."),
    ("tussah:job/llm", "0.1."),
    ("tussah:job/output", "0.1."),
    ("wasi:nn/errors", "0.2.0-rc-2024-10-28"),
    ("wasi:nn/graph", "0.2.0-rc-2024-10-28"),
    ("wasi:nn/inference", "0.2.0-rc-2024-10-28"),
    ("wasi:nn/tensor", "0.2.0-rc-2024-10-28"),
    ("wasi:io/error", "0.2."),
    ("wasi:io/poll", "0.2."),
    ("wasi:io/streams", "0.2."),
    ("wasi:cli/environment", "0.2."),
    ("wasi:cli/exit", "0.2."),
    ("wasi:cli/stdin", "0.2."),
    ("wasi:cli/stdout", "0.2."),
    ("wasi:cli/stderr", "0.2."),
    ("wasi:cli/terminal-input", "0.2."),
    ("wasi:cli/terminal-output", "0.2."),
    ("wasi:cli/terminal-stdin", "0.2."),
    ("wasi:cli/terminal-stdout", "0.2."),
    ("wasi:cli/terminal-stderr", "0.2."),
    ("wasi:clocks/monotonic-clock", "0.2."),
    ("wasi:filesystem/preopens", "0.2."),
    ("wasi:filesystem/types", "0.2."),
    ("wasi:clocks/wall-clock", "0.2."),
    ("wasi:random/random", "0.2."),
    ("wasi:random/insecure", "0.2."),
    ("wasi:random/insecure-seed", "0.2."),
];

/// Why module bytes cannot be run here.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// Not wasm at all.
    #[error("this is not a WebAssembly module: it does not begin with `\\0asm`")]
    NotWasm,
    /// A core module where a component is needed.
    #[error(
        "this is a core WebAssembly module, and the manifest asks for a component: \
         build it for the target wasm32-wasip2, or write `abi = \"preview1\"`"
    )]
    CoreModule,
    /// A component where a core module is needed.
    #[error(
        "this is a component, and the manifest says `abi = \"preview1\"`: \
         build it for the target wasm32-wasip1, or leave `abi` out"
    )]
    Component,
    /// Cut short, damaged, or with a feature that is off.
    #[error("the module is damaged or uses a feature of WebAssembly that is off here")]
    Invalid(#[source] wasmparser::BinaryReaderError),
    /// Something is imported that jobs do not get.
    #[error("the module imports `{import}`, which jobs do not get: {reason}")]
    Import {
        /// The import's full name.
        import: String,
        /// Why it is not offered, and what to do.
        reason: &'static str,
    },
}

/// The features of wasm that are on; all others are off.
///
/// Off are all whose result may depend on the machine (threads, relaxed SIMD), that need a
/// garbage collector, or that no stable Rust compiler emits for wasm32-wasip2.
pub(crate) const FEATURES: WasmFeatures = WasmFeatures::MUTABLE_GLOBAL
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::SIMD)
    .union(WasmFeatures::FLOATS)
    .union(WasmFeatures::MULTI_MEMORY)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::TAIL_CALL)
    .union(WasmFeatures::CALL_INDIRECT_OVERLONG)
    .union(WasmFeatures::BULK_MEMORY_OPT)
    .union(WasmFeatures::COMPONENT_MODEL);

/// The names under which [`FEATURES`] stand in a profile.
pub(crate) const FEATURE_NAMES: &[&str] = &[
    "bulk-memory",
    "component-model",
    "extended-const",
    "floats",
    "multi-memory",
    "multi-value",
    "mutable-global",
    "reference-types",
    "saturating-float-to-int",
    "sign-extension",
    "simd",
    "tail-call",
];

/// Checks that bytes are a valid module of an ABI which imports nothing but what is offered.
///
/// # Errors
/// The first thing that is wrong, the import by its name.
pub(crate) fn check(module: &[u8], abi: Abi) -> Result<(), ModuleError> {
    if !module.starts_with(b"\0asm") {
        return Err(ModuleError::NotWasm);
    }
    match (abi, Parser::is_core_wasm(module)) {
        (Abi::Component, true) => return Err(ModuleError::CoreModule),
        (Abi::Component, false) => check_imports(module)?,
        (Abi::Preview1, true) => preview1::check(module)?,
        (Abi::Preview1, false) if Parser::is_component(module) => {
            return Err(ModuleError::Component);
        }
        // Neither: the validator says what is wrong with its head.
        (Abi::Preview1, false) => {}
    }
    Validator::new_with_features(FEATURES)
        .validate_all(module)
        .map_err(ModuleError::Invalid)?;
    Ok(())
}

/// Looks at the imports of the outermost component: those of nested ones are given by it.
fn check_imports(module: &[u8]) -> Result<(), ModuleError> {
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(module) {
        match payload.map_err(ModuleError::Invalid)? {
            Payload::Version {
                encoding: Encoding::Module,
                ..
            } if depth == 0 => {
                return Err(ModuleError::CoreModule);
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    let import = import.map_err(ModuleError::Invalid)?;
                    // A type is no capability: it only gives a name to a shape.
                    if !matches!(import.ty, ComponentTypeRef::Type(_)) {
                        check_import(import.name.name)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_import(import: &str) -> Result<(), ModuleError> {
    let refuse = |reason| {
        Err(ModuleError::Import {
            import: import.to_owned(),
            reason,
        })
    };
    let Some((name, version)) = import.split_once('@') else {
        return refuse("imports need the form `namespace:package/interface@version`");
    };
    match OFFERED.iter().find(|(offered, _)| *offered == name) {
        Some((_, prefix)) if version.starts_with(prefix) => Ok(()),
        Some(_) => refuse(
            "this version of the interface is not offered; rebuild with the SDK of this release",
        ),
        None => refuse(reason_against(name)),
    }
}

/// What to say of an interface that is not offered.
fn reason_against(name: &str) -> &'static str {
    match name.split_once('/').map_or(name, |(package, _)| package) {
        "wasi:sockets" | "wasi:http" => {
            "there is no network in the sandbox; take data from the job's input instead"
        }
        _ => {
            "only tussah:job, wasi:nn and the part of WASI that Rust's std links by itself are offered"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_text(wat: &str, expected: &str) {
        let bytes = wat::parse_str(wat).expect("the text is wasm");
        let found = check(&bytes, Abi::Component)
            .map_or_else(|error| error.to_string(), |()| "ok".to_owned());
        assert_eq!(found, expected);
    }

    #[test]
    fn only_offered_interfaces_pass() {
        check_text("(component)", "ok");
        check_text(
            r#"(component (import "tussah:job/output@0.1.0" (instance)))"#,
            "ok",
        );
        check_text(
            r#"(component (import "wasi:io/streams@0.2.6" (instance)))"#,
            "ok",
        );
        check_text(
            r#"(component (import "wasi:sockets/tcp@0.2.0" (instance)))"#,
            "the module imports `wasi:sockets/tcp@0.2.0`, which jobs do not get: there is no \
             network in the sandbox; take data from the job's input instead",
        );
        check_text(
            r#"(component (import "tussah:job/llm@9.0.0" (instance)))"#,
            "the module imports `tussah:job/llm@9.0.0`, which jobs do not get: this version of \
             the interface is not offered; rebuild with the SDK of this release",
        );
        check_text(
            r#"(component (type $e u32) (import "job-error" (type (eq $e))))"#,
            "ok",
        );
        check_text(
            r#"(component (import "surprise" (func)))"#,
            "the module imports `surprise`, which jobs do not get: imports need the form \
             `namespace:package/interface@version`",
        );
    }

    #[test]
    fn the_imports_of_nested_components_are_their_parents_business() {
        check_text(
            r#"(component (component (import "surprise" (func))))"#,
            "ok",
        );
        check_text(
            r#"(component (component) (core module) (import "x:y/z@1.0.0" (instance)))"#,
            "the module imports `x:y/z@1.0.0`, which jobs do not get: only tussah:job, \
             wasi:nn and the part of WASI that Rust's std links by itself are offered",
        );
    }

    #[test]
    fn what_is_no_component_is_refused() {
        assert!(matches!(
            check(b"", Abi::Component),
            Err(ModuleError::NotWasm)
        ));
        assert!(matches!(
            check(b"MZ\x90\0", Abi::Component),
            Err(ModuleError::NotWasm)
        ));
        assert!(matches!(
            check(b"\0asm", Abi::Component),
            Err(ModuleError::Invalid(_) | ModuleError::CoreModule)
        ));
        check_text(
            "(module)",
            "this is a core WebAssembly module, and the manifest asks for a component: build it \
             for the target wasm32-wasip2, or write `abi = \"preview1\"`",
        );
    }

    #[test]
    fn preview_1_modules_import_their_own_list() {
        for (wat, expected) in [
            ("(module)", "ok"),
            (
                r#"(module (import "wasi_snapshot_preview1" "fd_write" (func)))"#,
                "ok",
            ),
            (
                r#"(module (import "wasi_ephemeral_nn" "compute" (func)))"#,
                "ok",
            ),
            (
                r#"(module (import "wasi_snapshot_preview1" "sock_send" (func)))"#,
                "the module imports `wasi_snapshot_preview1::sock_send`, which jobs do not get: \
                 there is no network in the sandbox; take data from the job's input instead",
            ),
            (
                r#"(module (import "wasi_snapshot_preview1" "proc_raise" (func)))"#,
                "the module imports `wasi_snapshot_preview1::proc_raise`, which jobs do not get: \
                 only what Rust's std and wasi-libc link by themselves is offered",
            ),
            (
                r#"(module (import "wasi_ephemeral_nn" "unload" (func)))"#,
                "the module imports `wasi_ephemeral_nn::unload`, which jobs do not get: \
                 wasi-nn is offered as the crate `wasi-nn` 0.6 imports it",
            ),
            (
                r#"(module (import "env" "memory" (memory 1)))"#,
                "the module imports `env::memory`, which jobs do not get: modules of abi \
                 preview1 import from wasi_snapshot_preview1 and wasi_ephemeral_nn alone",
            ),
            (
                "(component)",
                "this is a component, and the manifest says `abi = \"preview1\"`: build it for \
                 the target wasm32-wasip1, or leave `abi` out",
            ),
        ] {
            let bytes = wat::parse_str(wat).expect("the text is wasm");
            let found = check(&bytes, Abi::Preview1);
            let found = found.map_or_else(|error| error.to_string(), |()| "ok".to_owned());
            assert_eq!(found, expected);
        }
        let threads = wat::parse_str("(module (memory 1 1 shared))").expect("wasm");
        assert!(matches!(
            check(&threads, Abi::Preview1),
            Err(ModuleError::Invalid(_))
        ));
        assert!(check(b"\0asm\x07\0\x09\0", Abi::Preview1).is_err());
    }

    #[test]
    fn every_cut_of_a_component_is_refused() {
        let bytes = wat::parse_str(
            r#"(component (import "tussah:job/output@0.1.0" (instance)) (core module (func)))"#,
        )
        .expect("the text is wasm");
        check(&bytes, Abi::Component).expect("whole, it is good");
        // A component may end after any section: only cuts within one are errors.
        let refused = (0..bytes.len())
            .filter(|end| check(&bytes[..*end], Abi::Component).is_err())
            .count();
        assert!(refused > bytes.len() / 2, "{refused} of {}", bytes.len());
    }
}
