//! Certificates of the example `self_signed`.

use std::process::{Command, Output};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::example::example;
use super::folder::Folder;

/// A certificate for a server of this machine, and its key, in files.
pub struct Certificate {
    _folder: Folder,
    pub cert: String,
    pub key: String,
}

impl Certificate {
    pub fn new() -> Self {
        let folder = Folder::new();
        let (cert, key) = (folder.path("cert.pem"), folder.path("key.pem"));
        let made = self_signed(&["--cert", &cert, "--key", &key]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Certificate { _folder: folder, cert, key }
    }

    /// Makes another one in its place.
    pub fn renew(&self) {
        let made = self_signed(&["--cert", &self.cert, "--key", &self.key, "--force"]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// What clients believe it with.
    pub fn believed(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let shown = CertificateDer::from_pem_file(&self.cert).expect("it is PEM");
        roots.add(shown).expect("it is a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("there are versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }

    /// The options of a server that shows it, and these.
    pub fn options<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        [&["--tls-cert", &self.cert, "--tls-key", &self.key], more].concat()
    }
}

/// The client's side of a connection to a server of this machine.
pub fn client_side(config: Arc<ClientConfig>) -> ClientConnection {
    let name = "localhost".try_into().expect("it is a name");
    ClientConnection::new(config, name).expect("it is configured")
}

pub fn self_signed(arguments: &[&str]) -> Output {
    let output = Command::new(example("self_signed")).args(arguments).output();
    output.expect("cargo has built the example")
}
