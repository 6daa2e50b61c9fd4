//! What else is set on a server: along with its certificate, and at its start.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use millstream::restart::Handover;
use millstream::tls::{TlsClient, TlsServer, TlsServerBuilder};
use millstream::{Connect, Listen, UnixAddress};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::authority::{Authority, Files, connect, exchange};
use super::facts::{facts_of, serve};
use crate::common::alone::alone_with;
use crate::common::folder::Folder;
use crate::common::{DEADLINE, receive};

fn builder(files: &Files) -> TlsServerBuilder {
    TlsServer::builder().pem_files(&files.chain, &files.key)
}

/// Verifies as usual, and remembers the answer of the OCSP responder.
#[derive(Debug)]
struct Remembering(Arc<WebPkiServerVerifier>, Mutex<Vec<u8>>);

impl ServerCertVerifier for Remembering {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.1.lock().unwrap() = ocsp_response.to_vec();
        self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
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

#[test]
fn the_answer_of_an_ocsp_responder_comes_with_its_certificate() {
    let authority = Authority::new();
    let answer = authority.write("answer", [0x30, 3, 10, 1, 0]);
    let (plain, stapled) = (authority.files(&["plain.test"]), authority.files(&["localhost"]));
    let tls = builder(&plain).pem_files(stapled.chain, stapled.key).ocsp_file(&answer);
    let tls = tls.build().unwrap();
    let (engine, _told) = serve(Listen::from("127.0.0.1:0").tls(&tls));
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
    let verifier = Arc::new(Remembering(inner.build().unwrap(), Mutex::default()));
    let answer_for = |name: &str| {
        let mut config = authority.client();
        config.dangerous().set_certificate_verifier(verifier.clone());
        let mut client = connect(engine.connect(), config, name);
        assert_eq!(exchange(&mut client, b"x"), b"x");
        verifier.1.lock().unwrap().clone()
    };
    assert_eq!(answer_for("localhost"), [0x30, 3, 10, 1, 0]);
    assert!(answer_for("plain.test").is_empty());
    fs::write(&answer, [0x30, 3, 10, 1, 1]).unwrap();
    tls.reload().unwrap();
    assert_eq!(answer_for("localhost"), [0x30, 3, 10, 1, 1]);
}

#[test]
fn keys_are_logged_by_option_only() {
    let folder = Folder::new();
    let file = folder.join("keys");
    alone_with(&[("SSLKEYLOGFILE", file.as_os_str())], || {
        let file = PathBuf::from(env::var_os("SSLKEYLOGFILE").expect("it is set"));
        let authority = Authority::new();
        let files = authority.files(&["localhost"]);
        let client = || TlsClient::builder().authorities_file(authority.file());
        let talk = |server: TlsServerBuilder, client: &TlsClient| {
            let tls = server.build().unwrap();
            let (engine, _told) = serve(Listen::from("127.0.0.1:0").tls(&tls));
            let connect = Connect::to_host("localhost", engine.address().port());
            facts_of(connect.tls(client)).expect("it is connected");
        };
        let quiet = client().build().unwrap();
        talk(builder(&files), &quiet);
        assert!(!file.exists(), "nobody has asked for it");
        let logged = || fs::read_to_string(&file).unwrap().lines().count();
        talk(builder(&files).log_keys(), &quiet);
        assert!(fs::read_to_string(&file).unwrap().contains("CLIENT_TRAFFIC_SECRET_0"));
        let by_the_server = logged();
        talk(builder(&files), &client().log_keys().build().unwrap());
        assert_eq!(logged(), 2 * by_the_server, "both sides have the same");
    });
}

#[test]
fn a_private_key_is_not_shown() {
    let (chain, key) = Authority::new().sign(&["localhost"]);
    let server = TlsServer::builder().pem(chain.as_bytes(), key.as_bytes());
    let client = TlsClient::builder().pem(chain.as_bytes(), key.as_bytes());
    for shown in [format!("{server:?}"), format!("{client:?}")] {
        assert!(shown.contains("key: Bytes"), "{shown}");
        assert!(!shown.contains("45, 45") && !shown.contains("PRIVATE"), "{shown}");
    }
}

#[test]
fn a_listener_is_handed_over_and_sessions_go_on() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let files = authority.files(&["localhost"]);
    let keys = authority.write("keys", "07".repeat(32));
    let start = || {
        let path = UnixAddress::path(folder.path("handover")).unwrap();
        let mut handover = Handover::take(path, DEADLINE).unwrap();
        let tls = builder(&files).ticket_keys_file(&keys).build().unwrap();
        let (engine, told) = serve(handover.inherited.listen("127.0.0.1:0").tls(&tls));
        handover.ready(&engine, DEADLINE).expect("it takes over");
        (engine, told)
    };
    let client = Arc::new(authority.client());
    let (first, told) = start();
    let address = first.address();
    let mut before = connect(first.connect(), Arc::clone(&client), "localhost");
    assert_eq!(exchange(&mut before, b"x"), b"x");
    assert!(!receive(&told).resumed);
    drop(before);
    let (second, told) = start();
    first.wait().expect("it ends once it has handed over"); // Until then it accepts as well.
    assert_eq!(second.address(), address);
    let mut after = connect(second.connect(), client, "localhost");
    assert_eq!(exchange(&mut after, b"x"), b"x");
    assert!(receive(&told).resumed);
}
