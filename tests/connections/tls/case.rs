//! A conversation with the engine's TLS in memory, without an engine: with a peer whose records are
//! changed on their way in the handshake or sealed by hand after it, or with any bytes.
//!
//! The tests draw a case at random, and the fuzzer's target reads it from its bytes.

#![allow(dead_code, unreachable_pub, reason = "a fuzz target uses a part of it")]

use std::io::{self, Read, Write};
use std::sync::{Arc, OnceLock};

use fastrand::Rng;
use millstream::internals::{Layer, OutputPool, OutputQueue, client_layer, server_layer};
use millstream::tls::{TlsClient, TlsServer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, Connection, RootCertStore, ServerConfig};

use super::raw::{
    Outcome, Sealer, Step, VERSIONS, client_config, client_of, echoed, in_records, provider,
    record, server_config, server_of, shake_hands,
};

/// The most that the layer may have to say by itself, for each byte of its peer and besides.
const SAID: (usize, usize) = (4, 64 * 1024);

/// Larger records are changed no further: several changes of one would multiply it.
const MOST_CHANGED: usize = 32 * 1024;

#[derive(Debug)]
pub struct Case {
    /// A bit each: the engine is the client; it is TLS 1.3.
    setting: u8,
    what: What,
    /// Decides in which pieces the bytes come.
    seed: u64,
}

#[derive(Debug)]
enum What {
    /// Any bytes, instead of a peer.
    Bytes(Vec<u8>),
    /// What happens to the peer's records in the handshake.
    Changes(Vec<[u8; 4]>),
    /// What records the peer sends after it: how, of which kind, with what.
    Records(Vec<(u8, u8, Vec<u8>)>),
}

impl Case {
    pub fn read(data: &[u8]) -> Self {
        let (head, rest) = data.split_at(data.len().min(3));
        let byte = |at| head.get(at).copied().unwrap_or(0);
        let what = match byte(0) / 4 % 3 {
            0 => What::Bytes(rest.to_vec()),
            1 => What::Changes(rest.chunks_exact(4).flat_map(TryFrom::try_from).collect()),
            _ => What::Records(read_records(rest)),
        };
        Case { setting: byte(0) % 4, what, seed: u16::from_be_bytes([byte(1), byte(2)]).into() }
    }

    pub fn draw(rng: &mut Rng) -> Self {
        let kind = |rng: &mut Rng| if rng.u8(..4) == 0 { rng.u8(..) } else { rng.u8(20..24) };
        let what = match rng.u8(..8) {
            0 => What::Bytes((0..rng.usize(..200)).map(|_| rng.u8(..)).collect()),
            1..4 => {
                let change = |rng: &mut Rng| [rng.u8(..6), rng.u8(..), kind(rng), rng.u8(..)];
                What::Changes((0..rng.usize(..3)).map(|_| change(rng)).collect())
            }
            _ => {
                let drawn = |rng: &mut Rng| {
                    let bytes = (0..rng.usize(..40)).map(|_| rng.u8(..)).collect();
                    (rng.u8(..), kind(rng), bytes)
                };
                What::Records((0..rng.usize(..8)).map(|_| drawn(rng)).collect())
            }
        };
        Case { setting: rng.u8(..4), what, seed: rng.u64(..) }
    }

    pub fn check(&self) {
        let mut side = Side::new(self.setting & 1 != 0, self.seed);
        let version = usize::from(self.setting >> 1);
        let mut peer = match self.setting & 1 {
            0 => client_of(Arc::clone(&identity().clients[version])),
            _ => server_of(Arc::clone(&identity().servers[version])),
        };
        match &self.what {
            What::Bytes(bytes) => {
                let _ = side.write(bytes);
            }
            What::Changes(changes) => shake_hands_changed(&mut peer, &mut side, changes),
            What::Records(records) => send_records(peer, &mut side, records),
        }
    }
}

fn read_records(mut bytes: &[u8]) -> Vec<(u8, u8, Vec<u8>)> {
    let mut records = Vec::new();
    while let [how, kind, len, rest @ ..] = bytes {
        let (content, behind) = rest.split_at(rest.len().min(usize::from(*len)));
        records.push((*how, *kind, content.to_vec()));
        bytes = behind;
    }
    records
}

/// Each change is the number of the record, what happens, and two bytes that say more.
fn shake_hands_changed(peer: &mut Connection, side: &mut Side, changes: &[[u8; 4]]) {
    let mut is_changed = false;
    let outcome = shake_hands(peer, side, |sent, mut bytes| {
        for [_, what, a, b] in changes.iter().filter(|change| usize::from(change[0]) == sent) {
            is_changed = true;
            bytes = change(bytes, *what, *a, *b);
        }
        Step::Send(bytes)
    });
    if !is_changed {
        assert_eq!(outcome, Outcome::Done, "nothing was changed");
        assert_eq!(echoed(peer, side, b"hello").expect("it comes back"), b"hello");
    }
}

fn change(mut bytes: Vec<u8>, what: u8, a: u8, b: u8) -> Vec<u8> {
    if bytes.len() > MOST_CHANGED {
        return bytes;
    }
    let at = usize::from(b) * bytes.len() / 256;
    match what % 9 {
        0 => bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= a),
        1 => bytes = [record(a, &vec![0; b.into()]), bytes].concat(),
        2 => bytes.clear(),
        3 => bytes = bytes.repeat(2),
        4 => bytes.truncate(at),
        5 => bytes = bytes.get(5..).map_or(Vec::new(), |message| in_records(message, 1)),
        6 => drop(bytes.splice(at..at, [a])),
        7 => bytes = [record(a, &[1, b]), bytes].concat(),
        _ => {
            if let Some(message) = bytes.get(5..).filter(|message| message.len() > 1) {
                let (head, rest) = message.split_at(1 + usize::from(b) % (message.len() - 1));
                bytes = [in_records(head, 64), record(a, &[1]), in_records(rest, 16_384)].concat();
            }
        }
    }
    bytes
}

fn send_records(mut peer: Connection, side: &mut Side, records: &[(u8, u8, Vec<u8>)]) {
    let outcome = shake_hands(&mut peer, side, |_, record| Step::Send(record));
    assert_eq!(outcome, Outcome::Done, "nothing was changed");
    let mut sealer = Sealer::new(peer);
    for (how, kind, bytes) in records {
        let mut bytes = match how % 4 {
            0 => record(*kind, bytes),
            1 => (0..40).flat_map(|_| sealer.seal(*kind, bytes)).collect(),
            _ => sealer.seal(*kind, bytes),
        };
        if how & 0xf0 == 0xf0 {
            let at = usize::from(how & 0x0f) * bytes.len() / 16;
            bytes[at] ^= 0x10;
        }
        if side.write_all(&bytes).is_err() {
            return;
        }
    }
}

/// The engine's side, which echoes: it receives what its peer writes, which reads what it says.
struct Side {
    layer: Box<dyn Layer>,
    queue: Box<OutputQueue>,
    pool: OutputPool,
    rng: Rng,
    longest: usize,
    /// How many bytes it has received, and given to a handler, and said.
    received: usize,
    given: usize,
    said: usize,
    is_over: bool,
    ended: bool,
}

impl Side {
    fn new(is_client: bool, seed: u64) -> Self {
        let layer = match is_client {
            true => client_layer(&identity().client, "localhost"),
            false => server_layer(&identity().server),
        };
        let mut pool = OutputPool::new(16 * 1024, 4);
        let (queue, mut rng) = (pool.queue(), Rng::with_seed(seed));
        let longest = *rng.choice(&[1, 7, 300, usize::MAX]).expect("a choice");
        let (received, given, said) = (0, 0, 0);
        let mut side = Side {
            layer,
            queue,
            pool,
            rng,
            longest,
            received,
            given,
            said,
            is_over: false,
            ended: false,
        };
        side.layer.begin(&mut side.queue, &mut side.pool).expect("it can begin");
        side
    }

    fn receive(&mut self, piece: &[u8]) -> io::Result<()> {
        let (mut sealed, mut plain) = (piece.to_vec(), Vec::new());
        let was_ready = self.layer.is_ready();
        self.received += piece.len();
        let (place, received) =
            self.layer.receive(&mut sealed, &mut plain, &mut self.queue, &mut self.pool);
        self.given += place.len();
        assert!(self.given <= self.received, "{} of {} bytes", self.given, self.received);
        assert!(self.layer.is_ready() || !was_ready && place.is_empty());
        let mut pieces = plain[place].chunks(16 * 1024);
        let sealed =
            pieces.try_for_each(|piece| self.layer.seal(piece, &mut self.queue, &mut self.pool));
        for error in [&received, &sealed].into_iter().filter_map(|done| done.as_ref().err()) {
            let said = error.to_string();
            assert!(!said.is_empty() && !said.contains("panicked"), "{said}");
        }
        received.and(sealed)?;
        if self.layer.is_ready() && self.layer.has_ended() && !self.ended {
            self.ended = true;
            self.layer.seal_end(&mut self.queue, &mut self.pool);
        }
        Ok(())
    }
}

impl Write for Side {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while !rest.is_empty() && !self.is_over {
            let (piece, behind) = rest.split_at(self.rng.usize(1..=self.longest.min(rest.len())));
            rest = behind;
            self.is_over = self.receive(piece).is_err();
        }
        let said = self.said + self.queue.len();
        assert!(said <= SAID.0 * self.received + SAID.1, "{said} for {}", self.received);
        if self.is_over { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Side {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let front = self.queue.front();
        let len = front.len().min(buffer.len());
        buffer[..len].copy_from_slice(&front[..len]);
        self.queue.advance(len, &mut self.pool);
        self.said += len;
        Ok(len)
    }
}

/// Who both sides are, made once. The peers are of each version.
struct Identity {
    clients: [Arc<ClientConfig>; 2],
    servers: [Arc<ServerConfig>; 2],
    server: TlsServer,
    client: TlsClient,
}

fn identity() -> &'static Identity {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    IDENTITY.get_or_init(|| {
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]);
        let signed = signed.expect("it is signed");
        let pem = (signed.cert.pem(), signed.signing_key.serialize_pem());
        let mut roots = RootCertStore::empty();
        let der = CertificateDer::from_pem_slice(pem.0.as_bytes()).expect("it is PEM");
        roots.add(der).expect("it is a certificate");
        let server = TlsServer::builder().pem(pem.0.as_bytes(), pem.1.as_bytes()).build();
        let client = TlsClient::builder().authorities(pem.0.as_bytes()).build();
        let (server, client) = (server.expect("it is right"), client.expect("it is right"));
        Identity {
            clients: VERSIONS.map(|of| client_config(roots.clone(), of, provider()).into()),
            servers: VERSIONS.map(|of| server_config(&pem, of, provider()).into()),
            server,
            client,
        }
    })
}
