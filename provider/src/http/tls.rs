//! `Tls`: the certificate by which clients know the provider, and its change while it serves.
//!
//! In: a chain of certificates and a key, in PEM. Out: connections that nobody reads on the way,
//! of TLS 1.2 or 1.3. A certificate that cannot be used leaves the one before in its place. It
//! reads no file, and asks clients for no certificate: they have keys.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsAcceptor;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The file of certificates.
    #[error("the certificates are no PEM")]
    Certificates(#[source] pem::Error),
    /// There is none.
    #[error("the file of certificates holds none")]
    NoCertificate,
    /// The file of the key.
    #[error("the private key is no PEM of PKCS #8, PKCS #1 or SEC1")]
    Key(#[source] pem::Error),
    /// The two do not fit, or are of a kind that is not known.
    #[error("the certificate and its key cannot be used together")]
    Unusable(#[source] rustls::Error),
}

/// What clients are shown. Cloning gives another handle to the same one.
#[derive(Clone)]
pub struct Tls {
    now: Arc<RwLock<Arc<ServerConfig>>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// A chain of certificates, the provider's own first, and its key, both in PEM.
    ///
    /// # Errors
    /// [`TlsError`] says which of the two is wrong.
    pub fn new(certificates_pem: &[u8], key_pem: &[u8]) -> Result<Self, TlsError> {
        let config = config(certificates_pem, key_pem)?;
        Ok(Self {
            now: Arc::new(RwLock::new(config)),
        })
    }

    /// Shows another certificate to whoever comes from now on.
    ///
    /// # Errors
    /// [`TlsError`]; then nothing was changed.
    pub fn renew(&self, certificates_pem: &[u8], key_pem: &[u8]) -> Result<(), TlsError> {
        let config = config(certificates_pem, key_pem)?;
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&now))
    }
}

/// The SHA-256 of the first certificate, in hexadecimal pairs, as browsers show it.
///
/// # Errors
/// [`TlsError`] if there is none.
pub fn fingerprint(certificates_pem: &[u8]) -> Result<String, TlsError> {
    let certificates = certificates(certificates_pem)?;
    let first = certificates.first().ok_or(TlsError::NoCertificate)?;
    let digest = Sha256::digest(first);
    let pairs: Vec<String> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
    Ok(pairs.join(":"))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    all.map_err(TlsError::Certificates)
}

fn config(certificates_pem: &[u8], key_pem: &[u8]) -> Result<Arc<ServerConfig>, TlsError> {
    let certificates = certificates(certificates_pem)?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(TlsError::Key)?;
    let crypto = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Unusable)?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(TlsError::Unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
