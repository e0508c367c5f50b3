//! Modules that were built again from their source: which a provider takes, where it asks for that.
//!
//! In: a module's digest, the claim that came with a job, a folder of claims. Out: nothing, or why the
//! module is not taken and what to send. A claim is a stranger's bytes until a listed key has signed it.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use tussah_manifest::{Claim, ClaimError, Digest, Document as _, PublicKey, Verdict};

/// Whose claims count, and where those lie that came before a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifiers {
    /// Any one of them is enough; at least one.
    pub keys: Vec<PublicKey>,
    /// `<the module's digest>/<the key>.cbor`, each 64 hex digits.
    pub folder: PathBuf,
}

/// Why a module is not taken by a provider that asks for claims.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; {}", what_to_do(module, keys))]
pub struct NotVerified {
    /// The module.
    pub module: Digest,
    /// What is wrong with the claim, or that there is none.
    pub problem: ClaimProblem,
    /// Whose claim it has to be.
    pub keys: Vec<PublicKey>,
}

/// What is wrong with a claim.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimProblem {
    /// Nobody sent one, and none is in the folder.
    #[error("this provider runs verified modules alone, and has no claim for {0}")]
    Missing(Digest),
    /// It is of another module.
    #[error("the claim is of the module {0}, and not of the job's")]
    Module(Digest),
    /// Another key signed it.
    #[error("the claim is signed by {0}, which this provider does not know")]
    Key(PublicKey),
    /// It does not say that the bytes are the same.
    #[error("the claim says {0}, and this provider takes match alone")]
    Verdict(Verdict),
    /// It is none, or its signature does not fit.
    #[error("the claim is no good: {0}")]
    Bad(ClaimError),
}

fn what_to_do(module: &Digest, keys: &[PublicKey]) -> String {
    let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
    format!(
        "send a claim that `tussah verify --sign` made of {module}, by `claim` of POST /v1/jobs or \
         `tussah submit --claim FILE`, signed by {}",
        keys.join(" or ")
    )
}

impl Verifiers {
    /// Whether a module has a good claim: the one that came with the job, else one of the folder.
    ///
    /// # Errors
    /// [`NotVerified`].
    pub fn check(&self, module: Digest, sent: Option<&Claim>) -> Result<(), NotVerified> {
        let refuse = |problem| NotVerified {
            module,
            problem,
            keys: self.keys.clone(),
        };
        let sent = sent.map(|claim| self.judge(&module, claim));
        match sent {
            Some(Ok(())) => Ok(()),
            _ if self.is_kept(&module) => Ok(()),
            Some(Err(problem)) => Err(refuse(problem)),
            None => Err(refuse(ClaimProblem::Missing(module))),
        }
    }

    fn judge(&self, module: &Digest, claim: &Claim) -> Result<(), ClaimProblem> {
        let body = &claim.body;
        if body.module != *module {
            return Err(ClaimProblem::Module(body.module));
        }
        if !self.keys.contains(&body.key) {
            return Err(ClaimProblem::Key(body.key));
        }
        if body.verdict != Verdict::Match {
            return Err(ClaimProblem::Verdict(body.verdict));
        }
        claim.verify().map_err(ClaimProblem::Bad)
    }

    /// Whether a listed key's claim lies in the folder.
    fn is_kept(&self, module: &Digest) -> bool {
        self.keys.iter().any(|key| {
            let claim = read(&claim_path(&self.folder, module, key));
            claim.is_some_and(|claim| self.judge(module, &claim).is_ok())
        })
    }
}

/// Where the claim of one key on one module lies.
pub fn claim_path(folder: &Path, module: &Digest, key: &PublicKey) -> PathBuf {
    let hex = |text: String| text.rsplit(':').next().unwrap_or_default().to_owned();
    let file = format!("{}.cbor", hex(key.to_string()));
    folder.join(hex(module.to_string())).join(file)
}

fn read(path: &Path) -> Option<Claim> {
    let most = u64::try_from(Claim::BYTES_MAX).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).ok()?;
    file.take(most + 1).read_to_end(&mut bytes).ok()?;
    Claim::from_bytes(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use tussah_manifest::{BuildInfo, ClaimBody, Label, SigningKey, Version};

    use super::*;

    fn claim(key: &SigningKey, module: Digest, verdict: Verdict) -> Claim {
        let label = |text: &str| Label::new(text).unwrap();
        let body = ClaimBody {
            version: Version::V1,
            job: "echo".parse().unwrap(),
            verdict,
            module,
            rebuilt: match verdict {
                Verdict::Match => module,
                _ => Digest::of(b"another"),
            },
            rebuilt_code: Digest::of(b"code"),
            source_sha256: label(&"0".repeat(64)),
            build: BuildInfo {
                version: Version::V1,
                rustc: label("1.95.0"),
                rustc_commit: label("unknown"),
                std_digest: Digest::of(b"std"),
                sdk: None,
                bldarg: Vec::new(),
                bldopt: Vec::new(),
                bldimg: None,
                source_sha256: None,
                source_uri: None,
            },
            confinement: label("test"),
            verifier: label("test"),
            made_unix_s: 1,
            key: key.public_key(),
        };
        body.sign(key).unwrap()
    }

    #[test]
    fn only_a_listed_keys_match_of_this_module_counts() {
        let folder = tempfile::tempdir().unwrap();
        let [ours, other] = [1, 2].map(|byte| SigningKey::from_bytes(&[byte; 32]));
        let module = Digest::of(b"module");
        let verifiers = Verifiers {
            keys: vec![ours.public_key()],
            folder: folder.path().to_owned(),
        };
        let said = |claim: Option<&Claim>| verifiers.check(module, claim).map_err(|no| no.problem);
        let good = claim(&ours, module, Verdict::Match);
        assert_eq!(said(None), Err(ClaimProblem::Missing(module)));
        assert_eq!(said(Some(&good)), Ok(()));
        let strangers = claim(&other, module, Verdict::Match);
        let key = other.public_key();
        assert_eq!(said(Some(&strangers)), Err(ClaimProblem::Key(key)));
        let elsewhere = Digest::of(b"elsewhere");
        let of_another = claim(&ours, elsewhere, Verdict::Match);
        assert_eq!(
            said(Some(&of_another)),
            Err(ClaimProblem::Module(elsewhere))
        );
        for verdict in [Verdict::MatchCode, Verdict::Mismatch] {
            let unlike = claim(&ours, module, verdict);
            assert_eq!(said(Some(&unlike)), Err(ClaimProblem::Verdict(verdict)));
        }
        // A listed key's name under a stranger's signature.
        let mut forged = good.clone();
        forged.signature = strangers.signature;
        assert!(matches!(said(Some(&forged)), Err(ClaimProblem::Bad(_))));

        // The same in the folder, whatever was sent.
        let path = claim_path(folder.path(), &module, &ours.public_key());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, forged.to_bytes()).unwrap();
        assert_eq!(said(None), Err(ClaimProblem::Missing(module)));
        std::fs::write(&path, good.to_bytes()).unwrap();
        assert_eq!(said(None), Ok(()));
        assert_eq!(said(Some(&strangers)), Ok(()));
        std::fs::write(&path, vec![0; Claim::BYTES_MAX + 1]).unwrap();
        assert_eq!(said(None), Err(ClaimProblem::Missing(module)));
    }

    #[test]
    fn a_refusal_says_whose_claim_is_wanted_and_how_to_send_it() {
        let key = SigningKey::from_bytes(&[1; 32]).public_key();
        let module = Digest::of(b"module");
        let refused = NotVerified {
            module,
            problem: ClaimProblem::Missing(module),
            keys: vec![key],
        };
        let text = refused.to_string();
        for words in ["--claim FILE", &key.to_string(), &module.to_string()] {
            assert!(text.contains(words), "{text}");
        }
    }
}
