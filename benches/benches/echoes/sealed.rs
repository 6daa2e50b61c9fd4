//! A reactor whose connections have TLS, and a peer that has shaken hands, in the calling thread.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use millstream::Engine;
use millstream::internals::{Stepper, with_tls};
use millstream::tls::TlsServer;
use rcgen::generate_simple_self_signed;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

use super::{Echo, WARM_UP};

const NAME: &str = "localhost";

/// A connection with TLS 1.3, on which a message is echoed in every turn.
pub(crate) struct SealedEchoes {
    stepper: Stepper<Echo>,
    stream: TcpStream,
    peer: ClientConnection,
    message: Vec<u8>,
    echoed: Vec<u8>,
}

impl SealedEchoes {
    /// Messages of this many bytes. All is warm.
    pub(crate) fn warm(message: usize) -> Self {
        let (server, peer) = two_ends();
        let echo = Echo { piece: message, timeout: None };
        let builder = with_tls(Engine::builder(), &server);
        let mut stepper = Stepper::new(builder, echo).expect("a reactor starts");
        let stream = stepper.connect().expect("a peer connects");
        let (message, echoed) = (vec![1; message], vec![0; message]);
        let mut echoes = SealedEchoes { stepper, stream, peer, message, echoed };
        echoes.shake_hands();
        let start = Instant::now();
        while start.elapsed() < WARM_UP {
            echoes.round(Stepper::turn);
        }
        echoes
    }

    fn shake_hands(&mut self) {
        while self.peer.is_handshaking() || self.peer.wants_write() {
            if self.peer.wants_write() {
                self.send();
                self.stepper.turn();
            } else {
                self.receive();
            }
        }
    }

    fn send(&mut self) {
        while self.peer.wants_write() {
            self.peer.write_tls(&mut self.stream).expect("records are sent");
        }
    }

    fn receive(&mut self) {
        self.peer.read_tls(&mut self.stream).expect("records are received");
        self.peer.process_new_packets().expect("they can be opened");
    }

    /// Sends a message, has `turn` run a turn, and receives what was echoed in it.
    pub(crate) fn round<T>(&mut self, turn: impl FnOnce(&mut Stepper<Echo>) -> T) -> T {
        self.peer.writer().write_all(&self.message).expect("there is room");
        self.send();
        let outcome = turn(&mut self.stepper);
        let mut received = 0;
        while received < self.echoed.len() {
            self.receive();
            // None if a record is not there as a whole.
            received += self.peer.reader().read(&mut self.echoed[received..]).unwrap_or(0);
        }
        assert_eq!(self.echoed, self.message, "the echo differs");
        outcome
    }
}

/// Both with the same cryptography, whatever the engine would choose.
fn two_ends() -> (TlsServer, ClientConnection) {
    let made = generate_simple_self_signed([NAME.to_owned()]).expect("a certificate is made");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("it is a key");
    let certificate = made.cert.der().clone();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("it is a certificate");
    let versions = [&rustls::version::TLS13];
    let server = ServerConfig::builder_with_provider(default_provider().into())
        .with_protocol_versions(&versions)
        .expect("the version is known")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("the key is that of the certificate");
    let client = ClientConfig::builder_with_provider(default_provider().into())
        .with_protocol_versions(&versions)
        .expect("the version is known")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = NAME.try_into().expect("it is a name");
    let peer = ClientConnection::new(Arc::new(client), name).expect("it is configured");
    (TlsServer::from_rustls(Arc::new(server)), peer)
}
