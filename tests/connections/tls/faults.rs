//! What peers do wrong.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use millstream::tls::{TlsClient, TlsServer};
use millstream::{
    Action, Conn, Connect, ConnectError, Engine, EventHandler, HandshakeError, Listen,
};
use rustls::HandshakeKind;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{default_provider, kx_group};

use super::authority::{Authority, connect, exchange, handshake_fails};
use super::raw::{DATA, client_config, extension, hello_with, in_records, record, server_config};
use super::server::{Told, start};
use super::site::{Network, Site, Stream, comes_to_rest, on_each_network};
use crate::common::{DEADLINE, Echo, TestEngine, read_exactly, receive};

on_each_network! {
    what_is_not_tls_gets_an_alert
    who_speaks_plain_http_is_told_what_to_do
    a_hello_may_be_large_within_bounds
    a_name_that_is_none_is_refused
    a_flood_of_hellos_leaves_others_in_peace
    a_client_may_have_to_say_hello_again
    who_is_silent_or_leaves_in_the_middle_is_refused
    records_come_in_single_bytes
    an_end_that_is_not_said_is_no_end
    records_that_are_changed_on_the_way_end_the_connection
}

fn server(authority: &Authority) -> TlsServer {
    let files = authority.files(&["localhost"]);
    TlsServer::from_pem_files(files.chain, files.key).unwrap()
}

#[track_caller]
fn gone(site: &Site, count: u64) {
    site.has_refused(count, "it is counted");
    site.eventually("it is gone", || site.connections() == 0);
}

fn what_is_not_tls_gets_an_alert(network: Network) {
    let authority = Authority::new();
    let site = Site::new(network, &server(&authority));
    let cases: [&[u8]; 6] = [
        b"PING\r\n",
        b"G\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[0; 100],
        &[0x16, 3, 1, 0xff, 0xff],
        &[0x16, 3, 3, 0, 0],
    ];
    for (count, case) in cases.into_iter().enumerate() {
        let mut stream = site.connect();
        let answer = stream.send_and_drain(case);
        assert_eq!(answer.first(), Some(&0x15), "{case:?}: {answer:?}");
        drop(stream);
        gone(&site, count as u64 + 1);
    }
}

fn who_speaks_plain_http_is_told_what_to_do(network: Network) {
    let authority = Authority::new();
    let site = Site::new(network, &server(&authority));
    for (count, request) in ["GET / HTTP/1.1\r\n\r\n", "POST /x HTTP/1.0\r\n"].iter().enumerate() {
        let mut stream = site.connect();
        let (begin, rest) = request.as_bytes().split_at(2);
        let received = || site.stats().reactors[0].bytes_in;
        let expected = received() + 2;
        stream.write_all(begin).unwrap();
        site.eventually("a part of it is read", || received() == expected);
        let answer = stream.send_and_drain(rest);
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("it is HTTP");
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
        assert!(body.contains("https"), "{body}");
        drop(stream);
        gone(&site, count as u64 + 1);
    }
}

/// The first byte of what a client hello gets: that of a record of the handshake, or of an alert;
/// none if it is neither answered nor refused.
fn first_answer(site: &Site, hello: &[u8]) -> Option<u8> {
    let mut stream = site.connect();
    let _ = stream.write_all(&in_records(hello, 16_384)); // It may be refused before its end.
    let mut first = [0];
    stream.read_exact(&mut first).ok().map(|()| first[0])
}

const SERVED: Option<u8> = Some(0x16);
const ALERTED: Option<u8> = Some(0x15);

fn a_hello_may_be_large_within_bounds(network: Network) {
    let authority = Authority::new();
    let site = Site::new(network, &server(&authority));
    let padding = |len| hello_with(authority.client(), &extension(21, &vec![0; len]));
    let many = |count| {
        let all: Vec<u8> = (0..count).flat_map(|kind| extension(0x8000 + kind, &[])).collect();
        hello_with(authority.client(), &all)
    };
    assert_eq!(first_answer(&site, &padding(30_000)), SERVED);
    assert_eq!(first_answer(&site, &many(7_000)), SERVED);
    // Of a longer one more than the bound is there before its end.
    assert_eq!(first_answer(&site, &padding(65_000)[..40_000]), None);
    assert_eq!(first_answer(&site, &many(15_000)[..40_000]), None);
    gone(&site, 4);
    site.comes_to_rest();
}

fn a_name_that_is_none_is_refused(network: Network) {
    let authority = Authority::new();
    let site = Site::new(network, &server(&authority));
    let entry = |kind: u8, name: &[u8]| [&[kind][..], &extension(0, name)[2..]].concat();
    let hello =
        |entries: &[u8]| hello_with(authority.client(), &extension(0, &extension(0, entries)[2..]));
    let long = [b'a'; 300];
    let label = [&long[..64], b".test"].concat();
    let cases: [(&[u8], Option<u8>); 9] = [
        (b"localhost", SERVED),
        (b"127.0.0.1", SERVED), // As if it asked for none.
        (b"no name at all", ALERTED),
        (b"", ALERTED),
        (b"\0", ALERTED),
        (b"l\xf6calhost", ALERTED),
        (b"..", ALERTED),
        (&label, ALERTED),
        (&long, ALERTED),
    ];
    for (name, expected) in cases {
        let answer = first_answer(&site, &hello(&entry(0, name)));
        assert_eq!(answer, expected, "{:?}", name.escape_ascii().to_string());
    }
    let twice = [entry(0, b"localhost"), entry(0, b"localhost")].concat();
    assert_eq!(first_answer(&site, &hello(&twice)), ALERTED);
    assert_eq!(first_answer(&site, &hello(&[])), ALERTED);
    gone(&site, 11);
}

fn a_flood_of_hellos_leaves_others_in_peace(network: Network) {
    const CLIENTS: usize = 200;
    let authority = Authority::new();
    let files = authority.files(&["localhost"]);
    let site = Site::new(network, &TlsServer::from_pem_files(files.chain, files.key).unwrap());
    let mut established = connect(site.connect(), authority.client(), "localhost");
    assert_eq!(exchange(&mut established, b"before"), b"before");
    let hello = client_hello(&authority);
    let mut flood: Vec<Stream> = (0..CLIENTS).map(|_| site.connect()).collect();
    for stream in &mut flood {
        stream.write_all(&hello).unwrap();
    }
    assert_eq!(exchange(&mut established, b"meanwhile"), b"meanwhile");
    for stream in &mut flood {
        assert_eq!(read_exactly(stream, 1), [0x16]);
    }
    drop(flood);
    site.has_refused(CLIENTS as u64, "all are counted");
    assert_eq!(exchange(&mut established, b"after"), b"after");
    site.comes_to_rest();
}

fn a_client_may_have_to_say_hello_again(network: Network) {
    let authority = Authority::new();
    let agreeing = |groups| CryptoProvider { kx_groups: groups, ..default_provider() };
    let version = &rustls::version::TLS13;
    let config =
        server_config(&authority.sign(&["localhost"]), version, agreeing(vec![kx_group::X25519]));
    let site = Site::new(network, &TlsServer::from_rustls(config.into()));
    let provider = agreeing(vec![kx_group::SECP384R1, kx_group::X25519]);
    let config = client_config(authority.roots(), version, provider);
    let mut client = connect(site.connect(), config, "localhost");
    assert_eq!(exchange(&mut client, b"hello"), b"hello");
    let kind = client.conn.handshake_kind();
    assert_eq!(kind, Some(HandshakeKind::FullWithHelloRetryRequest));
}

#[test]
fn a_ticket_of_another_server_is_no_ticket() {
    let authority = Authority::new();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = Arc::new(authority.client_of(&[version]));
        let visit = |engine: &TestEngine| {
            let mut client = connect(engine.connect(), Arc::clone(&config), "localhost");
            assert_eq!(exchange(&mut client, b"x"), b"x"); // The tickets come before it.
            client.conn.handshake_kind().unwrap()
        };
        let (one, _told) = start(&server(&authority));
        let (other, _told) = start(&server(&authority));
        assert_eq!(visit(&one), HandshakeKind::Full);
        assert_eq!(visit(&one), HandshakeKind::Resumed);
        assert_eq!(visit(&other), HandshakeKind::Full, "{version:?}");
    }
}

#[test]
fn a_port_without_tls_is_no_server_of_it() {
    let authority = Authority::new();
    let plain = TestEngine::echo(Engine::builder());
    let error = handshake_fails(plain.connect(), authority.client(), "localhost");
    assert!(error.contains("InappropriateHandshakeMessage"), "{error}");

    let client =
        |patience| TlsClient::from_rustls(authority.client().into()).handshake_timeout(patience);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let engine = TestEngine::start_exactly(Engine::builder().reactors(1), |_| Echo);
    let reactors = engine.reactors::<Echo>().unwrap();
    type Expected = fn(&HandshakeError) -> bool;
    let failed: Expected = |error| matches!(error, HandshakeError::Failed(_));
    let cases: [(Option<&[u8]>, Expected); 4] = [
        (Some(b"220 mail.example ready\r\n"), failed),
        (Some(b"HTTP/1.1 400 Bad Request\r\n\r\n"), failed),
        (Some(b""), |error| matches!(error, HandshakeError::Ended)),
        (None, |error| matches!(error, HandshakeError::TimedOut)),
    ];
    for (says, expected) in cases {
        let (tell, told) = channel();
        let tls = client(if says.is_some() { DEADLINE } else { Duration::from_millis(100) });
        let connect = Connect::to(listener.local_addr().unwrap()).tls_name(&tls, "localhost");
        let connected = reactors.connect(0, connect, move |_, _, connected| {
            let _ = tell.send(connected.err());
            Action::Continue
        });
        connected.unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        if let Some(says) = says {
            stream.write_all(says).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        }
        let Some(ConnectError::Handshake { source, .. }) = receive(&told) else {
            panic!("{says:?}: the handshake fails")
        };
        assert!(expected(&source), "{says:?}: {source:?}");
    }
}

/// Has much to say.
struct Talker;

const MUCH: usize = 8 * 1024 * 1024;

impl EventHandler for Talker {
    type State = ();

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.input.take_all();
        conn.output.write_bytes(vec![7; MUCH]);
        Action::Continue
    }
}

/// It has said its end, and what it is owed waits for it.
#[test]
fn nobody_spins_for_a_peer_that_has_ended_and_reads_nothing() {
    let authority = Authority::new();
    let builder = Engine::builder().reactors(1).output_cap(2 * MUCH);
    let builder = builder.listen(Listen::from("127.0.0.1:0").tls(&server(&authority)));
    let engine = TestEngine::start_exactly(builder, |_| Talker);
    let mut client = connect(engine.connect(), authority.client(), "localhost");
    client.write_all(b"x").unwrap();
    client.flush().unwrap();
    client.conn.send_close_notify();
    client.flush().unwrap();
    client.sock.shutdown(Shutdown::Write).unwrap();
    comes_to_rest(&engine);
    assert_eq!(engine.connections(), 1);
    let mut all = Vec::new();
    client.read_to_end(&mut all).expect("the end is said");
    assert!(all.len() == MUCH && all.iter().all(|byte| *byte == 7), "{} bytes", all.len());
}

fn who_is_silent_or_leaves_in_the_middle_is_refused(network: Network) {
    let authority = Authority::new();
    let timed_out = |site: &Site| {
        site.stats().reactors.iter().map(|reactor| reactor.handshakes_timed_out).sum::<u64>()
    };
    let files = authority.files(&["localhost"]);
    let impatient = TlsServer::builder().pem_files(files.chain, files.key);
    let soon = Duration::from_millis(300);
    let of_rustls =
        server_config(&authority.sign(&["localhost"]), &rustls::version::TLS13, default_provider());
    let of_rustls = TlsServer::from_rustls(of_rustls.into()).handshake_timeout(soon);
    for impatient in [impatient.handshake_timeout(soon).build().unwrap(), of_rustls] {
        let site = Site::new(network, &impatient);
        let silent = site.connect();
        gone(&site, 1);
        drop(silent);
        assert_eq!(timed_out(&site), 1);
    }

    let site = Site::new(network, &server(&authority));
    let hello = client_hello(&authority);
    for (count, len) in [0, 1, 5, 100, hello.len()].into_iter().enumerate() {
        let mut stream = site.connect();
        stream.write_all(&hello[..len]).unwrap();
        stream.end();
        stream.send_and_drain(&[]);
        drop(stream);
        gone(&site, count as u64 + 1);
    }
    assert_eq!(timed_out(&site), 0, "they have left");
}

fn records_come_in_single_bytes(network: Network) {
    let authority = Authority::new();
    let site = Site::new(network, &server(&authority));
    let name = "localhost".try_into().unwrap();
    let mut tls = rustls::ClientConnection::new(authority.client().into(), name).unwrap();
    let mut stream = site.connect();
    let mut back = Vec::new();
    tls.writer().write_all(b"hello").unwrap();
    while back.len() < 5 {
        let mut records = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut records).unwrap();
        }
        for byte in records {
            stream.write_all(&[byte]).unwrap();
        }
        tls.read_tls(&mut stream).unwrap();
        let state = tls.process_new_packets().unwrap();
        let mut plain = vec![0; state.plaintext_bytes_to_read()];
        tls.reader().read_exact(&mut plain).unwrap();
        back.extend(plain);
    }
    assert_eq!(back, b"hello");
    assert!(matches!(site.told(), Told::Open { .. }));
}

fn an_end_that_is_not_said_is_no_end(network: Network) {
    let authority = Authority::new();
    let site = Site::new(network, &server(&authority));
    let mut client = connect(site.connect(), authority.client(), "localhost");
    assert_eq!(exchange(&mut client, b"x"), b"x");
    assert!(matches!(site.told(), Told::Open { .. }));
    client.sock.end();
    assert_eq!(site.told(), Told::Close("truncated".to_owned()));
}

fn records_that_are_changed_on_the_way_end_the_connection(network: Network) {
    let authority = Authority::new();
    let site = Site::new(network, &server(&authority));
    let mut client = connect(site.connect(), authority.client(), "localhost");
    assert_eq!(exchange(&mut client, b"x"), b"x");
    assert!(matches!(site.told(), Told::Open { .. }));
    // A reset because of what is not read would overtake the alert.
    let behind = [&record(DATA, &[7; 40])[..], &[0; 1 << 20]].concat();
    client.sock.write_all(&behind).unwrap();
    let error = client.read_to_end(&mut Vec::new()).expect_err("an alert comes");
    assert!(error.to_string().contains("BadRecordMac"), "{error}");
    drop(client);
    let Told::Close(reason) = site.told() else { panic!("it closes") };
    assert_eq!(reason, "tls: cannot decrypt peer's message");
}

/// What a client says first.
fn client_hello(authority: &Authority) -> Vec<u8> {
    let name = "localhost".try_into().unwrap();
    let mut tls = rustls::ClientConnection::new(authority.client().into(), name).unwrap();
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).unwrap();
    hello
}
