//! A message over TLS: what rustls allocates for it, which a loop by hand counts, and nothing else.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use crate::ALLOCATOR;
use crate::common::alone::alone;
use crate::common::{DEADLINE, pattern};
use millstream::internals::{Stepper, with_tls};
use millstream::tls::TlsServer;
use millstream::{Action, Conn, Engine, EventHandler};
use rcgen::generate_simple_self_signed;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::ConnectionState;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};
use stats_alloc::Region;

const MESSAGES: usize = 100;
/// After this many the buffers of the engine and of rustls are as large as they get.
const WARM_UP: usize = 20;
/// A record has a header of 5 bytes, a byte of its kind, and a tag of 16.
const SEALED_MORE: usize = 22;
/// How much is in a record at most.
const RECORD: usize = 16 * 1024;

/// Messages of some records, which come in one or more pieces, each in a turn of its own: a piece
/// may end in a record's head, or in the middle of it.
#[test]
fn a_message_over_tls_allocates_what_rustls_does() {
    alone(|| {
        let sizes = [(64, 1), (64, 29), (1024, 1), (RECORD, 1), (RECORD, 5), (4 * RECORD, 7)];
        for (size, pieces) in sizes {
            let by_hand = allocations_by_hand(size);
            let engine = allocations_of_engine(size, pieces);
            let what = format!("{engine} in the engine, {by_hand} in rustls alone");
            assert!(
                by_hand > 0 && engine <= by_hand,
                "{MESSAGES} messages of {size} bytes in {pieces} pieces: {what}"
            );
        }
    });
}

/// Answers a message once it is there as a whole, by one write.
struct Answers(Vec<u8>);

impl EventHandler for Answers {
    type State = usize;

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        *conn.state += conn.input.take_all().len();
        if *conn.state == self.0.len() {
            *conn.state = 0;
            conn.output.write(&self.0);
        }
        Action::Continue
    }
}

struct Identity {
    certificate: CertificateDer<'static>,
    key: rcgen::KeyPair,
}

impl Identity {
    fn new() -> Self {
        let made = generate_simple_self_signed(["localhost".to_owned()]).expect("it is made");
        Identity { certificate: made.cert.der().clone(), key: made.signing_key }
    }

    fn server(&self) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).expect("it is a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("there are versions")
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], key);
        let mut config = config.expect("the key is that of the certificate");
        config.send_tls13_tickets = 0; // They would come between the messages.
        Arc::new(config)
    }

    fn client(&self) -> ClientConnection {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("it is a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("there are versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").expect("it is a name");
        ClientConnection::new(Arc::new(config), name).expect("it begins")
    }
}

/// The records of a message, sealed before anything is counted.
fn sealed(client: &mut ClientConnection, message: &[u8]) -> Vec<u8> {
    let mut records = Vec::new();
    client.writer().write_all(message).expect("there is room");
    while client.wants_write() {
        client.write_tls(&mut records).expect("memory takes it");
    }
    records
}

fn opened(client: &mut ClientConnection, mut records: &[u8], message: &[u8]) {
    let mut got = vec![0; message.len()];
    let mut len = 0;
    while !records.is_empty() {
        client.read_tls(&mut records).expect("memory has it");
        client.process_new_packets().expect("they are records");
        while let Ok(count @ 1..) = client.reader().read(&mut got[len..]) {
            len += count;
        }
    }
    assert!(got[..len] == *message, "something else came back");
}

/// How many allocations there are for all messages, in the engine with rustls in it, where each
/// comes in this many pieces.
fn allocations_of_engine(size: usize, pieces: usize) -> usize {
    let identity = Identity::new();
    let tls = TlsServer::from_rustls(identity.server());
    let builder = with_tls(Engine::builder(), &tls);
    let mut stepper = Stepper::new(builder, Answers(message(size))).expect("a reactor starts");
    let mut stream = stepper.connect().expect("it accepts");
    let mut client = identity.client();
    while client.is_handshaking() || client.wants_write() {
        if client.wants_write() {
            stream.write_all(&sealed(&mut client, &[])).expect("it is connected");
            stepper.turn();
        } else {
            client.read_tls(&mut stream).expect("it answers");
            client.process_new_packets().expect("it answers well");
        }
    }
    stream.set_nonblocking(true).expect("a socket has the option");
    count(size, &mut client, |records, echo| {
        for piece in records.chunks(records.len().div_ceil(pieces)) {
            stream.write_all(piece).expect("the one before was received");
            stepper.turn();
        }
        receive(&mut stream, &mut stepper, echo);
    })
}

/// Receives as much, while the reactor sends the rest.
fn receive(stream: &mut TcpStream, stepper: &mut Stepper<Answers>, bytes: &mut [u8]) {
    let (mut received, start) = (0, Instant::now());
    while received < bytes.len() {
        match stream.read(&mut bytes[received..]) {
            Ok(0) => panic!("it ended"),
            Ok(count) => received += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                assert!(start.elapsed() < DEADLINE, "{received} bytes of {} came", bytes.len());
                stepper.wake();
                stepper.turn();
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn message(size: usize) -> Vec<u8> {
    pattern(size, 1)
}

/// The same in a loop that has nothing but rustls, and memory that is there before.
fn allocations_by_hand(size: usize) -> usize {
    let identity = Identity::new();
    let mut client = identity.client();
    let mut server = UnbufferedServerConnection::new(identity.server()).expect("it begins");
    let mut plain = Vec::with_capacity(size);
    let mut answer = vec![0; size + 4096]; // The handshake's is no longer.
    while client.is_handshaking() {
        let hello = sealed(&mut client, &[]);
        let len = serve(&mut server, &mut hello.clone(), &mut plain, &mut answer);
        opened(&mut client, &answer[..len], &[]);
    }
    let finished = sealed(&mut client, &[]);
    serve(&mut server, &mut finished.clone(), &mut plain, &mut answer);
    count(size, &mut client, |records, echo| {
        serve(&mut server, records, &mut plain, echo);
    })
}

/// Has rustls answer records, and returns with how many bytes.
fn serve(
    server: &mut UnbufferedServerConnection,
    records: &mut [u8],
    plain: &mut Vec<u8>,
    answer: &mut [u8],
) -> usize {
    let (mut used, mut len) = (0, 0);
    plain.clear();
    loop {
        let status = server.process_tls_records(&mut records[used..]);
        used += status.discard;
        match status.state.expect("the records are right") {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    plain.extend_from_slice(record.expect("it is one").payload);
                }
            }
            ConnectionState::EncodeTlsData(mut data) => {
                len += data.encode(&mut answer[len..]).expect("there is room");
            }
            ConnectionState::TransmitTlsData(data) => data.done(),
            ConnectionState::WriteTraffic(mut traffic) => {
                if !plain.is_empty() {
                    len += traffic.encrypt(plain, &mut answer[len..]).expect("there is room");
                }
                return len;
            }
            _ => return len,
        }
    }
}

/// Has all messages echoed, and counts what that allocates once it has been done a few times. What
/// the client does by itself does not count.
fn count(
    size: usize,
    client: &mut ClientConnection,
    mut echo: impl FnMut(&mut [u8], &mut [u8]),
) -> usize {
    let message = message(size);
    let mut answer = vec![0; size + size.div_ceil(RECORD) * SEALED_MORE];
    let rounds = (0..WARM_UP + MESSAGES).map(|_| {
        let mut records = sealed(client, &message);
        let region = Region::new(ALLOCATOR);
        echo(&mut records, &mut answer);
        let change = region.change();
        opened(client, &answer, &message);
        change.allocations + change.reallocations
    });
    rounds.skip(WARM_UP).sum()
}
