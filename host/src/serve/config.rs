//! `serve.toml`: what a provider has set for `tussah serve`, before the command line has its say.
//!
//! In: TOML text. Out: a [`Config`] in which every value is within its bounds, or what is wrong,
//! with the line. What is not known is refused: a setting that does nothing would be believed. It
//! holds no secrets.

use std::{
    ffi::OsString,
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, de::Error as _};
use tussah_manifest::Nanograms;

use crate::{
    chain_option::{Recipient, recipient},
    device::DeviceArgument,
    engine::WEIGHTS_CACHE_GB,
    exit_code::Exit,
    failure::{Failure, file_failure},
    input,
    serve::{Certificate, log},
};

/// The file, in the home folder.
pub(crate) const FILE: &str = "serve.toml";
/// What `tussah init` writes: every setting, each with its default, none of them set.
pub(crate) const TEMPLATE: &str = include_str!("serve.toml");
/// More than anybody writes.
const BYTES_MAX: u64 = 1 << 20;

/// The settings of a daemon; `None` is the default of `serve::Settings`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) listen: Listen,
    pub(crate) tls: Tls,
    pub(crate) connections: Connections,
    pub(crate) log: Log,
    pub(crate) prices: Prices,
    pub(crate) limits: Limits,
    pub(crate) models: Models,
    pub(crate) modules: Modules,
    pub(crate) channels: Channels,
    pub(crate) worker: Worker,
}

/// `[listen]`: where it is reached, and by whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Listen {
    /// Where clients come.
    pub(crate) address: Option<Place>,
    /// Where health and metrics are.
    pub(crate) metrics: Option<Place>,
    /// Names besides loopback's by which clients reach it.
    pub(crate) hosts: Option<Vec<String>>,
    /// The account of requests without a key.
    pub(crate) anonymous: Option<String>,
    /// The origin whose pages may use it.
    pub(crate) cors_origin: Option<Origin>,
}

/// `[tls]`: by what clients know it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Tls {
    /// A chain of certificates in PEM, and its key; both or none.
    pub(crate) certificates: Option<PathBuf>,
    /// The key.
    pub(crate) key: Option<PathBuf>,
    /// Whether it makes a certificate of its own.
    pub(crate) self_signed: Option<bool>,
}

impl Tls {
    /// What was set; files win over a certificate of its own.
    pub(crate) fn certificate(&self) -> Option<Certificate> {
        match (&self.certificates, &self.key) {
            (Some(certificates), Some(key)) => Some(Certificate::Files {
                certificates: certificates.clone(),
                key: key.clone(),
            }),
            _ if self.self_signed.unwrap_or_default() => Some(Certificate::SelfSigned),
            _ => None,
        }
    }

    /// Whether one of two files is given, or more than one way to have a certificate.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        match (&self.certificates, &self.key, self.self_signed) {
            (Some(_), None, _) => Some("a certificate needs its key: `--tls-key`"),
            (None, Some(_), _) => Some("a key needs its certificate: `--tls-cert`"),
            (Some(_), Some(_), Some(true)) => {
                Some("there is a certificate and one of its own is asked for: which?")
            }
            _ => None,
        }
    }
}

/// `[log]`: what standard error says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    /// How much.
    #[serde(deserialize_with = "word")]
    pub(crate) level: Option<log::Level>,
    /// For whom.
    #[serde(deserialize_with = "word")]
    pub(crate) format: Option<log::Format>,
}

/// A word that means something.
fn word<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr<Err = &'static str>,
{
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(D::Error::custom)
}

/// `[connections]`: how many there may be, and how slow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Connections {
    /// At a time.
    pub(crate) max: Option<Whole<1, 65_535>>,
    /// At a time from one address.
    pub(crate) per_address_max: Option<Whole<1, 65_535>>,
    /// For a request's head, and between requests.
    pub(crate) head_seconds_max: Option<Whole<1, 3600>>,
    /// For a JSON body, and between the pieces of an upload.
    pub(crate) body_seconds_max: Option<Whole<1, 3600>>,
    /// Without anything read of an answer.
    pub(crate) write_seconds_max: Option<Whole<1, 3600>>,
}

/// `[prices]`: what work costs, in nanograms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Prices {
    /// For each job that ran.
    pub(crate) base_nanograms: Option<Amount>,
    /// For each 10^9 units of fuel.
    pub(crate) nanograms_per_billion_fuel: Option<Amount>,
    /// For each 10^12 units of inference.
    pub(crate) nanograms_per_trillion_inference_units: Option<Amount>,
}

/// `[limits]`: how much at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    /// Jobs that run at a time.
    pub(crate) jobs_max: Option<Whole<1, 1024>>,
    /// Jobs that wait.
    pub(crate) queued_max: Option<Whole<1, 1_000_000>>,
    /// Jobs of one account that run.
    pub(crate) account_jobs_max: Option<Whole<1, 1024>>,
    /// Jobs of one account that wait.
    pub(crate) account_queued_max: Option<Whole<1, 1_000_000>>,
    /// Jobs of one account that are taken in a minute; 0 is any number.
    pub(crate) account_per_minute_max: Option<Whole<0, 1_000_000>>,
    /// Days for which inputs, outputs and logs of jobs that ended are kept; 0 is for ever.
    pub(crate) keep_days: Option<Whole<0, 36_500>>,
    /// The most seconds for which a manifest may let its job run.
    pub(crate) wall_max_s: Option<Whole<1, 604_800>>,
    /// The most MiB of wasm memory that it may give it.
    pub(crate) memory_max_mib: Option<Whole<1, 4096>>,
    /// The most MiB that it may let its sessions and tensors take.
    pub(crate) session_memory_max_mib: Option<Whole<1, 1_048_576>>,
}

/// `[models]`: what is offered and kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Models {
    /// GB of models and modules from which on no more are uploaded.
    pub(crate) blobs_max_gb: Option<Whole<1, { u32::MAX }>>,
    /// The models that jobs may use, by name or digest; any that is in the store if not set.
    pub(crate) allow: Option<Vec<String>>,
    /// GB of models that stay loaded; 0 is three quarters of the memory of this machine, or its GPU.
    pub(crate) memory_gb: Option<Whole<0, { u32::MAX }>>,
}

/// `[modules]`: which are run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Modules {
    /// Whose claim each needs: public keys, and files of them; any module is run if not set.
    pub(crate) require_verified: Option<Vec<String>>,
}

/// `[channels]`: jobs that are paid through payment channels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Channels {
    /// The chain that they are on; without it there are none.
    pub(crate) chain: Option<String>,
    /// The file whose first line is the key that the chain's server knows us by.
    pub(crate) api_key_file: Option<PathBuf>,
    /// The provider's account, which every channel that is taken in has to belong to.
    pub(crate) owner: Option<Account>,
    /// The account that they have to pay, if it is another one.
    pub(crate) payout: Option<Account>,
    /// The fewest hours that a one-sided close may leave.
    pub(crate) challenge_hours_min: Option<Whole<1, 720>>,
    /// From how much on a voucher is posted at once.
    pub(crate) redeem_nanograms: Option<Amount>,
}

/// `[worker]`: how jobs are run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Worker {
    /// Where inference runs.
    pub(crate) device: Option<DeviceName>,
    /// CPU threads of inference.
    pub(crate) threads: Option<Whole<0, 256>>,
    /// GB of compiled code that are kept.
    pub(crate) code_cache_gb: Option<Whole<1, { u32::MAX }>>,
    /// GB of packed weights that are kept; 0 keeps none.
    pub(crate) weights_cache_gb: Option<Whole<0, { u32::MAX }>>,
    /// Whether a system that confines nothing is good enough.
    pub(crate) require_isolation: Option<bool>,
    /// Seconds after which a worker that answers nothing is started anew.
    pub(crate) hung_s: Option<Whole<1, 3600>>,
    /// Seconds for what runs to end once the daemon is told to.
    pub(crate) drain_s: Option<Whole<1, 604_800>>,
    /// The ONNX Runtime library that runs models of that format.
    #[cfg(feature = "onnx")]
    pub(crate) onnxruntime: Option<PathBuf>,
}

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Whole<const MIN: u32, const MAX: u32>(pub(crate) u32);

/// An address with its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(pub(crate) SocketAddr);

/// An origin as browsers write it: a scheme, a host, perhaps a port, and nothing after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin(pub(crate) String);

/// An amount of money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Amount(pub(crate) Nanograms);

/// An account on the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account(pub(crate) Recipient);

/// Where inference runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeviceName(pub(crate) DeviceArgument);

impl Config {
    /// The options of the worker's command.
    pub(crate) fn worker_arguments(&self) -> Vec<OsString> {
        let worker = &self.worker;
        let device = worker.device.as_ref().map(|name| name.0.clone());
        let threads = worker.threads.map_or(0, |threads| threads.0);
        let code_cache_gb = worker.code_cache_gb.map_or(4, |Whole(gb)| gb);
        let weights_cache_gb = worker.weights_cache_gb.map(|Whole(gb)| gb);
        let weights_cache_gb = weights_cache_gb.unwrap_or(WEIGHTS_CACHE_GB);
        let mut arguments: Vec<OsString> = vec![
            "--device".into(),
            device.unwrap_or_default().to_string().into(),
            "--threads".into(),
            threads.to_string().into(),
            "--code-cache-gb".into(),
            code_cache_gb.to_string().into(),
            "--weights-cache-gb".into(),
            weights_cache_gb.to_string().into(),
        ];
        #[cfg(feature = "onnx")]
        if let Some(library) = &worker.onnxruntime {
            arguments.extend(["--onnxruntime".into(), library.into()]);
        }
        if let Some(Whole(gb @ 1..)) = self.models.memory_gb {
            arguments.extend(["--model-memory-gb".into(), gb.to_string().into()]);
        }
        if worker.require_isolation.unwrap_or_default() {
            arguments.push("--require-isolation".into());
        }
        arguments
    }
}

/// A value, or words for what is to be there instead.
fn value<'de, D, T>(
    deserializer: D,
    expected: fmt::Arguments<'_>,
    read: impl FnOnce(&toml::Value) -> Option<T>,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
{
    let found = toml::Value::deserialize(deserializer)?;
    read(&found).ok_or_else(|| D::Error::custom(format_args!("write {expected} instead")))
}

impl<'de, const MIN: u32, const MAX: u32> Deserialize<'de> for Whole<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = format_args!("a whole number from {MIN} to {MAX}");
        value(deserializer, expected, |found| {
            let number = u32::try_from(found.as_integer()?).ok()?;
            (MIN..=MAX).contains(&number).then_some(Self(number))
        })
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let max = Nanograms::MAX.get();
        let expected = format_args!("nanograms, a whole number from 0 to {max},");
        value(deserializer, expected, |found| {
            let nanograms = u64::try_from(found.as_integer()?).ok()?;
            Nanograms::new(nanograms).map(Self)
        })
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = format_args!("an address with its port, such as \"127.0.0.1:8899\",");
        value(deserializer, expected, |found| {
            found.as_str()?.parse().ok().map(Self)
        })
    }
}

impl std::str::FromStr for Origin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let host = (text.strip_prefix("https://")).or_else(|| text.strip_prefix("http://"));
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
        match host.is_some_and(|host| !host.is_empty() && host.bytes().all(fits)) {
            true => Ok(Self(text.to_ascii_lowercase())),
            false => Err("write `https://HOST` or `https://HOST:PORT`, without a path"),
        }
    }
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected =
            format_args!("an origin without a path, such as \"https://app.example.org\",");
        value(deserializer, expected, |found| found.as_str()?.parse().ok())
    }
}

impl<'de> Deserialize<'de> for Account {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = format_args!("an account's address in quotes, 48 characters or 0: and hex");
        value(deserializer, expected, |found| {
            recipient(found.as_str()?).ok().map(Self)
        })
    }
}

impl<'de> Deserialize<'de> for DeviceName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected =
            format_args!("\"auto\", \"cpu\", \"gpu\" or a part of an adapter's name in quotes");
        value(deserializer, expected, |found| {
            let text = found.as_str()?;
            let Ok(device) = text.parse::<DeviceArgument>();
            (!text.is_empty()).then_some(Self(device))
        })
    }
}

/// Why text is no configuration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub(crate) struct ConfigError {
    /// From 1.
    pub(crate) line: usize,
    /// What is wrong with it.
    pub(crate) problem: String,
}

impl Config {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// [`ConfigError`] with the first line that is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error: toml::de::Error| {
            let at = error.span().map_or(0, |span| span.start).min(text.len());
            let before = text.as_bytes()[..at].iter();
            ConfigError {
                line: before.filter(|byte| **byte == b'\n').count() + 1,
                problem: error.message().trim_end().replace('\n', "; "),
            }
        })
    }

    /// Reads a file; `None` if there is none.
    ///
    /// # Errors
    /// A usage failure that names file and line.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, Failure> {
        match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(file_failure("read", path, error)),
            Ok(_) => {}
        }
        let bytes = input::bytes(path, BYTES_MAX)?;
        let wrong = |failure: Failure| failure.context(format!("cannot use {}", path.display()));
        let text = String::from_utf8(bytes)
            .map_err(|_| wrong(Failure::usage("it is not UTF-8, as TOML has to be")))?;
        let config = Self::parse(&text).map_err(|error| {
            let help = "docs/serve.md has every setting; `tussah init --force` writes a new file";
            wrong(Failure::new(Exit::USAGE, error)).help(help)
        })?;
        Ok(Some(config))
    }
}

#[cfg(test)]
mod tests {
    use tussah_provider::http::HttpConfig;

    use super::*;

    #[test]
    fn an_origin_has_no_path_and_is_no_pattern() {
        for (text, good) in [
            ("https://app.example.org", true),
            ("http://localhost:3000", true),
            ("http://[::1]:3000", true),
            ("https://App.Example.org", true),
            ("*", false),
            ("null", false),
            ("https://", false),
            ("app.example.org", false),
            ("https://app.example.org/", false),
            ("https://*.example.org", false),
            ("https://a b", false),
        ] {
            assert_eq!(text.parse::<Origin>().is_ok(), good, "{text}");
        }
    }

    #[test]
    fn the_template_sets_nothing_and_has_every_setting() {
        assert_eq!(Config::parse(TEMPLATE).unwrap(), Config::default());
        // Settings are `#name = value`, words are `# words`.
        let is_setting = |line: &&str| line.starts_with('#') && !line.starts_with("# ");
        assert!(TEMPLATE.lines().filter(is_setting).count() > 10);
        let set: Vec<&str> = TEMPLATE
            .lines()
            .map(|line| match is_setting(&line) {
                true => line.trim_start_matches('#'),
                false => line,
            })
            .collect();
        let config = Config::parse(&set.join("\n")).unwrap();
        // With graphs there is one more, which the template of every build leaves out.
        if cfg!(not(feature = "onnx")) {
            // Addresses have one, whatever was set.
            let shown = format!("{config:?}").replace("anycast: None", "");
            assert!(!shown.contains("None"), "the template lacks one: {shown}");
        }
        // What it says the defaults are, they are.
        let stated = crate::serve::Settings::of(&config);
        let defaults = crate::serve::Settings {
            models: stated.models.clone(),
            require_verified: stated.require_verified.clone(),
            chain: stated.chain.clone(),
            chain_key_file: stated.chain_key_file.clone(),
            certificate: stated.certificate.clone(),
            http: HttpConfig {
                hosts: stated.http.hosts.clone(),
                anonymous: stated.http.anonymous.clone(),
                cors_origin: stated.http.cors_origin.clone(),
                ..HttpConfig::default()
            },
            ..crate::serve::Settings::default()
        };
        assert_eq!(stated, defaults);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_what_to_write() {
        for (text, line, words) in [
            (
                "[listn]",
                1,
                "unknown field `listn`, expected one of `listen`",
            ),
            (
                "\n[limits]\njobs = 3",
                3,
                "unknown field `jobs`, expected one of `jobs_max`",
            ),
            (
                "[limits]\njobs_max = 0",
                2,
                "write a whole number from 1 to 1024 instead",
            ),
            ("[limits]\njobs_max = 1025", 2, "from 1 to 1024"),
            ("[limits]\njobs_max = \"8\"", 2, "from 1 to 1024"),
            ("[limits]\njobs_max = -1", 2, "from 1 to 1024"),
            ("[limits]\njobs_max = 1.5", 2, "from 1 to 1024"),
            (
                "[listen]\n\naddress = \"localhost\"",
                3,
                "such as \"127.0.0.1:8899\"",
            ),
            (
                "[listen]\ncors_origin = \"*\"",
                2,
                "an origin without a path",
            ),
            ("[log]\nlevel = \"loud\"", 2, "write off, error, warn"),
            ("[log]\nformat = 3", 2, "expected a string"),
            ("[connections]\nmax = 0", 2, "from 1 to 65535"),
            ("[listen]\naddress = 8899", 2, "such as \"127.0.0.1:8899\""),
            ("[listen]\nhosts = \"one\"", 2, "expected a sequence"),
            (
                "[prices]\nbase_nanograms = -1",
                2,
                "from 0 to 5000000000000000000",
            ),
            (
                "[prices]\nbase_nanograms = 5000000000000000001",
                2,
                "from 0 to 5000000000000000000",
            ),
            (
                "[prices]\nbase_nanograms = 0.5",
                2,
                "from 0 to 5000000000000000000",
            ),
            ("[prices]\nbase_nanograms = 99999999999999999999", 2, ""),
            (
                "[channels]\nowner = \"me\"",
                2,
                "an account's address in quotes",
            ),
            ("[channels]\nchallenge_hours_min = 0", 2, "from 1 to 720"),
            ("[worker]\ndevice = \"\"", 2, "\"auto\", \"cpu\", \"gpu\""),
            ("[worker]\nrequire_isolation = 1", 2, "expected a boolean"),
            ("[worker]\nthreads = 1\nthreads = 2", 3, "duplicate key"),
            ("[worker\nthreads = 1", 1, ""),
            ("listen = 3", 1, "expected struct Listen"),
        ] {
            let error = Config::parse(text).unwrap_err();
            assert_eq!(error.line, line, "{text:?}: {error}");
            assert!(error.problem.contains(words), "{text:?}: {error}");
        }
        let largest = "[prices]\nbase_nanograms = 5000000000000000000";
        let config = Config::parse(largest).unwrap();
        assert_eq!(config.prices.base_nanograms, Some(Amount(Nanograms::MAX)));
    }
}
