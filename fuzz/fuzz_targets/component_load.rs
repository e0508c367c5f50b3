//! Any bytes as a module, of both ABIs: no panic, at most one ABI takes them, and what is taken
//! imports nothing that is not on the list.
//!
//! The runtime's two files are compiled as they are, without the engine that comes after them.
#![no_main]

#[path = "../../runtime/src/sandbox"]
mod sandbox {
    #[allow(dead_code, reason = "the engine's settings are in the same file")]
    pub(crate) mod imports;

    #[path = "preview1"]
    pub(crate) mod preview1 {
        mod imports;
        pub(crate) use imports::check;
    }
}

use libfuzzer_sys::fuzz_target;
use tussah_manifest::Abi;
use wasmparser::{Parser, Payload};

fuzz_target!(|bytes: &[u8]| {
    // A head that fits, so that not every input ends at the first check.
    for (abi, head) in [
        (Abi::Component, *b"\0asm\x0d\0\x01\0"),
        (Abi::Preview1, *b"\0asm\x01\0\0\0"),
    ] {
        let with_head = [&head[..], bytes].concat();
        for module in [bytes, &with_head] {
            if sandbox::imports::check(module, abi).is_ok() {
                taken(module, abi);
            }
        }
    }
});

/// Looks at the imports in another way than the check does.
fn taken(module: &[u8], abi: Abi) {
    let other = match abi {
        Abi::Component => Abi::Preview1,
        Abi::Preview1 => Abi::Component,
    };
    assert!(sandbox::imports::check(module, other).is_err());
    if abi == Abi::Preview1 {
        for payload in Parser::new(0).parse_all(module) {
            if let Payload::ImportSection(section) = payload.expect("it was validated") {
                for import in section.into_imports() {
                    let import = import.expect("it was validated");
                    assert!(matches!(
                        import.module,
                        "wasi_snapshot_preview1" | "wasi_ephemeral_nn"
                    ));
                    assert!(!import.name.starts_with("sock_"));
                }
            }
        }
    }
}
