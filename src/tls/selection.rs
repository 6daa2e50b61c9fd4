//! Which of a server's certificates a client is shown.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::dns_names;
use super::error::TlsError;
use super::noted;
use super::pem::Identity;

/// By their names.
#[derive(Debug)]
pub(super) struct Certificates {
    by_name: HashMap<Box<str>, Arc<CertifiedKey>>,
    default: Option<Arc<CertifiedKey>>,
}

impl Certificates {
    /// The first one is for clients that ask for none of the names, too, unless it is `strict`.
    pub(super) fn load(
        identities: &[Identity],
        strict: bool,
        provider: &CryptoProvider,
    ) -> Result<Self, TlsError> {
        let mut loaded = Certificates { by_name: HashMap::new(), default: None };
        for identity in identities {
            let certified = identity.load(provider)?;
            for name in
                dns_names(&certified.cert[0]).map_err(|error| identity.chain.wrong(error))?
            {
                loaded.by_name.entry(name).or_insert_with(|| Arc::clone(&certified));
            }
            loaded.default.get_or_insert(certified);
        }
        if loaded.default.is_none() {
            return Err(TlsError::NoIdentity);
        }
        loaded.default = loaded.default.filter(|_| !strict);
        Ok(loaded)
    }

    /// That of the name, or of a wildcard for its first label, or the one for all.
    fn find(&self, name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        let name = name.map(str::to_ascii_lowercase);
        let exact = name.as_deref().and_then(|name| self.by_name.get(name));
        let wildcard = || {
            let (_, parent) = name.as_deref()?.split_once('.')?;
            self.by_name.get(format!("*.{parent}").as_str())
        };
        exact.or_else(wildcard).or(self.default.as_ref())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name()).cloned()
    }
}

/// Notes which name a client asks for.
#[derive(Debug)]
pub(super) struct Noting(pub(super) Arc<dyn ResolvesServerCert>);

impl ResolvesServerCert for Noting {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        noted::note(|noted| noted.server_name = hello.server_name().map(Into::into));
        self.0.resolve(hello)
    }

    fn only_raw_public_keys(&self) -> bool {
        self.0.only_raw_public_keys()
    }
}
