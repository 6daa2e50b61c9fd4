//! Certificates, keys and lists of revoked certificates, from files or from memory.

use std::error::Error;
use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{Error as RustlsError, InconsistentKeys, RootCertStore};

use super::certificate::tell_of_faults;
use super::error::{Origin, TlsError};
use super::watch::Trace;

/// PEM, in a file or in memory.
#[derive(Clone)]
pub(super) enum Source {
    File(PathBuf),
    Bytes(Arc<[u8]>),
}

/// What is in it may be secret.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.origin(), f)
    }
}

impl Source {
    pub(super) fn origin(&self) -> Origin {
        match self {
            Source::File(path) => Origin::File(path.clone()),
            Source::Bytes(_) => Origin::Bytes,
        }
    }

    /// How the file looks now; `None` if it is none, or isn't there.
    pub(super) fn trace(&self) -> Option<Trace> {
        match self {
            Source::File(path) => Trace::of(path).ok(),
            Source::Bytes(_) => None,
        }
    }

    pub(super) fn read(&self) -> Result<Arc<[u8]>, TlsError> {
        match self {
            Source::File(path) => fs::read(path)
                .map(Arc::from)
                .map_err(|source: io::Error| TlsError::File { path: path.clone(), source }),
            Source::Bytes(bytes) => Ok(Arc::clone(bytes)),
        }
    }

    /// All certificates in it; at least one.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let bytes = self.read()?;
        let all = CertificateDer::pem_slice_iter(&bytes);
        let all = all.collect::<Result<Vec<_>, _>>().map_err(|error| self.not_pem(&error))?;
        if all.is_empty() {
            return Err(self.lacks(&bytes, TlsError::NoCertificate { origin: self.origin() }));
        }
        Ok(all)
    }

    /// All lists of revoked certificates in it; at least one, so that a file that was cut to
    /// nothing does not let everybody in.
    pub(super) fn revoked(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
        let bytes = self.read()?;
        let all = CertificateRevocationListDer::pem_slice_iter(&bytes);
        let all = all.collect::<Result<Vec<_>, _>>().map_err(|error| self.not_pem(&error))?;
        if all.is_empty() {
            return Err(self.lacks(&bytes, self.wrong("there is no list in it")));
        }
        Ok(all)
    }

    /// The first private key in it.
    fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        let bytes = self.read()?;
        PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
            _ if is_encrypted(&bytes) => TlsError::EncryptedKey { origin: self.origin() },
            pem::Error::NoItemsFound => {
                self.lacks(&bytes, TlsError::NoKey { origin: self.origin() })
            }
            error => self.not_pem(&error),
        })
    }

    /// An answer of an OCSP responder, in DER: a sequence.
    fn ocsp(&self) -> Result<Vec<u8>, TlsError> {
        let answer = self.read()?;
        if answer.first() != Some(&0x30) {
            return Err(self.wrong("it is not an answer of an OCSP responder in DER"));
        }
        Ok(answer.to_vec())
    }

    fn not_pem(&self, error: &pem::Error) -> TlsError {
        TlsError::Pem { origin: self.origin(), source: error.to_string().into() }
    }

    /// Nothing of what was looked for is in it, unless it has another form.
    fn lacks(&self, bytes: &[u8], error: TlsError) -> TlsError {
        if std::str::from_utf8(bytes).is_ok() {
            return error;
        }
        let source = "it is not text, but perhaps DER, which `openssl x509 -inform DER` or \
                      `openssl pkey -inform DER` converts";
        TlsError::Pem { origin: self.origin(), source: source.into() }
    }

    pub(super) fn wrong(&self, what: impl Into<Box<dyn Error + Send + Sync>>) -> TlsError {
        TlsError::Unusable { origin: self.origin(), source: what.into() }
    }
}

/// Whether this is a key that needs a password: in PKCS #8, or as OpenSSL once wrote it. The latter
/// has its header before the Base64, and so is not PEM as it is read here.
fn is_encrypted(pem: &[u8]) -> bool {
    let says = |text: &str| memchr::memmem::find(pem, text.as_bytes()).is_some();
    says("BEGIN ENCRYPTED PRIVATE KEY") || says("Proc-Type: 4,ENCRYPTED")
}

/// The certificates of all these authorities, of which each is noted.
pub(super) fn roots(
    authorities: &[Source],
    mut note: impl FnMut(&CertificateDer<'_>),
) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for source in authorities {
        for certificate in source.certificates()? {
            note(&certificate);
            roots.add(certificate).map_err(|error| source.wrong(error))?;
        }
    }
    Ok(roots)
}

/// A chain of certificates, and the key of the first one.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) chain: Source,
    pub(super) key: Source,
    /// What its authority says of its validity.
    pub(super) ocsp: Option<Source>,
}

impl Identity {
    pub(super) fn load(&self, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, TlsError> {
        let chain = self.chain.certificates()?;
        let key = provider.key_provider.load_private_key(self.key.key()?);
        let key = key.map_err(|error| self.key.wrong(error))?;
        let is_key_of =
            |certificate| is_key_of(&key, certificate).map_err(|error| self.chain.wrong(error));
        if !is_key_of(&chain[0])? {
            let (key, chain_file) = (self.key.origin(), self.chain.origin());
            for certificate in &chain[1..] {
                if is_key_of(certificate)? {
                    return Err(TlsError::WrongOrder { key, chain: chain_file });
                }
            }
            return Err(TlsError::OtherKey { key, chain: chain_file });
        }
        tell_of_faults(&chain, &self.chain.origin());
        let mut certified = CertifiedKey::new(chain, key);
        certified.ocsp = self.ocsp.as_ref().map(Source::ocsp).transpose()?;
        Ok(Arc::new(certified))
    }

    pub(super) fn sources(&self) -> impl Iterator<Item = &Source> {
        [&self.chain, &self.key].into_iter().chain(&self.ocsp)
    }
}

/// Whether a private key is that of a certificate; it is, if it does not say.
fn is_key_of(
    key: &Arc<dyn SigningKey>,
    certificate: &CertificateDer<'static>,
) -> Result<bool, RustlsError> {
    match CertifiedKey::new(vec![certificate.clone()], Arc::clone(key)).keys_match() {
        Ok(()) | Err(RustlsError::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(true),
        Err(RustlsError::InconsistentKeys(_)) => Ok(false),
        Err(error) => Err(error),
    }
}
