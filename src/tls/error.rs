//! What may be wrong with what TLS is configured with.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why TLS can't be used as it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file can't be read.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// What should be PEM can't be read as that.
    #[error("{origin}: it is not PEM: {source}")]
    Pem {
        /// Where it is from.
        origin: Origin,
        /// What is wrong.
        source: Box<dyn Error + Send + Sync>,
    },
    /// There is no certificate.
    #[error("{origin}: there is no certificate in it")]
    NoCertificate {
        /// Where one should be.
        origin: Origin,
    },
    /// There is no private key.
    #[error("{origin}: there is no private key in it")]
    NoKey {
        /// Where one should be.
        origin: Origin,
    },
    /// The private key is encrypted; it must be decrypted first, for example by
    /// `openssl pkey -in KEY -out DECRYPTED`.
    #[error("{origin}: the private key is encrypted")]
    EncryptedKey {
        /// Where it is.
        origin: Origin,
    },
    /// The private key is not that of the certificate.
    #[error("{key}: the private key is not that of the certificate in {chain}")]
    OtherKey {
        /// Where the key is.
        key: Origin,
        /// Where the certificate is.
        chain: Origin,
    },
    /// The private key is that of a certificate in the chain, but not of the first one.
    #[error("{chain}: the certificate of the private key in {key} has to come first")]
    WrongOrder {
        /// Where the key is.
        key: Origin,
        /// Where the certificates are.
        chain: Origin,
    },
    /// A certificate, a key, a list of revoked certificates or a name can't be used.
    #[error("{origin}: it can't be used: {source}")]
    Unusable {
        /// Where it is.
        origin: Origin,
        /// What is wrong with it.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A client trusts no authority, so that it could not connect to anyone.
    #[error(
        "a TLS client needs authorities that it trusts: from a file, from bytes, or those of the \
         system (feature `tls-native-roots`)"
    )]
    NoAuthorities,
    /// The authorities that the system trusts can't be read.
    #[error("the authorities that the system trusts can't be read: {source}")]
    SystemAuthorities {
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// There is no certificate to show to clients.
    #[error("a TLS server needs a certificate")]
    NoIdentity,
    /// The settings don't go together.
    #[error("TLS can't be set up: {source}")]
    Settings {
        /// What is wrong with them.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl TlsError {
    pub(super) fn settings(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        TlsError::Settings { source: error.into() }
    }
}

/// Where a certificate, a key or the like is from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// The program gave it.
    Bytes,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(path) => path.display().fmt(f),
            Origin::Bytes => f.write_str("the given bytes"),
        }
    }
}
