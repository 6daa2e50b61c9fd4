//! Certificates for tests.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;

use millstream::{CloseReason, Engine};
use rcgen::{
    CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, ConfigBuilder, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};

use crate::common::folder::Folder;

/// An authority, and what it has signed.
pub(crate) struct Authority {
    pub(crate) certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
    folder: Folder,
}

/// Files of a certificate and its key.
pub(crate) struct Files {
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("there are no names");
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("keys are made");
        let name = format!("authority of {:?}", key.public_key_raw());
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let certificate = params.self_signed(&key).expect("it is signed");
        let issuer = Issuer::new(params, key);
        Authority { certificate, issuer, folder: Folder::new() }
    }

    /// Signs a certificate for names.
    pub(crate) fn sign(&self, names: &[&str]) -> (String, String) {
        self.sign_as(names, |_| {})
    }

    /// The same with something else.
    pub(crate) fn sign_as(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> (String, String) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("the names are right");
        change(&mut params);
        let key = KeyPair::generate().expect("keys are made");
        let certificate = params.signed_by(&key, &self.issuer).expect("it is signed");
        (certificate.pem(), key.serialize_pem())
    }

    /// The same, in files.
    pub(crate) fn files(&self, names: &[&str]) -> Files {
        let (chain, key) = self.sign(names);
        Files {
            chain: self.write(&format!("{}.pem", names[0]), chain),
            key: self.write(&format!("{}.key", names[0]), key),
        }
    }

    /// The file of its certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.write("authority.pem", self.certificate.pem())
    }

    /// A list of revoked certificates, by their numbers.
    pub(crate) fn revoke(&self, numbers: &[u64]) -> String {
        let when = rcgen::date_time_ymd(2026, 1, 1);
        let revoked = numbers.iter().map(|number| RevokedCertParams {
            serial_number: SerialNumber::from(*number),
            revocation_time: when,
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: when,
            next_update: rcgen::date_time_ymd(2027, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).expect("it is signed");
        list.pem().expect("it is written")
    }

    /// Writes a file that is there as long as the authority.
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.join(name);
        std::fs::write(&path, text).expect("the folder can be written to");
        path
    }

    /// A client that trusts it.
    pub(crate) fn client(&self) -> ClientConfig {
        self.client_of(rustls::DEFAULT_VERSIONS)
    }

    /// A client that trusts it and speaks these versions.
    pub(crate) fn client_of(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        self.trusting(versions).with_no_client_auth()
    }

    /// A client that trusts it, with a certificate of `authority`.
    pub(crate) fn client_as(&self, authority: &Authority) -> ClientConfig {
        self.client_with(rustls::DEFAULT_VERSIONS, &authority.sign(&["a client"]))
    }

    /// A client that trusts it, with this certificate and its key.
    pub(crate) fn client_with(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        (chain, key): &(String, String),
    ) -> ClientConfig {
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes());
        let chain = chain.collect::<Result<Vec<_>, _>>().expect("it is PEM");
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("it is PEM");
        let config = self.trusting(versions);
        config.with_client_auth_cert(chain, key).expect("the key is that of the certificate")
    }

    fn trusting(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ConfigBuilder<ClientConfig, WantsClientCert> {
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("there are versions")
            .with_root_certificates(self.roots())
    }

    /// It alone.
    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.certificate.der().to_vec())).expect("it is one");
        roots
    }
}

/// A blocking client.
pub(crate) type Client<S = TcpStream> = StreamOwned<ClientConnection, S>;

pub(crate) fn connect<S: Read + Write>(
    stream: S,
    config: impl Into<Arc<ClientConfig>>,
    name: &str,
) -> Client<S> {
    let name = ServerName::try_from(name.to_owned()).expect("it is a name");
    let connection = ClientConnection::new(config.into(), name).expect("it is configured");
    StreamOwned::new(connection, stream)
}

pub(crate) fn exchange(client: &mut (impl Read + Write), bytes: &[u8]) -> Vec<u8> {
    client.write_all(bytes).expect("it is sent");
    let mut received = vec![0; bytes.len()];
    client.read_exact(&mut received).expect("it comes back");
    received
}

/// Shakes hands in vain, and returns why.
pub(crate) fn handshake_fails(stream: TcpStream, config: ClientConfig, name: &str) -> String {
    let mut client = connect(stream, config, name);
    let error = loop {
        if let Err(error) = client.conn.complete_io(&mut client.sock) {
            break error;
        }
    };
    format!("{error:?}")
}

/// How many connections of an engine were closed in their handshake.
pub(crate) fn refused(engine: &Engine) -> u64 {
    let reason = CloseReason::NAMES.iter().position(|name| *name == "handshake");
    engine.stats().reactors.iter().map(|stats| stats.closed[reason.unwrap()]).sum()
}
