//! Peers whose records are changed on their way, or sealed by hand: rustls' own refuse to send what
//! is wrong.

#![allow(dead_code, unreachable_pub, reason = "a fuzz target uses a part of it")]

use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::cipher::{MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::crypto::ring::cipher_suite::{
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS13_AES_128_GCM_SHA256,
};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{
    ClientConfig, ClientConnection, Connection, ConnectionTrafficSecrets, ContentType,
    ProtocolVersion, RootCertStore, ServerConfig, ServerConnection, SupportedCipherSuite,
    SupportedProtocolVersion,
};

pub const VERSIONS: [&SupportedProtocolVersion; 2] =
    [&rustls::version::TLS12, &rustls::version::TLS13];

pub const CHANGE_CIPHER_SPEC: u8 = 20;
pub const ALERT: u8 = 21;
pub const HANDSHAKE: u8 = 22;
pub const DATA: u8 = 23;

/// A record as it is before keys are agreed on.
pub fn record(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("a record has less").to_be_bytes();
    [&[kind, 3, 3, length[0], length[1]], bytes].concat()
}

/// The records that these bytes are.
pub fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    while let [_, _, _, high, low, ..] = *bytes {
        let (record, rest) = bytes.split_at(5 + usize::from(u16::from_be_bytes([high, low])));
        records.push(record.to_vec());
        bytes = rest;
    }
    records
}

/// With suites whose keys [`Sealer`] knows what to do with.
pub fn provider() -> CryptoProvider {
    let cipher_suites = vec![TLS13_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256];
    CryptoProvider { cipher_suites, ..default_provider() }
}

/// For a client of one version that trusts these authorities.
pub fn client_config(
    roots: RootCertStore,
    version: &'static SupportedProtocolVersion,
    provider: CryptoProvider,
) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[version])
        .expect("there is a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.enable_secret_extraction = true;
    config
}

/// For a server of one version, with a certificate and its key in PEM.
pub fn server_config(
    (certificate, key): &(String, String),
    version: &'static SupportedProtocolVersion,
    provider: CryptoProvider,
) -> ServerConfig {
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("it is PEM");
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("it is PEM");
    let mut config = ServerConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[version])
        .expect("there is a version")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("the key is that of the certificate");
    config.enable_secret_extraction = true;
    config.send_tls13_tickets = 0;
    config
}

pub fn client_of(config: impl Into<Arc<ClientConfig>>) -> Connection {
    let name = "localhost".try_into().expect("it is a name");
    ClientConnection::new(config.into(), name).expect("it is configured").into()
}

pub fn client(roots: RootCertStore, version: &'static SupportedProtocolVersion) -> Connection {
    client_of(client_config(roots, version, provider()))
}

pub fn server(
    identity: &(String, String),
    version: &'static SupportedProtocolVersion,
) -> Connection {
    server_of(server_config(identity, version, provider()))
}

pub fn server_of(config: impl Into<Arc<ServerConfig>>) -> Connection {
    ServerConnection::new(config.into()).expect("it is configured").into()
}

/// What becomes of a record on its way.
pub enum Step {
    /// This is sent instead.
    Send(Vec<u8>),
    /// This is sent instead, and nothing behind it.
    Last(Vec<u8>),
}

#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The peer has shaken hands.
    Done,
    /// A change was the last.
    Cut,
    /// The engine, or the peer itself, did not go on.
    Refused,
}

/// Shakes hands, while something happens to each of the peer's records; they are counted from 0.
pub fn shake_hands(
    peer: &mut Connection,
    stream: &mut (impl Read + Write),
    mut change: impl FnMut(usize, Vec<u8>) -> Step,
) -> Outcome {
    let mut sent = 0;
    loop {
        for record in flight(peer) {
            let (bytes, is_last) = match change(sent, record) {
                Step::Send(bytes) => (bytes, false),
                Step::Last(bytes) => (bytes, true),
            };
            sent += 1;
            let written = stream.write_all(&bytes);
            match (written, is_last) {
                (_, true) => return Outcome::Cut,
                (Ok(()), false) => {}
                (Err(_), false) => return Outcome::Refused,
            }
        }
        if !peer.is_handshaking() {
            return Outcome::Done;
        }
        if !matches!(peer.read_tls(stream), Ok(1..)) || peer.process_new_packets().is_err() {
            return Outcome::Refused;
        }
    }
}

/// Sends bytes, and returns as many that come back.
///
/// # Errors
/// Not as many came, or what came was wrong.
pub fn echoed(
    peer: &mut Connection,
    stream: &mut (impl Read + Write),
    bytes: &[u8],
) -> io::Result<Vec<u8>> {
    peer.writer().write_all(bytes)?;
    stream.write_all(&flight(peer).concat())?;
    let (mut received, mut len) = (vec![0; bytes.len()], 0);
    while len < received.len() {
        if peer.read_tls(stream)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        peer.process_new_packets().map_err(io::Error::other)?;
        len += peer.reader().read(&mut received[len..]).unwrap_or(0); // Not a whole record.
    }
    Ok(received)
}

/// The records that a peer has to send.
pub fn flight(peer: &mut Connection) -> Vec<Vec<u8>> {
    let mut bytes = Vec::new();
    while peer.wants_write() {
        peer.write_tls(&mut bytes).expect("a vector takes all");
    }
    records(&bytes)
}

/// Seals records with the keys of a peer that has shaken hands.
pub struct Sealer {
    encrypter: Box<dyn MessageEncrypter>,
    next: u64,
}

impl Sealer {
    pub fn new(peer: Connection) -> Self {
        let suite = peer.negotiated_cipher_suite().expect("it has shaken hands");
        let (next, secrets) = peer.dangerous_extract_secrets().expect("it is allowed").tx;
        let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else {
            panic!("another suite was offered");
        };
        let encrypter = match suite {
            SupportedCipherSuite::Tls13(suite) => suite.aead_alg.encrypter(key, iv),
            SupportedCipherSuite::Tls12(suite) => {
                let (fixed, explicit) = iv.as_ref().split_at(4);
                suite.aead_alg.encrypter(key, fixed, explicit)
            }
        };
        Sealer { encrypter, next }
    }

    pub fn seal(&mut self, kind: u8, bytes: &[u8]) -> Vec<u8> {
        let message = OutboundPlainMessage {
            typ: ContentType::from(kind),
            version: ProtocolVersion::TLSv1_2,
            payload: OutboundChunks::Single(bytes),
        };
        let sealed = self.encrypter.encrypt(message, self.next).expect("it is sealed");
        self.next += 1;
        sealed.encode()
    }
}

/// A client hello with these bytes behind its extensions, as one message without records.
pub fn hello_with(mut config: ClientConfig, extensions: &[u8]) -> Vec<u8> {
    config.enable_sni = false;
    let mut hello = flight(&mut client_of(config))[0].split_off(5);
    // A head of 4 bytes, a version, a random number, and three fields with their lengths before.
    let mut at = 4 + 2 + 32;
    at += 1 + usize::from(hello[at]);
    at += 2 + usize::from(u16::from_be_bytes([hello[at], hello[at + 1]]));
    at += 1 + usize::from(hello[at]);
    hello.extend_from_slice(extensions);
    let length = u16::try_from(hello.len() - at - 2).expect("that many fit").to_be_bytes();
    hello[at..at + 2].copy_from_slice(&length);
    let length = u32::try_from(hello.len() - 4).expect("that many fit").to_be_bytes();
    hello[1..4].copy_from_slice(&length[1..]);
    hello
}

/// An extension of a hello.
pub fn extension(kind: u16, bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("that many fit");
    [&kind.to_be_bytes()[..], &length.to_be_bytes(), bytes].concat()
}

/// A handshake's bytes in records of a size.
pub fn in_records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|chunk| record(HANDSHAKE, chunk)).collect()
}
