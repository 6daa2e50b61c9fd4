//! Sessions that go on: with which server, and for whom.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use millstream::Listen;
use millstream::tls::{TlsError, TlsServer, TlsServerBuilder};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ServerConfig, ServerConnection, StreamOwned};

use super::authority::{Authority, Files, connect, exchange};
use super::facts::{Facts, serve};
use super::peers::has;
use crate::common::receive;

const ONE: &str = "0101010101010101010101010101010101010101010101010101010101010101";
const TWO: &str = "0202020202020202020202020202020202020202020202020202020202020202";

fn builder(files: &Files) -> TlsServerBuilder {
    TlsServer::builder().pem_files(&files.chain, &files.key)
}

/// Starts a server of its own, as another process would, and shakes hands with it.
fn visit(tls: &TlsServer, config: &Arc<ClientConfig>) -> Facts {
    let (engine, told) = serve(Listen::from("127.0.0.1:0").tls(tls));
    let mut client = connect(engine.connect(), Arc::clone(config), "localhost");
    assert_eq!(exchange(&mut client, b"x"), b"x"); // The tickets come before it.
    client.conn.send_close_notify();
    client.read_to_end(&mut Vec::new()).expect("it ends");
    receive(&told)
}

#[test]
fn servers_with_the_same_keys_resume_each_others_sessions() {
    let authority = Authority::new();
    let files = authority.files(&["localhost"]);
    let server = |name: &str, keys: &str| {
        builder(&files).ticket_keys_file(authority.write(name, keys)).build().unwrap()
    };
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let one = server("one", ONE);
        let config = || Arc::new(authority.client_of(&[version]));
        let client = config();
        assert!(!visit(&one, &client).resumed, "there is nothing to resume");
        assert!(visit(&one, &client).resumed);
        assert!(visit(&server("after a restart", ONE), &client).resumed);
        let rotated = server("rotated", &format!("# new\n{TWO}\n\n{ONE}\n"));
        assert!(visit(&rotated, &client).resumed, "the old key opens");
        assert!(!visit(&one, &client).resumed, "the new one has sealed");

        // A reload takes other keys, or leaves those that are there.
        let client = config();
        assert!(!visit(&one, &client).resumed);
        authority.write("one", "nonsense");
        let error = one.reload().expect_err("it is not a key");
        assert!(matches!(&error, TlsError::Unusable { .. }), "{error}");
        assert!(visit(&one, &client).resumed);
        authority.write("one", TWO);
        one.reload().unwrap();
        assert!(!visit(&one, &client).resumed);
        assert!(visit(&rotated, &client).resumed);
    }
}

#[test]
fn no_ticket_stands_for_a_certificate_that_was_not_checked() {
    let (authority, other) = (Authority::new(), Authority::new());
    let files = authority.files(&["localhost"]);
    let keys = authority.write("keys", ONE);
    let builder = || builder(&files).ticket_keys_file(&keys);
    let list = authority.write("list", authority.revoke(&[1]));
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let config = authority.client_with(&[version], &authority.sign(&["a client"]));
        let client = Arc::new(config);
        let open = builder().build().unwrap();
        visit(&open, &client);
        let facts = visit(&open, &client);
        assert!(facts.resumed && facts.certificates.is_empty(), "nobody asked for one");
        // The same keys, but now a certificate is asked for.
        let strict = builder().require_client_certificates(authority.file());
        let strict = strict.build().unwrap();
        let facts = visit(&strict, &client);
        assert!(!facts.resumed && facts.certificates.len() == 1);
        let facts = visit(&strict, &client);
        assert!(facts.resumed && facts.certificates.len() == 1, "it was checked before");
        strict.reload().unwrap();
        assert!(visit(&strict, &client).resumed, "nothing is different");
        let optional = builder().request_client_certificates(authority.file());
        assert!(!visit(&optional.build().unwrap(), &client).resumed);
        // Others are trusted as well, or some are not any more.
        visit(&strict, &client);
        let both = authority.certificate.pem() + &other.certificate.pem();
        let wider = builder().require_client_certificates(authority.write("both", both));
        assert!(!visit(&wider.build().unwrap(), &client).resumed);
        visit(&strict, &client);
        let revoking = builder().require_client_certificates(authority.file());
        let revoking = revoking.revoked_client_certificates(&list).build().unwrap();
        assert!(!visit(&revoking, &client).resumed);
        assert!(visit(&revoking, &client).resumed);
        authority.write("list", authority.revoke(&[2]));
        revoking.reload().unwrap();
        assert!(!visit(&revoking, &client).resumed);
    }
}

/// The same with keys that are the server's own.
#[test]
fn a_reload_with_other_authorities_asks_for_certificates_again() {
    let (authority, other) = (Authority::new(), Authority::new());
    let files = authority.files(&["localhost"]);
    let trusted = authority.write("trusted", authority.certificate.pem());
    let tls = builder(&files).require_client_certificates(&trusted).build().unwrap();
    let client = Arc::new(authority.client_as(&authority));
    visit(&tls, &client);
    assert!(visit(&tls, &client).resumed);
    tls.reload().unwrap();
    assert!(visit(&tls, &client).resumed);
    authority.write("trusted", other.certificate.pem());
    tls.reload().unwrap();
    let (engine, told) = serve(Listen::from("127.0.0.1:0").tls(&tls));
    let mut stranger = connect(engine.connect(), client, "localhost");
    let refused = stranger.write_all(b"x").and_then(|()| stranger.read_exact(&mut [0]));
    refused.expect_err("its authority is not trusted any more");
    assert!(told.try_recv().is_err(), "it has not opened");
}

#[test]
fn pythons_sessions_go_on_at_servers_with_the_same_keys() {
    if !has("python3") {
        return;
    }
    let authority = Authority::new();
    let files = authority.files(&["localhost"]);
    let keys = authority.write("keys", ONE);
    let client = authority.files(&["a client"]);
    let same = || builder(&files).ticket_keys_file(&keys);
    let servers =
        [same(), same(), same().require_client_certificates(authority.file()), builder(&files)];
    let engines =
        servers.map(|server| serve(Listen::from("127.0.0.1:0").tls(&server.build().unwrap())));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/connections/tls/sessions.py");
    let mut python = Command::new("timeout");
    python.args(["60", "python3", script]);
    python.args([&authority.file(), &client.chain, &client.key]);
    python.args(engines.iter().map(|(engine, _)| engine.address().port().to_string()));
    let output = python.output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A server on rustls alone that accepts early data: it greets each of these clients.
fn early_server(config: ServerConfig, clients: usize) -> (u16, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = Arc::new(config);
    let serve = move || {
        for _ in 0..clients {
            let (stream, _) = listener.accept().unwrap();
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, stream);
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            stream.write_all(&byte).unwrap();
            stream.conn.send_close_notify();
            stream.flush().unwrap();
        }
    };
    (port, thread::spawn(serve))
}

fn rustls_server(files: &Files) -> ServerConfig {
    let chain = vec![CertificateDer::from_pem_file(&files.chain).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    builder.with_no_client_auth().with_single_cert(chain, key).unwrap()
}

/// A client that has a session in which early data is allowed sends it: it is not accepted, and
/// nothing of it comes to the handler.
#[test]
fn early_data_is_not_accepted() {
    let authority = Authority::new();
    let mut config = rustls_server(&authority.files(&["localhost"]));
    config.max_early_data_size = 1 << 14;
    let tls = TlsServer::from_rustls(Arc::new(config.clone())); // They share their sessions.
    let mut client = authority.client();
    client.enable_early_data = true;
    let client = Arc::new(client);
    let (port, served) = early_server(config, 1);
    let plain = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut first = connect(plain, Arc::clone(&client), "localhost");
    assert_eq!(exchange(&mut first, b"x"), b"x");
    first.read_to_end(&mut Vec::new()).unwrap();
    served.join().unwrap();

    let (engine, told) = serve(Listen::from("127.0.0.1:0").tls(&tls));
    let mut second = connect(engine.connect(), Arc::clone(&client), "localhost");
    let mut early = second.conn.early_data().expect("the session allows it");
    early.write_all(b"early").unwrap();
    assert_eq!(exchange(&mut second, b"later"), b"later");
    assert!(!second.conn.is_early_data_accepted());
    assert!(receive(&told).resumed, "the session goes on");
}

/// A certificate for a protocol that the client offers, as ACME's tls-alpn-01 asks for, is chosen
/// by a configuration of the program's own.
#[test]
fn a_configuration_of_rustls_chooses_by_protocol() {
    let (authority, challenge) = (Authority::new(), Authority::new());
    let mut config = rustls_server(&authority.files(&["localhost"]));
    let answer = rustls_server(&challenge.files(&["localhost"]));
    config.alpn_protocols = vec![b"acme-tls/1".to_vec(), b"echo".to_vec()];
    config.cert_resolver = Arc::new(ByProtocol([config.cert_resolver, answer.cert_resolver]));
    let tls = TlsServer::from_rustls(Arc::new(config));
    let (engine, told) = serve(Listen::from("127.0.0.1:0").tls(&tls));
    for (trusted, protocol) in [(&authority, "echo"), (&challenge, "acme-tls/1")] {
        let mut config = trusted.client();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let mut client = connect(engine.connect(), config, "localhost");
        assert_eq!(exchange(&mut client, b"x"), b"x");
        let facts = receive(&told);
        assert_eq!(facts.alpn.as_deref(), Some(protocol.as_bytes()));
        assert_eq!(facts.server_name.as_deref(), Some("localhost"));
    }
}

#[derive(Debug)]
struct ByProtocol([Arc<dyn rustls::server::ResolvesServerCert>; 2]);

impl rustls::server::ResolvesServerCert for ByProtocol {
    fn resolve(
        &self,
        hello: rustls::server::ClientHello<'_>,
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        let mut offered = hello.alpn().into_iter().flatten();
        let is_challenge = offered.any(|protocol| protocol == b"acme-tls/1");
        self.0[usize::from(is_challenge)].resolve(hello)
    }
}
