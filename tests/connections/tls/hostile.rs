//! Handshakes and records that are wrong, from clients to the engine's server side and from servers
//! to its client side. Each ends its own connection, with the right reason.

use std::io::Write;
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{LazyLock, Once};

use millstream::tls::{TlsClient, TlsServer};
use millstream::{Action, Connect, ConnectError, HandshakeError};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::ring::default_provider;
use rustls::{
    CipherSuiteCommon, Connection, SupportedCipherSuite, SupportedProtocolVersion, Tls13CipherSuite,
};

use super::authority::{Authority, Client, connect, exchange};
use super::raw::{
    ALERT, CHANGE_CIPHER_SPEC, DATA, HANDSHAKE, Outcome, Sealer, Step, VERSIONS, client, echoed,
    flight, in_records, record, server, server_config, shake_hands,
};
use super::server::{Echo, Told, start};
use super::site::{Listener, Network, Site, Stream, on_each_network};
use crate::common::pattern;

on_each_network! {
    a_peer_may_leave_behind_each_of_its_records_or_in_one
    a_handshake_that_goes_wrong_is_refused
    an_end_that_is_said_within_a_handshake_makes_nobody_spin
    messages_may_come_in_records_of_one_byte
    records_that_are_wrong_end_an_open_connection
    what_comes_behind_the_end_is_not_looked_at
    keys_are_renewed_amid_much_and_not_for_nothing
    much_may_come_behind_a_message_in_parts
}

/// What the engine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Server,
    Client,
}

/// Each role with each version.
fn settings() -> impl Iterator<Item = (Role, &'static SupportedProtocolVersion)> {
    let of = |role| VERSIONS.map(|version| (role, version));
    [of(Role::Server), of(Role::Client)].into_iter().flatten()
}

/// A site that both listens and connects with TLS, and what is around it.
struct Field {
    authority: Authority,
    site: Site,
    /// For the engine to connect to.
    listener: Listener,
    connector: TlsClient,
    tell_connected: Sender<Result<(), ConnectError>>,
    connected: Receiver<Result<(), ConnectError>>,
    /// A connection that has to go on, whatever happens on others.
    bystander: Client<Stream>,
    refused: u64,
}

impl Field {
    fn new(network: Network) -> Self {
        count_panics_of_rustls();
        let authority = Authority::new();
        let files = authority.files(&["localhost"]);
        let tls = TlsServer::from_pem_files(files.chain, files.key).expect("the files are right");
        let site = Site::new(network, &tls);
        let connector = TlsClient::builder().authorities_file(authority.file()).build();
        let listener = site.listen();
        let (tell_connected, connected) = channel();
        let mut bystander = connect(site.connect(), authority.client(), "localhost");
        assert_eq!(exchange(&mut bystander, b"here"), b"here");
        assert!(matches!(site.told(), Told::Open { .. }));
        Field {
            authority,
            site,
            listener,
            connector: connector.expect("the authority is there"),
            tell_connected,
            connected,
            bystander,
            refused: 0,
        }
    }

    /// A connection to the engine, or of it, and who is at its far end.
    fn meet(&self, role: Role, version: &'static SupportedProtocolVersion) -> (Stream, Connection) {
        if role == Role::Server {
            return (self.site.connect(), client(self.authority.roots(), version));
        }
        let connect = Connect::to(self.listener.address());
        let tell = self.tell_connected.clone();
        let reactors = self.site.reactors::<Echo>().expect("it is the handler");
        let done = reactors.connect(
            0,
            connect.tls_name(&self.connector, "localhost"),
            move |_, _, connected| {
                let _ = tell.send(connected.map(|_| ()));
                Action::Continue
            },
        );
        done.expect("it runs");
        (self.listener.accept(), server(&self.authority.sign(&["localhost"]), version))
    }

    /// A connection that is open.
    fn open(&self, role: Role, version: &'static SupportedProtocolVersion) -> (Stream, Connection) {
        let (mut stream, mut peer) = self.meet(role, version);
        let outcome = shake_hands(&mut peer, &mut stream, |_, record| Step::Send(record));
        assert_eq!(outcome, Outcome::Done);
        self.is_open(role);
        (stream, peer)
    }

    fn is_open(&self, role: Role) {
        assert!(matches!(self.site.told(), Told::Open { .. }));
        if role == Role::Client {
            self.site.receive(&self.connected).expect("the handshake is over");
        }
    }

    /// Waits until the one connection besides the bystander was refused in its handshake, and is
    /// gone.
    #[track_caller]
    fn is_refused(&mut self, role: Role, what: &str) {
        self.refused += 1;
        self.site.has_refused(self.refused, what);
        self.is_gone(what);
        if role == Role::Client {
            let error = self.site.receive(&self.connected).expect_err(what);
            let ConnectError::Handshake { source, .. } = error else { panic!("{what}: {error}") };
            assert!(!matches!(source, HandshakeError::TimedOut), "{what}: {source}");
        }
        assert!(self.site.has_told_nothing_more(), "{what}: a callback was told");
        self.goes_on(what);
    }

    /// Waits until the one connection besides the bystander was closed, and returns why.
    #[track_caller]
    fn closed(&mut self, what: &str) -> String {
        let reason = loop {
            match self.site.told() {
                Told::Close(reason) => break reason,
                Told::End => {}
                told @ Told::Open { .. } => panic!("{what}: {told:?}"),
            }
        };
        self.is_gone(what);
        self.goes_on(what);
        reason
    }

    #[track_caller]
    fn is_gone(&self, what: &str) {
        self.site.eventually(what, || self.site.connections() == 1);
    }

    #[track_caller]
    fn goes_on(&mut self, what: &str) {
        assert_eq!(exchange(&mut self.bystander, what.as_bytes()), what.as_bytes());
        assert_eq!(PANICS.load(Ordering::Relaxed), 0, "{what}: rustls has panicked");
    }
}

static PANICS: AtomicU64 = AtomicU64::new(0);

/// A panic of rustls would be caught, and look like any other failure.
fn count_panics_of_rustls() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if info.location().is_some_and(|location| location.file().contains("rustls")) {
                PANICS.fetch_add(1, Ordering::Relaxed);
            }
            before(info);
        }));
    });
}

fn a_peer_may_leave_behind_each_of_its_records_or_in_one(network: Network) {
    let mut field = Field::new(network);
    for (role, version) in settings() {
        for half in [false, true] {
            for cut in 0.. {
                let what = format!("{role:?} {version:?}: {cut} records, {half}");
                let (mut stream, mut peer) = field.meet(role, version);
                let outcome = shake_hands(&mut peer, &mut stream, |sent, record| {
                    let last = if half { &record[..record.len() / 2] } else { &[] };
                    if sent == cut { Step::Last(last.to_vec()) } else { Step::Send(record) }
                });
                if outcome == Outcome::Done {
                    assert!(cut > 1, "{what}: it sends no more");
                    field.is_open(role);
                    stream.end();
                    assert_eq!(field.closed(&what), "truncated");
                    break;
                }
                assert_eq!(outcome, Outcome::Cut, "{what}");
                stream.end();
                stream.send_and_drain(&[]);
                field.is_refused(role, &what);
            }
        }
    }
}

type Change = Box<dyn Fn(usize, Vec<u8>) -> Step>;

/// What goes wrong in a handshake.
fn wrong_handshakes() -> Vec<(String, Change)> {
    let mut cases: Vec<(String, Change)> = Vec::new();
    let foreign = [
        ("a record of no kind", record(99, b"x")),
        ("data before its time", record(DATA, b"hello")),
        ("a record with nothing in it", record(HANDSHAKE, b"")),
        ("a record of 16,385 bytes", record(HANDSHAKE, &[0; 16_385])),
        ("a record that is longer than any", record(HANDSHAKE, &[0; 0x4801])),
        ("a record of another protocol", vec![HANDSHAKE, 9, 9, 0, 1, 0]),
        ("an alert that ends it", record(ALERT, &[2, 40])),
        ("an alert of no level", record(ALERT, &[9, 40])),
        ("a flood of warnings", record(ALERT, &[1, 90]).repeat(5)),
        ("a flood of changes of the keys", record(CHANGE_CIPHER_SPEC, &[1]).repeat(3)),
        ("no message", record(HANDSHAKE, &[77; 100])),
        ("a message that is longer than any", record(HANDSHAKE, &[1, 0xff, 0xff, 0xff])),
        ("a message in too many records", in_records(&[1, 0, 0xff, 0xff].repeat(3000), 1)),
        ("a message that does not end", in_records(&[1, 0, 0xff, 0xff].repeat(10_000), 1000)),
    ];
    for (what, bytes) in foreign {
        for before in [0, 1] {
            let bytes = bytes.clone();
            let insert = move |sent, record: Vec<u8>| match sent == before {
                true => Step::Send([&bytes[..], &record].concat()),
                false => Step::Send(record),
            };
            cases.push((format!("{what} before record {before}"), Box::new(insert)));
        }
    }
    for between in [record(CHANGE_CIPHER_SPEC, &[1]), record(ALERT, &[1, 90])] {
        let split = move |sent, bytes: Vec<u8>| match sent {
            0 => {
                let (head, rest) = bytes[5..].split_at(20);
                Step::Send(
                    [record(HANDSHAKE, head), between.clone(), record(HANDSHAKE, rest)].concat(),
                )
            }
            _ => Step::Send(bytes),
        };
        cases.push(("another record within a message".to_owned(), Box::new(split)));
    }
    let twice = |sent, record: Vec<u8>| Step::Send(record.repeat(if sent == 0 { 2 } else { 1 }));
    cases.push(("the first message twice".to_owned(), Box::new(twice)));
    for wrong in 0..3 {
        let flip = move |sent, mut record: Vec<u8>| {
            let at = (record.len() - 1).min(20); // In a random number, where there is a length.
            record[at] ^= u8::from(sent == wrong);
            Step::Send(record)
        };
        cases.push((format!("another bit in record {wrong}"), Box::new(flip)));
    }
    cases
}

fn a_handshake_that_goes_wrong_is_refused(network: Network) {
    let mut field = Field::new(network);
    for (role, version) in settings() {
        for (what, change) in wrong_handshakes() {
            let what = format!("{role:?} {version:?}: {what}");
            let (mut stream, mut peer) = field.meet(role, version);
            shake_hands(&mut peer, &mut stream, change);
            drop(stream);
            field.is_refused(role, &what);
        }
    }
    field.site.comes_to_rest();
}

fn an_end_that_is_said_within_a_handshake_makes_nobody_spin(network: Network) {
    let mut field = Field::new(network);
    for (role, version) in settings() {
        let (mut stream, mut peer) = field.meet(role, version);
        let said = record(ALERT, &[1, 0]);
        let change = |sent, bytes: Vec<u8>| match sent {
            0 => Step::Last([bytes, said.clone()].concat()),
            _ => Step::Send(bytes),
        };
        assert_eq!(shake_hands(&mut peer, &mut stream, change), Outcome::Cut);
        field.site.comes_to_rest();
        stream.end(); // TLS 1.3 has it refused at once.
        field.site.comes_to_rest();
        stream.send_and_drain(&[]);
        drop(stream);
        field.is_refused(role, &format!("{role:?} {version:?}"));
    }
}

fn messages_may_come_in_records_of_one_byte(network: Network) {
    let mut field = Field::new(network);
    for (role, version) in settings() {
        let (mut stream, mut peer) = field.meet(role, version);
        let mut sealed = false;
        let outcome = shake_hands(&mut peer, &mut stream, |_, bytes| {
            sealed |= bytes[0] == CHANGE_CIPHER_SPEC;
            Step::Send(if sealed { bytes } else { in_records(&bytes[5..], 1) })
        });
        assert_eq!(outcome, Outcome::Done, "{role:?} {version:?}");
        field.is_open(role);
        for byte in *b"hello" {
            assert_eq!(echoed(&mut peer, &mut stream, &[byte]).unwrap(), [byte]);
        }
        stream.end();
        assert_eq!(field.closed("it is gone"), "truncated");
    }
}

type Sealed = fn(&mut Sealer) -> Vec<u8>;

fn sealed_many(sealer: &mut Sealer, count: usize, kind: u8, bytes: &[u8]) -> Vec<u8> {
    (0..count).flat_map(|_| sealer.seal(kind, bytes)).collect()
}

/// What is wrong in records that are sealed well, and what is found.
const WRONG_RECORDS: [(&str, Sealed); 17] = [
    ("excess record size", |sealer| sealer.seal(DATA, &[0; 16_385])),
    ("MessageTooLarge", |_| record(DATA, &[0; 0x4801])),
    ("TooManyEmptyFragments", |sealer| sealed_many(sealer, 33, DATA, b"")),
    ("InvalidContentType", |sealer| sealer.seal(99, b"x")),
    ("", |sealer| sealed_many(sealer, 5, ALERT, &[1, 90])),
    ("fatal alert", |sealer| sealer.seal(ALERT, &[2, 80])),
    ("alert", |sealer| sealer.seal(ALERT, &[7, 80])),
    ("", |sealer| sealed_many(sealer, 2, HANDSHAKE, &[0; 4])),
    ("too long", |sealer| {
        let head = sealer.seal(HANDSHAKE, &[4, 0, 0xff, 0xff]);
        [head, sealed_many(sealer, 2000, HANDSHAKE, &[0])].concat()
    }),
    ("", |sealer| [record(CHANGE_CIPHER_SPEC, &[1]), sealer.seal(DATA, b"x")].concat()),
    ("cannot decrypt", |sealer| {
        let mut sealed = sealer.seal(DATA, b"hello");
        *sealed.last_mut().expect("it has bytes") ^= 1;
        sealed
    }),
    ("cannot decrypt", |_| record(DATA, b"hello in plain bytes that nobody has sealed")),
    ("", |sealer| sealer.seal(HANDSHAKE, &[24, 0, 0, 1, 7])),
    ("", |sealer| sealer.seal(HANDSHAKE, &[24, 0, 0, 1, 0].repeat(2))),
    ("", |sealer| {
        let head = sealer.seal(HANDSHAKE, &[4, 0, 0, 9]);
        [head, sealer.seal(DATA, b"within a message")].concat()
    }),
    // The handler replies to what comes before.
    ("", |sealer| {
        let message = [sealer.seal(DATA, b"x"), sealer.seal(HANDSHAKE, &[4, 0, 0, 9])].concat();
        [message, sealer.seal(DATA, b"y")].concat()
    }),
    ("too long", |sealer| {
        let message = [sealer.seal(DATA, b"x"), sealer.seal(HANDSHAKE, &[4, 0, 0xff, 0xff])];
        [message.concat(), sealed_many(sealer, 2000, HANDSHAKE, &[0])].concat()
    }),
];

fn records_that_are_wrong_end_an_open_connection(network: Network) {
    let mut field = Field::new(network);
    for (role, version) in settings() {
        for (number, (found, wrong)) in WRONG_RECORDS.into_iter().enumerate() {
            let what = format!("{role:?} {version:?}: case {number}, {found}");
            let (mut stream, peer) = field.open(role, version);
            let bytes = wrong(&mut Sealer::new(peer));
            stream.send_and_drain(&bytes);
            drop(stream);
            let reason = field.closed(&what);
            assert!(reason.starts_with("tls: ") && reason.contains(found), "{what}: {reason}");
        }
    }
    field.site.comes_to_rest();
}

fn what_comes_behind_the_end_is_not_looked_at(network: Network) {
    let mut field = Field::new(network);
    for (role, version) in settings() {
        let (mut stream, peer) = field.open(role, version);
        let mut sealer = Sealer::new(peer);
        let bytes = [sealer.seal(DATA, b"x"), sealer.seal(ALERT, &[1, 0]), record(99, b"x")];
        stream.send_and_drain(&bytes.concat());
        assert_eq!(field.site.told(), Told::End);
        drop(stream);
        let reason = field.closed("it is gone");
        assert!(["peer", "local"].contains(&&*reason), "{role:?} {version:?}: {reason}");
    }
}

fn keys_are_renewed_amid_much_and_not_for_nothing(network: Network) {
    let mut field = Field::new(network);
    let version = &rustls::version::TLS13;
    for role in [Role::Server, Role::Client] {
        let (mut stream, mut peer) = field.open(role, version);
        for seed in 0..40 {
            peer.refresh_traffic_keys().expect("it is TLS 1.3");
            let bytes = pattern(40_000, seed);
            let back = echoed(&mut peer, &mut stream, &bytes).expect("it comes back");
            assert_eq!(back, bytes, "after update {seed}");
        }
        for _ in 0..33 {
            peer.refresh_traffic_keys().expect("it is TLS 1.3");
        }
        let flood = flight(&mut peer).concat();
        stream.send_and_drain(&flood);
        drop(stream);
        let reason = field.closed("a flood of updates");
        assert!(reason.contains("TooManyKeyUpdateRequests"), "{role:?}: {reason}");
    }
}

/// A cipher suite whose keys are worn out after five records.
static WORN_OUT: LazyLock<Tls13CipherSuite> = LazyLock::new(|| {
    let usual = TLS13_AES_128_GCM_SHA256.tls13().expect("it is of TLS 1.3");
    let CipherSuiteCommon { suite, hash_provider, .. } = usual.common;
    let common = CipherSuiteCommon { suite, hash_provider, confidentiality_limit: 5 };
    let Tls13CipherSuite { hkdf_provider, aead_alg, .. } = *usual;
    Tls13CipherSuite { common, hkdf_provider, aead_alg, quic: None }
});

/// A key seals only some number of records, which a connection of days comes to.
#[test]
fn keys_that_are_worn_out_are_renewed_by_the_engine() {
    let authority = Authority::new();
    let cipher_suites = vec![SupportedCipherSuite::Tls13(&WORN_OUT)];
    let provider = CryptoProvider { cipher_suites, ..default_provider() };
    let identity = authority.sign(&["localhost"]);
    let config = server_config(&identity, &rustls::version::TLS13, provider);
    let (engine, _told) = start(&TlsServer::from_rustls(config.into()));
    let mut client = connect(engine.connect(), authority.client(), "localhost");
    for (seed, len) in [1, 100, 16_384, 100_000].into_iter().cycle().take(40).enumerate() {
        let bytes = pattern(len, seed as u64);
        assert_eq!(exchange(&mut client, &bytes), bytes);
    }
}

/// In a message that has come in parts rustls overwrites heads of records: there is nothing to be
/// learnt from them any more.
fn much_may_come_behind_a_message_in_parts(network: Network) {
    let mut field = Field::new(network);
    let (mut stream, peer) = field.open(Role::Client, &rustls::version::TLS13);
    let mut sealer = Sealer::new(peer);
    let ticket = [&[4, 0, 2, 102, 0, 0, 16, 0, 0, 0, 0, 9, 1, 1, 2, 88], &[0xff; 600][..], &[0, 0]];
    let ticket = ticket.concat();
    let mut parts: Vec<Vec<u8>> =
        ticket.chunks(210).map(|part| sealer.seal(HANDSHAKE, part)).collect();
    let last = parts.pop().expect("there are three");
    let received = |field: &Field| field.site.stats().reactors[0].bytes_in;
    let begun = received(&field) + parts.concat().len() as u64;
    stream.write_all(&parts.concat()).expect("it is sent");
    field.site.eventually("they are read", || received(&field) == begun);
    let data = sealed_many(&mut sealer, 3, DATA, &[7; 16_000]);
    let bytes = [last, data, sealer.seal(ALERT, &[1, 0])].concat();
    stream.send_and_drain(&bytes);
    assert_eq!(field.site.told(), Told::End);
    drop(stream);
    let reason = field.closed("it is gone");
    assert!(["peer", "local"].contains(&&*reason), "{reason}");
}
