//! `SubmittedJob` → `VerifiedJob`: digests, sizes and imports, before anything is compiled.
//!
//! In: a request, a manifest, module bytes and an input as they came. Out: the same, known
//! to belong together and to ask for nothing that this host does not offer, or the first
//! thing that is wrong. Nothing is compiled, loaded or run here.

use tussah_manifest::{Digest, EncodingError, Manifest, Request, RequestError};

use crate::{Fault, Runtime, sandbox::imports};

/// A job as it came in: nothing is known of it yet.
#[derive(Debug)]
pub struct SubmittedJob {
    /// What the client signed.
    pub request: Request,
    /// What the developer asks to have run.
    pub manifest: Manifest,
    /// The module's bytes.
    pub module: Vec<u8>,
    /// The input's bytes.
    pub input: Vec<u8>,
}

/// A job whose parts belong together; only [`verify`] makes one.
#[derive(Debug)]
pub struct VerifiedJob {
    pub(crate) request: Request,
    pub(crate) manifest: Manifest,
    pub(crate) module: Vec<u8>,
    pub(crate) input: Vec<u8>,
}

/// Why a submitted job was refused. Nothing was compiled or run.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The request is not signed by the key that it names, or a field is out of range.
    #[error("the request is not valid")]
    Request(#[source] RequestError),
    /// A field of the manifest is out of its range.
    #[error("the manifest is not valid")]
    Manifest(#[source] EncodingError),
    /// The request was made for another manifest.
    #[error("the request is for manifest {requested}, but the manifest is {found}")]
    OtherManifest {
        /// The digest in the request.
        requested: Digest,
        /// The digest of the manifest at hand.
        found: Digest,
    },
    /// The request and the manifest name two modules.
    #[error("the request is for module {requested}, but the manifest names {named}")]
    OtherModule {
        /// The digest in the request.
        requested: Digest,
        /// The digest in the manifest.
        named: Digest,
    },
    /// The module has another size than its manifest says.
    #[error("the module has {found} bytes, its manifest says {expected}: it was cut or changed")]
    ModuleSize {
        /// Bytes by the manifest.
        expected: u64,
        /// Bytes at hand.
        found: u64,
    },
    /// The module's bytes are not those that the manifest names.
    #[error("the module's digest is {found}, its manifest says {expected}: the bytes were changed")]
    ModuleDigest {
        /// The digest in the manifest.
        expected: Digest,
        /// The digest of the bytes at hand.
        found: Digest,
    },
    /// The input is larger than the manifest allows.
    #[error("the input has {found} bytes, the manifest allows {allowed} (limits.input_bytes_max)")]
    InputSize {
        /// Bytes allowed.
        allowed: u64,
        /// Bytes at hand.
        found: u64,
    },
    /// The request was made for another input.
    #[error("the input is not the one that the request was made for")]
    OtherInput,
    /// The module is larger than this host takes.
    #[error("the module has {found} bytes, this host takes at most {allowed}")]
    ModuleTooLarge {
        /// Bytes allowed.
        allowed: u64,
        /// Bytes at hand.
        found: u64,
    },
    /// A limit of the manifest is above what this host gives.
    #[error("the manifest asks for limits.{limit} = {wanted}, this host gives at most {offered}")]
    LimitTooHigh {
        /// The limit's name.
        limit: &'static str,
        /// What the manifest asks for.
        wanted: u64,
        /// What this host gives.
        offered: u64,
    },
    /// The bytes are no module of the manifest's ABI, or use a feature of wasm that is off here.
    #[error(transparent)]
    Module(#[from] imports::ModuleError),
}

impl VerifyError {
    /// Whose change would make a retry succeed.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Request(_)
            | Self::OtherManifest { .. }
            | Self::OtherModule { .. }
            | Self::InputSize { .. }
            | Self::OtherInput => Fault::Client,
            Self::Manifest(_)
            | Self::ModuleSize { .. }
            | Self::ModuleDigest { .. }
            | Self::ModuleTooLarge { .. }
            | Self::LimitTooHigh { .. }
            | Self::Module(_) => Fault::Developer,
        }
    }
}

/// Checks that a job's parts belong together and ask for nothing that is not offered.
///
/// Cheap checks come first: sizes, then digests, then the module's structure. The request's own
/// signature is for [`run_job`](crate::run_job) to check, or for whoever signs the account.
///
/// # Errors
/// The first thing that is wrong.
pub fn verify(job: SubmittedJob, runtime: &Runtime) -> Result<VerifiedJob, VerifyError> {
    let SubmittedJob {
        request,
        manifest,
        module,
        input,
    } = job;
    check_sizes(&manifest, &module, &input, runtime)?;

    let body = &request.body;
    let found = manifest.digest();
    if body.manifest != found {
        return Err(VerifyError::OtherManifest {
            requested: body.manifest,
            found,
        });
    }
    let named = manifest.module.digest;
    if body.module != named {
        return Err(VerifyError::OtherModule {
            requested: body.module,
            named,
        });
    }
    let found = Digest::of(&module);
    if found != named {
        return Err(VerifyError::ModuleDigest {
            expected: named,
            found,
        });
    }
    if !body.is_for_input(&input) {
        return Err(VerifyError::OtherInput);
    }
    // Equal digests are equal bytes: what was checked before need not be again.
    let abi = manifest.job.abi;
    if !runtime.prepared.has(&named, abi) {
        imports::check(&module, abi)?;
    }
    Ok(VerifiedJob {
        request,
        manifest,
        module,
        input,
    })
}

fn check_sizes(
    manifest: &Manifest,
    module: &[u8],
    input: &[u8],
    runtime: &Runtime,
) -> Result<(), VerifyError> {
    let limits = &manifest.job.limits;
    let offered = runtime.limits_offered();
    let wanted = [
        (
            "memory_bytes_max",
            limits.memory_bytes_max,
            offered.memory_bytes_max,
        ),
        (
            "table_elements_max",
            limits.table_elements_max,
            offered.table_elements_max,
        ),
    ];
    for (limit, wanted, offered) in wanted {
        if wanted > offered {
            return Err(VerifyError::LimitTooHigh {
                limit,
                wanted,
                offered,
            });
        }
    }
    let found = module.len() as u64;
    if found != manifest.module.size_bytes {
        return Err(VerifyError::ModuleSize {
            expected: manifest.module.size_bytes,
            found,
        });
    }
    if found > offered.module_bytes_max {
        return Err(VerifyError::ModuleTooLarge {
            allowed: offered.module_bytes_max,
            found,
        });
    }
    let found = input.len() as u64;
    if found > limits.input_bytes_max {
        return Err(VerifyError::InputSize {
            allowed: limits.input_bytes_max,
            found,
        });
    }
    Ok(())
}
