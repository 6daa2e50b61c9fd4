//! Which clients are let in by their certificates.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::certificate::valid_until;
use super::error::TlsError;
use super::noted;
use super::pem::{Source, roots};

/// Which clients have to show a certificate, and of whom.
#[derive(Clone, Debug, Default)]
pub(super) struct Clients {
    pub(super) asked: Asked,
    pub(super) authorities: Vec<Source>,
    pub(super) revoked: Vec<Source>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Asked {
    #[default]
    Never,
    Optional,
    Required,
}

/// What checks the certificates of clients, if they are asked for one, and all that it goes by, in
/// bytes.
pub(super) struct Loaded {
    pub(super) verifier: Option<Arc<dyn ClientCertVerifier>>,
    pub(super) rules: Vec<u8>,
}

impl Clients {
    pub(super) fn sources(&self) -> impl Iterator<Item = &Source> {
        self.authorities.iter().chain(&self.revoked)
    }

    pub(super) fn load(&self, provider: &Arc<CryptoProvider>) -> Result<Loaded, TlsError> {
        let mut rules = vec![self.asked as u8];
        let Some(first) = self.authorities.first() else {
            if !self.revoked.is_empty() {
                let error = "certificates are revoked that no client is asked for";
                return Err(TlsError::settings(error));
            }
            return Ok(Loaded { verifier: None, rules });
        };
        let roots = roots(&self.authorities, |certificate| rules.extend_from_slice(certificate))?;
        let roots = Arc::new(roots);
        let build = |lists: Vec<_>, source: &Source| {
            let provider = Arc::clone(provider);
            let builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider)
                .with_crls(lists)
                .allow_unknown_revocation_status();
            let builder = match self.asked {
                Asked::Required => builder,
                Asked::Optional | Asked::Never => builder.allow_unauthenticated(),
            };
            builder.build().map_err(|error| source.wrong(error))
        };
        let mut lists = Vec::new();
        for source in &self.revoked {
            let more = source.revoked()?;
            build(more.clone(), source)?; // So that an error names the file.
            more.iter().for_each(|list| rules.extend_from_slice(list));
            lists.extend(more);
        }
        let verifier: Arc<dyn ClientCertVerifier> = Arc::new(Noting(build(lists, first)?));
        Ok(Loaded { verifier: Some(verifier), rules })
    }
}

/// Notes until when what a client has shown is valid.
#[derive(Debug)]
struct Noting(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Noting {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.verify_client_cert(end_entity, intermediates, now)?;
        let shown = [end_entity].into_iter().chain(intermediates);
        let until = valid_until(shown.map(AsRef::as_ref));
        noted::note(|noted| noted.valid_until = Some(until));
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
