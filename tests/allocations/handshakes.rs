//! What TLS costs of the heap, per connection: a handshake that does not go on, for hellos of the
//! usual size that were answered and for the beginning of one that is as long as it may be; and an
//! idle connection.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use crate::ALLOCATOR;
use crate::common::alone::alone;
use crate::common::{Echo, TestEngine, eventually};
use millstream::tls::TlsServer;
use millstream::{Engine, Listen};
use rustls::client::Resumption;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use stats_alloc::Region;

const CONNECTIONS: usize = 100;
/// The most bytes of the heap that a handshake may take.
const MOST: usize = 40 * 1024;
/// The same for a connection that is open and idle.
const MOST_IDLE: usize = 5 * 1024;

/// An engine, and a client's configuration for it.
fn start() -> (TestEngine, Arc<ClientConfig>) {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]);
    let signed = signed.expect("it is signed");
    let (certificate, key) = (signed.cert.pem(), signed.signing_key.serialize_pem());
    let tls = TlsServer::builder().pem(certificate.as_bytes(), key.as_bytes()).build();
    let listen = Listen::from("127.0.0.1:0").tls(&tls.expect("it is right"));
    let engine = TestEngine::start_exactly(Engine::builder().reactors(1).listen(listen), |_| Echo);
    (engine, client(&certificate))
}

fn client(certificate: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("it is PEM");
    roots.add(certificate).expect("it is one");
    let mut config = ClientConfig::builder_with_provider(default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("there are versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

fn connection(config: &Arc<ClientConfig>) -> ClientConnection {
    let name = "localhost".try_into().expect("it is a name");
    ClientConnection::new(Arc::clone(config), name).expect("it is configured")
}

/// How much of the heap each connection of some holds.
#[allow(clippy::print_stdout, reason = "the figure is what the test is for")]
fn held_by_each(engine: &TestEngine, mut open: impl FnMut() -> TcpStream) -> usize {
    drop(open()); // What all of them share is made now.
    eventually("it is gone", || engine.connections() == 0);
    let region = Region::new(ALLOCATOR);
    let streams: Vec<TcpStream> = (0..CONNECTIONS).map(|_| open()).collect();
    let change = region.change();
    let held = (change.bytes_allocated - change.bytes_deallocated) / CONNECTIONS;
    drop(streams);
    eventually("all are gone", || engine.connections() == 0);
    println!("{held} bytes of heap for each of {CONNECTIONS}");
    held
}

/// A connection that has sent these bytes in pieces, each of which was read.
fn begun(engine: &TestEngine, bytes: &[u8]) -> TcpStream {
    let mut stream = engine.connect();
    for piece in bytes.chunks(10_000) {
        let received = || engine.stats().reactors[0].bytes_in;
        let all = received() + piece.len() as u64;
        stream.write_all(piece).expect("it is sent");
        eventually("it is read", || received() == all);
    }
    stream
}

#[test]
fn a_handshake_takes_little_of_the_heap() {
    alone(|| {
        let (engine, config) = start();
        let mut hello = Vec::new();
        connection(&config).write_tls(&mut hello).expect("a vector takes all");
        let held = held_by_each(&engine, || {
            let mut stream = begun(&engine, &hello);
            stream.read_exact(&mut [0]).expect("it is answered");
            stream
        });
        assert!(held > 1000 && held <= MOST, "{held} bytes for a handshake");
        let record = |rest: usize| [&[0x16, 3, 1, 0x40, 0][..], &vec![0; rest]].concat();
        let mut endless = [record(0x4000), record(16_000)].concat();
        endless[5..9].copy_from_slice(&[1, 0, 0xff, 0xff]);
        let held = held_by_each(&engine, || begun(&engine, &endless));
        assert!(held > 30_000 && held <= MOST, "{held} bytes for a handshake that does not go on");
    });
}

#[test]
fn an_idle_connection_has_no_buffers() {
    alone(|| {
        let (engine, config) = start();
        let held = held_by_each(&engine, || {
            let mut client = StreamOwned::new(connection(&config), engine.connect());
            client.write_all(&[7; 50_000]).expect("it is sent");
            client.read_exact(&mut [0; 50_000]).expect("it comes back");
            client.into_parts().1 // What the client knows is not counted.
        });
        assert!(held > 500 && held <= MOST_IDLE, "{held} bytes for an idle connection");
    });
}
