//! The server's side: certificates, names, versions, clients' certificates, sessions, reloading.

use std::fs;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use millstream::tls::{Origin, TlsError, TlsServer, TlsServerBuilder, TlsVersion};
use millstream::{Action, CloseReason, Conn, Engine, EventHandler, Listen, ReactorStats};

use super::authority::{Authority, connect, exchange, handshake_fails, refused};
use crate::common::folder::Folder;
use crate::common::{TestEngine, eventually, pattern, receive};

/// What a handler is told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Open {
        version: Option<TlsVersion>,
        name: Option<String>,
        alpn: Option<Vec<u8>>,
        peers: usize,
        resumed: bool,
    },
    End,
    Close(String),
}

/// Echoes, and tells what happens.
pub(crate) struct Echo(pub(crate) Sender<Told>);

impl EventHandler for Echo {
    type State = ();

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let tls = conn.tls().expect("it has TLS");
        let _ = self.0.send(Told::Open {
            version: tls.version(),
            name: tls.server_name().map(str::to_owned),
            alpn: tls.alpn().map(<[u8]>::to_vec),
            peers: tls.peer_certificates().len(),
            resumed: tls.is_resumed(),
        });
        Action::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.output.write(conn.input.take_all());
        Action::Continue
    }

    fn on_end(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let _ = self.0.send(Told::End);
        conn.output.write(b"and that was all");
        Action::Close
    }

    fn on_close(&mut self, _conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        let _ = self.0.send(Told::Close(reason.to_string()));
    }
}

pub(crate) fn start(tls: &TlsServer) -> (TestEngine, Receiver<Told>) {
    let (tell, told) = channel();
    let builder = Engine::builder().listen(Listen::from("127.0.0.1:0").tls(tls));
    (TestEngine::start_exactly(builder, move |_| Echo(tell.clone())), told)
}

fn open(version: TlsVersion, name: &str) -> Told {
    let (version, name) = (Some(version), Some(name.to_owned()));
    Told::Open { version, name, alpn: None, peers: 0, resumed: false }
}

fn with_files(authority: &Authority, names: &[&str]) -> TlsServerBuilder {
    let files = authority.files(names);
    TlsServer::builder().pem_files(files.chain, files.key)
}

#[test]
fn bytes_go_through_and_the_end_is_said_on_both_sides() {
    let authority = Authority::new();
    let tls = with_files(&authority, &["localhost"]).build().unwrap();
    let (engine, told) = start(&tls);
    let mut client = connect(engine.connect(), authority.client(), "localhost");
    for len in [1, 16 * 1024, 16 * 1024 + 1, 300_000] {
        let bytes = pattern(len, 7);
        assert_eq!(exchange(&mut client, &bytes), bytes);
    }
    assert_eq!(receive(&told), open(TlsVersion::Tls13, "localhost"));
    client.conn.send_close_notify();
    client.flush().unwrap();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).expect("the end is said");
    assert_eq!(rest, b"and that was all");
    assert_eq!(receive(&told), Told::End);
    drop(client);
    assert_eq!(receive(&told), Told::Close("peer".to_owned()));
}

#[test]
fn tls_12_is_spoken_unless_it_is_too_old() {
    let authority = Authority::new();
    let mut config = authority.client_of(&[&rustls::version::TLS12]);
    config.resumption = rustls::client::Resumption::disabled();
    let (engine, told) = start(&with_files(&authority, &["localhost"]).build().unwrap());
    let mut client = connect(engine.connect(), config.clone(), "localhost");
    assert_eq!(exchange(&mut client, b"hello"), b"hello");
    assert_eq!(receive(&told), open(TlsVersion::Tls12, "localhost"));
    drop(client);

    let tls = with_files(&authority, &["localhost"]).oldest_version(TlsVersion::Tls13);
    let (engine, _told) = start(&tls.build().unwrap());
    let alert = handshake_fails(engine.connect(), config, "localhost");
    assert!(alert.contains("ProtocolVersion"), "{alert}");
    eventually("it is counted", || refused(&engine) == 1);
}

#[test]
fn a_certificate_is_chosen_by_name() {
    let authority = Authority::new();
    let first = authority.files(&["first.test", "www.first.test"]);
    let wild = authority.files(&["*.wild.test"]);
    let tls =
        TlsServer::builder().pem_files(&first.chain, &first.key).pem_files(wild.chain, wild.key);
    let (engine, _told) = start(&tls.clone().build().unwrap());
    for name in ["first.test", "www.first.test", "a.wild.test", "WWW.FIRST.TEST"] {
        let mut client = connect(engine.connect(), authority.client(), name);
        assert_eq!(exchange(&mut client, name.as_bytes()), name.as_bytes());
    }
    // The first one is for all others, for which it is not made out.
    for name in ["a.b.wild.test", "wild.test", "127.0.0.1"] {
        let refused = handshake_fails(engine.connect(), authority.client(), name);
        assert!(refused.contains("NotValidForName"), "{name}: {refused}");
    }
    let (engine, _told) = start(&tls.strict_names().build().unwrap());
    for name in ["b.test", "127.0.0.1"] {
        let refused = handshake_fails(engine.connect(), authority.client(), name);
        assert!(refused.contains("AccessDenied") || refused.contains("alert"), "{name}: {refused}");
    }
}

#[test]
fn a_protocol_is_agreed_on() {
    let authority = Authority::new();
    let tls = with_files(&authority, &["localhost"]).alpn(["two", "one"]).build().unwrap();
    let (engine, told) = start(&tls);
    let alpn = |offered: &[&str]| {
        let mut config = authority.client();
        config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    };
    let mut client = connect(engine.connect(), alpn(&["one", "two"]), "localhost");
    assert_eq!(exchange(&mut client, b"x"), b"x");
    assert_eq!(client.conn.alpn_protocol(), Some(&b"two"[..]));
    let Told::Open { alpn: Some(agreed), .. } = receive(&told) else { panic!("it opens") };
    assert_eq!(agreed, b"two");
    let mut client = connect(engine.connect(), alpn(&[]), "localhost");
    assert_eq!(exchange(&mut client, b"x"), b"x");
    let refused = handshake_fails(engine.connect(), alpn(&["three"]), "localhost");
    assert!(refused.contains("NoApplicationProtocol"), "{refused}");
}

#[test]
fn clients_show_certificates() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (required, requested) = (
        with_files(&authority, &["localhost"]).require_client_certificates(authority.file()),
        with_files(&authority, &["localhost"]).request_client_certificates(authority.file()),
    );
    let (engine, told) = start(&required.build().unwrap());
    let mut client = connect(engine.connect(), authority.client_as(&authority), "localhost");
    assert_eq!(exchange(&mut client, b"x"), b"x");
    assert!(matches!(receive(&told), Told::Open { peers: 1, resumed: false, .. }));
    for config in [authority.client(), authority.client_as(&other)] {
        let mut client = connect(engine.connect(), config, "localhost");
        let refused = client.write_all(b"x").and_then(|()| client.read_exact(&mut [0]));
        refused.expect_err("it is not let in");
    }
    eventually("both are counted", || refused(&engine) == 2);

    let (engine, told) = start(&requested.build().unwrap());
    let mut client = connect(engine.connect(), authority.client(), "localhost");
    assert_eq!(exchange(&mut client, b"x"), b"x");
    assert!(matches!(receive(&told), Told::Open { peers: 0, .. }));
}

#[test]
fn sessions_are_resumed_on_any_reactor() {
    let authority = Authority::new();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let tls = with_files(&authority, &["localhost"]).build().unwrap();
        let (tell, told) = channel();
        let builder = Engine::builder().reactors(2).listen(Listen::from("127.0.0.1:0").tls(&tls));
        let engine = TestEngine::start_exactly(builder, move |_| Echo(tell.clone()));
        let config = Arc::new(authority.client_of(&[version]));
        let visit = || {
            let mut client = connect(engine.connect(), Arc::clone(&config), "localhost");
            assert_eq!(exchange(&mut client, b"x"), b"x"); // The tickets come before it.
            let Told::Open { resumed, .. } = receive(&told) else { panic!("it opens") };
            client.conn.send_close_notify();
            client.read_to_end(&mut Vec::new()).expect("it ends");
            while !matches!(receive(&told), Told::Close(_)) {}
            resumed
        };
        assert!(!visit(), "there is nothing to resume");
        assert!(visit() && visit() && visit(), "{version:?}");
        tls.reload().unwrap();
        assert!(visit(), "{version:?}: it is resumed after a reload");
        let stats = engine.stats();
        let sum = |count: fn(&ReactorStats) -> u64| stats.reactors.iter().map(count).sum::<u64>();
        assert_eq!(sum(|reactor| reactor.handshakes), 5);
        assert_eq!(sum(|reactor| reactor.handshakes_resumed), 4);
        assert_eq!(sum(|reactor| reactor.handshakes_timed_out), 0);
    }
}

#[test]
fn new_files_are_taken_and_broken_ones_are_not() {
    let (authority, other) = (Authority::new(), Authority::new());
    let files = authority.files(&["localhost"]);
    let tls = TlsServer::from_pem_files(&files.chain, &files.key).unwrap();
    let (engine, _told) = start(&tls);
    let mut before = connect(engine.connect(), authority.client(), "localhost");
    assert_eq!(exchange(&mut before, b"x"), b"x");

    let (chain, key) = other.sign(&["localhost"]);
    fs::write(&files.chain, &chain).unwrap();
    let error = tls.reload().expect_err("the key is still the old one");
    assert!(matches!(error, TlsError::OtherKey { .. }), "{error}");
    let mut client = connect(engine.connect(), authority.client(), "localhost");
    assert_eq!(exchange(&mut client, b"x"), b"x");

    fs::write(&files.key, &key).unwrap();
    tls.reload().unwrap();
    let mut client = connect(engine.connect(), other.client(), "localhost");
    assert_eq!(exchange(&mut client, b"x"), b"x");
    assert_eq!(exchange(&mut before, b"y"), b"y");
}

#[test]
fn files_that_change_are_taken_by_themselves() {
    let (authority, other) = (Authority::new(), Authority::new());
    let files = authority.files(&["localhost"]);
    let tls = TlsServer::builder().pem_files(&files.chain, &files.key);
    let tls = tls.reload_when_changed(Duration::ZERO).build().unwrap();
    let (engine, _told) = start(&tls);
    let (chain, key) = other.sign(&["localhost"]);
    fs::write(&files.chain, &chain).unwrap();
    fs::write(&files.key, &key).unwrap();
    eventually("the new files are in force", || {
        let mut client = connect(engine.connect(), other.client(), "localhost");
        client.write_all(b"x").and_then(|()| client.read_exact(&mut [0])).is_ok()
    });
}

#[test]
fn what_is_wrong_with_files_is_said() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let (files, other) = (authority.files(&["localhost"]), authority.files(&["other"]));
    let file = |name: &str, text: &str| {
        fs::write(folder.join(name), text).unwrap();
        folder.join(name)
    };
    let at = |path: &std::path::Path| Origin::File(path.to_owned());
    let error_of = |chain: &std::path::Path, key: &std::path::Path| {
        TlsServer::from_pem_files(chain, key).err().expect("it is refused")
    };
    let missing = folder.join("missing");
    let error = error_of(&missing, &files.key);
    assert!(matches!(&error, TlsError::File { path, .. } if *path == missing), "{error}");
    let empty = file("empty", "");
    let error = error_of(&empty, &files.key);
    assert!(
        matches!(&error, TlsError::NoCertificate { origin } if *origin == at(&empty)),
        "{error}"
    );
    let error = error_of(&files.chain, &files.chain);
    assert!(matches!(&error, TlsError::NoKey { origin } if *origin == at(&files.chain)), "{error}");
    let error = error_of(&files.chain, &other.key);
    assert!(matches!(&error, TlsError::OtherKey { key, .. } if *key == at(&other.key)), "{error}");
    for text in [
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n\
         -----END RSA PRIVATE KEY-----\n",
    ] {
        let error = error_of(&files.chain, &file("encrypted", text));
        assert!(matches!(error, TlsError::EncryptedKey { .. }), "{error}");
    }
    let cut = file("cut", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    let error = error_of(&cut, &files.key);
    assert!(matches!(&error, TlsError::Pem { .. }), "{error}");
    let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let error = error_of(&file("nonsense", nonsense), &files.key);
    assert!(matches!(&error, TlsError::Unusable { .. }), "{error}");
    let error = TlsServer::builder().build().err().expect("there is no certificate");
    assert!(matches!(error, TlsError::NoIdentity), "{error}");
}
