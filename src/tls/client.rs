//! The client's side: whom it trusts, and what it shows.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

use super::error::TlsError;
use super::layer::TlsLayer;
use super::pem::{Identity, Source, roots};
use super::provider::provider;
use super::settings::{Settings, set_by};
use super::version::TlsVersion;
use crate::config::Layers;

/// How many servers' sessions are remembered.
const SESSIONS: usize = 256;

/// How outgoing connections are encrypted: what [`Connect::tls`](crate::Connect::tls) is given.
/// Cheap to clone; clones resume each other's sessions.
#[derive(Clone)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
    handshake_timeout: Duration,
}

impl TlsClient {
    /// With a configuration of the program's own, of rustls 0.23. Early data is not sent, whatever
    /// it says.
    pub fn from_rustls(config: Arc<ClientConfig>) -> Self {
        let mut config = Arc::unwrap_or_clone(config);
        config.enable_early_data = false;
        TlsClient {
            config: Arc::new(config),
            handshake_timeout: Settings::default().handshake_timeout,
        }
    }

    /// How long a handshake may take with this one and with what is cloned from it, instead of what
    /// it was built with, or 10 seconds.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// Says whom to trust, and more.
    pub fn builder() -> TlsClientBuilder {
        TlsClientBuilder {
            authorities: Vec::new(),
            #[cfg(feature = "tls-native-roots")]
            trusts_system: false,
            verifies_nothing: false,
            identity: None,
            settings: Settings::default(),
        }
    }

    /// What stands between a connection to a server of this name and the handler.
    pub(crate) fn layers(&self, name: String) -> Layers {
        let client = self.clone();
        Layers::new(move || {
            let config = Arc::clone(&client.config);
            Box::new(TlsLayer::client(config, &name, client.handshake_timeout))
        })
    }
}

/// Makes a [`TlsClient`].
#[derive(Clone, Debug)]
#[must_use]
pub struct TlsClientBuilder {
    authorities: Vec<Source>,
    #[cfg(feature = "tls-native-roots")]
    trusts_system: bool,
    verifies_nothing: bool,
    identity: Option<Identity>,
    settings: Settings,
}

set_by!(TlsClientBuilder);

impl TlsClientBuilder {
    /// Trusts the authorities that the system trusts (feature `tls-native-roots`), as they are when
    /// it is built. The environment variables `SSL_CERT_FILE` and `SSL_CERT_DIR` say where they
    /// are, if not in the usual place.
    #[cfg(feature = "tls-native-roots")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls-native-roots")))]
    pub fn system_authorities(mut self) -> Self {
        self.trusts_system = true;
        self
    }

    /// Trusts the authorities in this PEM file.
    pub fn authorities_file(mut self, authorities: impl Into<PathBuf>) -> Self {
        self.authorities.push(Source::File(authorities.into()));
        self
    }

    /// Trusts these authorities, in PEM.
    pub fn authorities(mut self, pem: &[u8]) -> Self {
        self.authorities.push(Source::Bytes(pem.into()));
        self
    }

    /// Shows servers that ask for it this chain of certificates, the client's own first, with its
    /// private key, in PEM files.
    pub fn pem_files(mut self, chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        let (chain, key) = (Source::File(chain.into()), Source::File(key.into()));
        self.identity = Some(Identity { chain, key, ocsp: None });
        self
    }

    /// The same with the contents of such files.
    pub fn pem(mut self, chain: &[u8], key: &[u8]) -> Self {
        let (chain, key) = (Source::Bytes(chain.into()), Source::Bytes(key.into()));
        self.identity = Some(Identity { chain, key, ocsp: None });
        self
    }

    /// Believes any server to be the one it should be: who is between can read and change
    /// everything. For experiments.
    pub fn dangerously_trust_everyone(mut self) -> Self {
        self.verifies_nothing = true;
        self
    }

    /// Reads all files.
    ///
    /// # Errors
    /// A file can't be read, or has not in it what it should, or no authority is trusted.
    pub fn build(self) -> Result<TlsClient, TlsError> {
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.settings.oldest.and_newer())
            .map_err(TlsError::settings)?
            .dangerous() // Which it is only with `TrustEveryone`.
            .with_custom_certificate_verifier(self.verifier(&provider)?);
        let mut config = match &self.identity {
            Some(identity) => {
                let key = identity.load(&provider)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(
                    Arc::unwrap_or_clone(key),
                )))
            }
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        config.key_log = self.settings.key_log();
        config.alpn_protocols = self.settings.alpn;
        let handshake_timeout = self.settings.handshake_timeout;
        Ok(TlsClient { config: Arc::new(config), handshake_timeout })
    }

    fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
        if self.verifies_nothing {
            return Ok(Arc::new(TrustEveryone(Arc::clone(provider))));
        }
        #[allow(unused_mut, reason = "with another feature it is changed")]
        let mut roots = roots(&self.authorities, |_| {})?;
        #[cfg(feature = "tls-native-roots")]
        if self.trusts_system {
            add_system_authorities(&mut roots)?;
        }
        if roots.is_empty() {
            return Err(TlsError::NoAuthorities);
        }
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        Ok(verifier.build().map_err(TlsError::settings)?)
    }
}

/// Those that can't be read are left out, as others do: systems have some that are ill formed.
#[cfg(feature = "tls-native-roots")]
fn add_system_authorities(roots: &mut rustls::RootCertStore) -> Result<(), TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let (added, _ill_formed) = roots.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(());
    }
    let first = found.errors.into_iter().next();
    let source = first.map_or_else(|| "there are none".into(), Into::into);
    Err(TlsError::SystemAuthorities { source })
}

/// Believes everybody, whose signatures are right.
#[derive(Debug)]
struct TrustEveryone(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustEveryone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
