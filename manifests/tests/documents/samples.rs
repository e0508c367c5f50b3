//! One of each document, fixed; and any of each document, for properties.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use tussah_manifest::{
    Abi, BuildInfo, BuildRecord, Channel, ChannelAddress, Claim, ClaimBody, Consensus, Determinism,
    DeterminismRequest, DeviceRequest, Digest, Domain, Evidence, ExitStatus, JobDescription,
    JobName, Label, LimitHit, Limits, LocalSecret, Manifest, ModelFormat, ModelName, ModelRef,
    ModuleRef, Nanograms, Nonce, Opening, Profile, Receipt, Request, RequestBody, SigningKey,
    Transcript, Trap, Verdict, Version,
};

pub(crate) const INPUT: &[u8] = b"What is silk?";
pub(crate) const OUTPUT: &[u8] = b"A fibre.";
pub(crate) const MODULE: &[u8] = b"\0asm\x0d\0\x01\0";
pub(crate) const MODEL: &[u8] = b"GGUF";

pub(crate) fn client() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

pub(crate) fn provider() -> SigningKey {
    SigningKey::from_bytes(&[2; 32])
}

fn label(text: &str) -> Label {
    Label::new(text).expect("a label")
}

pub(crate) fn manifest() -> Manifest {
    let mut job = JobDescription::new(JobName::new("summarize").expect("a name"));
    let model = ModelRef {
        digest: Digest::of(MODEL),
        format: ModelFormat::Gguf,
    };
    job.models
        .insert(ModelName::new("smollm2").expect("a name"), model);
    job.with_module(ModuleRef::of(MODULE))
}

pub(crate) fn build_info() -> BuildInfo {
    BuildInfo {
        version: Version::V1,
        rustc: label("1.95.0"),
        rustc_commit: label("59807616e1fa2540724bfbac14d7976d7e4a3860"),
        std_digest: Digest::of(b"std"),
        sdk: Some(label("0.1.0")),
        bldarg: vec![label("jobs/summarize")],
        bldopt: vec![label("--locked"), label("--profile=tussah-1")],
        bldimg: None,
        source_sha256: Some(label(&"5a".repeat(32))),
        source_uri: Some(label("https://example.org/summarize.tar.gz")),
    }
}

/// The sample manifest of a module that says how it was built.
pub(crate) fn built_manifest() -> Manifest {
    Manifest {
        build: Some(BuildRecord {
            code_digest: Digest::of(MODULE),
            info: build_info(),
        }),
        ..manifest()
    }
}

pub(crate) fn claim_body() -> ClaimBody {
    ClaimBody {
        version: Version::V1,
        job: JobName::new("summarize").expect("a name"),
        verdict: Verdict::Match,
        module: Digest::of(MODULE),
        rebuilt: Digest::of(MODULE),
        rebuilt_code: Digest::of(MODULE),
        source_sha256: label(&"5a".repeat(32)),
        build: build_info(),
        confinement: label("landlock 6, no sockets"),
        verifier: label("tussah 0.1.0"),
        made_unix_s: 1_795_363_200,
        key: client().public_key(),
    }
}

pub(crate) fn claim() -> Claim {
    claim_body().sign(&client()).expect("the client's own key")
}

pub(crate) fn nonce() -> Nonce {
    let secret = LocalSecret::from_bytes([3; 32]);
    Nonce::local(&secret, &Digest::of(MODULE), &manifest().digest(), INPUT)
}

pub(crate) fn request_body() -> RequestBody {
    RequestBody {
        version: Version::V1,
        manifest: manifest().digest(),
        module: Digest::of(MODULE),
        input: RequestBody::input_digest(&nonce(), INPUT),
        nonce: nonce(),
        price_nanograms_max: Nanograms::ZERO,
        channel: Channel::Local,
        deadline_unix_ms: None,
        client_key: client().public_key(),
    }
}

/// A request that is paid on TON and has a deadline.
pub(crate) fn paid_request_body() -> RequestBody {
    RequestBody {
        nonce: Nonce::from_bytes([4; 32]),
        input: RequestBody::input_digest(&Nonce::from_bytes([4; 32]), INPUT),
        price_nanograms_max: Nanograms::new(1_000_000_000).expect("an amount"),
        channel: Channel::Ton {
            address: ChannelAddress {
                workchain: -1,
                account: [5; 32],
            },
            index: 7,
        },
        deadline_unix_ms: Some(1_795_363_200_000),
        ..request_body()
    }
}

pub(crate) fn request() -> Request {
    request_body()
        .sign(&client())
        .expect("the client's own key")
}

pub(crate) fn profile() -> Profile {
    Profile {
        version: Version::V1,
        wasm_engine: label("wasmtime 48.0.8"),
        wasm_features: ["component-model", "nan-canonicalization", "simd"]
            .map(label)
            .into(),
        engine_config: Digest::derive(Domain::EngineConfig, b"sample"),
        arithmetic: label("exact/0"),
        seed_policy: label("chacha20 of the nonce's seed"),
        clock_policy: label("from the nonce, 1 ms a read"),
        limits: Limits::DEFAULT,
    }
}

pub(crate) fn transcript() -> Transcript {
    let mut transcript = Transcript::new(nonce().derive_salt(), &Limits::DEFAULT);
    transcript
        .record("tussah:job/llm#load", b"smollm2", b"")
        .expect("room");
    transcript
        .record("tussah:job/llm#next", b"", b" A")
        .expect("room");
    transcript
}

pub(crate) fn consensus() -> Consensus {
    Consensus {
        version: Version::V1,
        job: request_body().job_id(),
        module: Digest::of(MODULE),
        manifest: manifest().digest(),
        models: manifest().model_digests(),
        output: Digest::salted(&nonce().derive_salt(), Domain::Output, OUTPUT),
        exit: ExitStatus::Done,
        determinism: Determinism::Exact,
        profile: profile().digest(),
        fuel_used: 1_234_567,
        inference_units_used: 30_000_000_000,
        price_nanograms: Nanograms::ZERO,
        channel: Channel::Local,
    }
}

pub(crate) fn evidence() -> Evidence {
    Evidence {
        host_build: label("tussah 0.1.0"),
        wasm_engine: label("wasmtime 48.0.8"),
        inference_engine: label("cpu exact/0 avx2"),
        kernels: None,
        adapter: None,
        driver: None,
        threads: 2,
        wall_ns: 4_200_000_000,
        gpu_ns: None,
        transcript: transcript().digest(),
    }
}

pub(crate) fn receipt() -> Receipt {
    Receipt::sign(consensus(), evidence(), &provider()).expect("a good receipt")
}

pub(crate) fn opening() -> Opening {
    Opening {
        version: Version::V1,
        request: request(),
        salt: nonce().derive_salt(),
        host_calls: transcript().into_calls(),
        profile: profile(),
    }
}

pub(crate) fn any_digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest::from_bytes)
}

pub(crate) fn any_key() -> impl Strategy<Value = SigningKey> {
    any::<[u8; 32]>().prop_map(|secret| SigningKey::from_bytes(&secret))
}

fn any_label() -> impl Strategy<Value = Label> {
    vec(any::<char>(), 0..90).prop_map(|text| Label::lossy(&text.into_iter().collect::<String>()))
}

fn any_job_name() -> impl Strategy<Value = JobName> {
    vec(0..37usize, 1..=63)
        .prop_map(|letters| name(&letters, b"abcdefghijklmnopqrstuvwxyz0123456789-"))
        .prop_map(|text| JobName::new(&text).expect("made of its alphabet"))
}

fn any_model_name() -> impl Strategy<Value = ModelName> {
    vec(0..39usize, 1..=63)
        .prop_map(|letters| name(&letters, b"abcdefghijklmnopqrstuvwxyz0123456789-._"))
        .prop_map(|text| ModelName::new(&text).expect("made of its alphabet"))
}

fn name(letters: &[usize], alphabet: &[u8]) -> String {
    let mut text: String = letters
        .iter()
        .map(|index| char::from(alphabet[*index]))
        .collect();
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        text.replace_range(..1, "x");
    }
    text
}

pub(crate) fn any_limits() -> impl Strategy<Value = Limits> {
    any::<[(u8, u64); 10]>().prop_map(|draws| {
        let mut limits = Limits::DEFAULT;
        for (field, (way, draw)) in Limits::FIELDS.iter().zip(draws) {
            let span = field.max - field.min;
            *(field.get_mut)(&mut limits) = match way % 4 {
                0 => field.min,
                1 => field.max,
                // Whole units as often as odd numbers of bytes.
                2 => (field.min + draw % (span + 1)) >> 20 << 20,
                _ => field.min + draw % (span + 1),
            }
            .max(field.min);
        }
        limits
    })
}

fn any_amount() -> impl Strategy<Value = Nanograms> {
    (0..=Nanograms::MAX.get()).prop_map(|amount| Nanograms::new(amount).expect("within bounds"))
}

pub(crate) fn any_build_info() -> impl Strategy<Value = BuildInfo> {
    let labels = || vec(any_label(), 0..=16);
    let sha256 = option::of("[0-9a-f]{64}".prop_map(|text| label(&text)));
    let toolchain = (
        any_label(),
        any_label(),
        any_digest(),
        option::of(any_label()),
    );
    let places = (option::of(any_label()), option::of(any_label()));
    (toolchain, labels(), labels(), sha256, places).prop_map(
        |((rustc, rustc_commit, std_digest, sdk), bldarg, bldopt, source_sha256, places)| {
            BuildInfo {
                version: Version::V1,
                rustc,
                rustc_commit,
                std_digest,
                sdk,
                bldarg,
                bldopt,
                bldimg: places.0,
                source_sha256,
                source_uri: places.1,
            }
        },
    )
}

pub(crate) fn any_claim() -> impl Strategy<Value = Claim> {
    let digests = (any_digest(), any_digest(), any_digest());
    let verdict = prop::sample::select(Verdict::ALL);
    let rest = (any_job_name(), any_label(), any_label(), any::<u64>());
    (
        digests,
        verdict,
        any_build_info(),
        "[0-9a-f]{64}",
        rest,
        any_key(),
    )
        .prop_map(
            |((module, other, rebuilt_code), verdict, build, sha256, rest, key)| {
                let (job, confinement, verifier, made_unix_s) = rest;
                let rebuilt = if verdict == Verdict::Match {
                    module
                } else {
                    other
                };
                ClaimBody {
                    version: Version::V1,
                    job,
                    verdict,
                    module,
                    rebuilt,
                    rebuilt_code,
                    source_sha256: label(&sha256),
                    build,
                    confinement,
                    verifier,
                    made_unix_s,
                    key: key.public_key(),
                }
                .sign(&key)
                .expect("a good body and its own key")
            },
        )
}

pub(crate) fn any_manifest() -> impl Strategy<Value = Manifest> {
    let formats = prop::sample::select(&[ModelFormat::Gguf, ModelFormat::Safetensors][..]);
    let model = (any_digest(), formats).prop_map(|(digest, format)| ModelRef { digest, format });
    let job = (
        any_job_name(),
        btree_map(any_model_name(), model, 0..=16),
        any_limits(),
        any_amount(),
        prop::sample::select(DeviceRequest::ALL),
        prop::sample::select(DeterminismRequest::ALL),
        prop::sample::select(Abi::ALL),
    );
    let module = (
        any_digest(),
        ModuleRef::SIZE_BYTES_MIN..=ModuleRef::SIZE_BYTES_MAX,
    );
    let build = option::of((any_digest(), any_build_info()));
    (job, module, build).prop_map(|(job, (digest, size_bytes), build)| {
        let (name, models, limits, price_nanograms_max, device, determinism, abi) = job;
        let version = Version::V1;
        let mut manifest = JobDescription {
            version,
            name,
            models,
            limits,
            price_nanograms_max,
            device,
            determinism,
            abi,
        }
        .with_module(ModuleRef { digest, size_bytes });
        manifest.build = build.map(|(code_digest, info)| BuildRecord { code_digest, info });
        manifest
    })
}

fn any_channel() -> impl Strategy<Value = Channel> {
    prop_oneof![
        Just(Channel::Local),
        any::<(i32, [u8; 32], u64)>().prop_map(|(workchain, account, index)| Channel::Ton {
            address: ChannelAddress { workchain, account },
            index,
        }),
    ]
}

pub(crate) fn any_request() -> impl Strategy<Value = Request> {
    let digests = (any_digest(), any_digest(), any_digest());
    let rest = (
        any::<[u8; 32]>(),
        any_amount(),
        any_channel(),
        option::of(any::<u64>()),
    );
    (digests, rest, any_key()).prop_map(|((manifest, module, input), rest, key)| {
        let (nonce, price_nanograms_max, channel, deadline) = rest;
        RequestBody {
            version: Version::V1,
            manifest,
            module,
            input,
            nonce: Nonce::from_bytes(nonce),
            price_nanograms_max,
            channel,
            deadline_unix_ms: deadline.filter(|_| channel != Channel::Local),
            client_key: key.public_key(),
        }
        .sign(&key)
        .expect("a good body and its own key")
    })
}

pub(crate) fn any_exit() -> impl Strategy<Value = ExitStatus> {
    prop_oneof![
        Just(ExitStatus::Done),
        (any::<u32>(), any_digest())
            .prop_map(|(code, message)| ExitStatus::JobError { code, message }),
        prop::sample::select(Trap::ALL).prop_map(|trap| ExitStatus::Trapped { trap }),
        prop::sample::select(LimitHit::ALL).prop_map(|limit| ExitStatus::LimitHit { limit }),
        Just(ExitStatus::Cancelled),
        Just(ExitStatus::DeadlineExceeded),
        Just(ExitStatus::DeviceLost),
        Just(ExitStatus::HostFailure),
    ]
}

fn any_consensus() -> impl Strategy<Value = Consensus> {
    let digests = any::<[[u8; 32]; 5]>().prop_map(|all| all.map(Digest::from_bytes));
    let models = btree_map(any_model_name(), any_digest(), 0..=16);
    let class = prop::sample::select(Determinism::ALL);
    let counts = (any::<u64>(), any::<u64>(), any_amount(), any_channel());
    (digests, models, any_exit(), class, counts).prop_map(
        |([job, module, manifest, output, profile], models, exit, class, counts)| Consensus {
            version: Version::V1,
            job,
            module,
            manifest,
            models,
            output,
            exit,
            determinism: if exit.is_rerunnable() {
                class
            } else {
                Determinism::NotRerunnable
            },
            profile,
            fuel_used: counts.0,
            inference_units_used: counts.1,
            price_nanograms: counts.2,
            channel: counts.3,
        },
    )
}

fn any_evidence() -> impl Strategy<Value = Evidence> {
    let labels = (any_label(), any_label(), any_label());
    let gpu = (
        option::of(any_digest()),
        option::of(any_label()),
        option::of(any_label()),
    );
    let counts = (
        any::<u32>(),
        any::<u64>(),
        option::of(any::<u64>()),
        any_digest(),
    );
    (labels, gpu, counts).prop_map(|(labels, (kernels, adapter, driver), counts)| Evidence {
        host_build: labels.0,
        wasm_engine: labels.1,
        inference_engine: labels.2,
        kernels,
        adapter,
        driver,
        threads: counts.0,
        wall_ns: counts.1,
        gpu_ns: counts.2,
        transcript: counts.3,
    })
}

pub(crate) fn any_receipt() -> impl Strategy<Value = Receipt> {
    (any_consensus(), any_evidence(), any_key()).prop_map(|(consensus, evidence, key)| {
        Receipt::sign(consensus, evidence, &key).expect("a good receipt")
    })
}

pub(crate) fn any_profile() -> impl Strategy<Value = Profile> {
    let labels = (any_label(), any_label(), any_label(), any_label());
    (
        labels,
        btree_set(any_label(), 0..20),
        any_digest(),
        any_limits(),
    )
        .prop_map(
            |(labels, wasm_features, engine_config, limits): (_, BTreeSet<Label>, _, _)| Profile {
                version: Version::V1,
                wasm_engine: labels.0,
                wasm_features,
                engine_config,
                arithmetic: labels.1,
                seed_policy: labels.2,
                clock_policy: labels.3,
                limits,
            },
        )
}

/// A receipt and its opening.
pub(crate) fn any_run() -> impl Strategy<Value = (Receipt, Opening)> {
    let calls = vec(any_digest(), 0..40);
    (
        any_request(),
        any_profile(),
        calls,
        any_receipt(),
        any_key(),
    )
        .prop_map(|(request, profile, host_calls, draft, key)| {
            let body = &request.body;
            let consensus = Consensus {
                job: body.job_id(),
                module: body.module,
                manifest: body.manifest,
                profile: profile.digest(),
                price_nanograms: body.price_nanograms_max,
                channel: body.channel,
                ..draft.consensus
            };
            let salt = body.nonce.derive_salt();
            let opening = Opening {
                version: Version::V1,
                salt,
                host_calls,
                profile,
                request,
            };
            let evidence = Evidence {
                transcript: opening.transcript(),
                ..draft.evidence
            };
            let receipt = Receipt::sign(consensus, evidence, &key).expect("a good receipt");
            (receipt, opening)
        })
}

/// For checks that models stay sorted and named.
pub(crate) fn two_models() -> BTreeMap<ModelName, Digest> {
    ["b", "a"]
        .map(|name| {
            (
                ModelName::new(name).expect("a name"),
                Digest::of(name.as_bytes()),
            )
        })
        .into()
}
