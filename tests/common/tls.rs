//! TLS for the suites: one certificate for all of a process, and the test's end of a connection.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::{Arc, LazyLock};

use millstream::tls::{TlsClient, TlsServer};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, SerialNumber};
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
};

use super::folder::Folder;
use super::wire::Wire;

/// Whom the suites connect to.
const NAMES: [&str; 6] =
    ["localhost", "server.test", "127.0.0.1", "127.0.0.2", "10.0.0.1", "10.0.0.2"];

/// Who all servers of a process are, and what trusts them.
pub struct Identity {
    pub chain: String,
    pub key: String,
    /// For engines.
    pub server: TlsServer,
    pub client: TlsClient,
    /// For ends of tests.
    accepting: Arc<ServerConfig>,
    connecting: Arc<ClientConfig>,
}

pub static IDENTITY: LazyLock<Identity> = LazyLock::new(Identity::new);

impl Identity {
    /// All that is sent in a handshake is always as long, so that simulated ones repeat: signatures
    /// of other algorithms are not, and tickets would make the second handshake another one.
    fn new() -> Self {
        let mut params = CertificateParams::new(NAMES.map(str::to_owned)).expect("they are names");
        params.serial_number = Some(SerialNumber::from(1));
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("keys are made");
        let certificate = params.self_signed(&key).expect("it is signed");
        let (chain, key) = (certificate.pem(), key.serialize_pem());
        let pem = chain.as_bytes();
        let server = TlsServer::builder().pem(pem, key.as_bytes()).no_resumption().build();
        // One that remembers no server: what it offers first would depend on the server before.
        let connecting = Arc::new(connecting(&chain));
        Identity {
            server: server.expect("it is a certificate and its key"),
            client: TlsClient::from_rustls(Arc::clone(&connecting)),
            accepting: Arc::new(accepting(&chain, &key)),
            connecting,
            chain,
            key,
        }
    }
}

/// Among the options of a program it stands for those by which it shows the certificate.
pub const TLS: &str = "--tls";

/// Starts a program. Returns also what its connections stand behind, and the folder of its files.
pub fn start_with<T>(
    options: &[&str],
    start: impl FnOnce(&[&str]) -> T,
) -> (T, Wire, Option<Folder>) {
    let Some(at) = options.iter().position(|option| *option == TLS) else {
        return (start(options), Wire::Plain, None);
    };
    let folder = Folder::new();
    let [chain, key] = [("chain.pem", &IDENTITY.chain), ("key.pem", &IDENTITY.key)].map(|file| {
        let path = folder.path(file.0);
        fs::write(&path, file.1).expect("the folder can be written to");
        path
    });
    let files = ["--tls-cert", &chain, "--tls-key", &key];
    (start(&[&options[..at], &files, &options[at + 1..]].concat()), Wire::Tls, Some(folder))
}

fn accepting(chain: &str, key: &str) -> ServerConfig {
    let chain = CertificateDer::from_pem_slice(chain.as_bytes()).expect("it is PEM");
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("it is PEM");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("there are versions")
        .with_no_client_auth()
        .with_single_cert(vec![chain], key);
    let mut config = config.expect("the key is that of the certificate");
    config.send_tls13_tickets = 0;
    config
}

/// A client that trusts this one.
pub fn connecting(chain: &str) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let chain = CertificateDer::from_pem_slice(chain.as_bytes()).expect("it is PEM");
    roots.add(chain).expect("it is a certificate");
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("there are versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config
}

/// A test's end of a connection, without a socket. It drives rustls in the form that the engine
/// does not use.
pub struct Endpoint {
    connection: Connection,
    /// The other side has said its end.
    pub ended: bool,
}

impl Endpoint {
    /// The end that connects.
    pub fn client() -> Self {
        let name = "localhost".try_into().expect("it is a name");
        let connection = ClientConnection::new(Arc::clone(&IDENTITY.connecting), name);
        Endpoint::new(connection.expect("it is configured").into())
    }

    /// The end that accepts.
    pub fn server() -> Self {
        let connection = ServerConnection::new(Arc::clone(&IDENTITY.accepting));
        Endpoint::new(connection.expect("it is configured").into())
    }

    fn new(mut connection: Connection) -> Self {
        connection.set_buffer_limit(None);
        Endpoint { connection, ended: false }
    }

    pub fn is_ready(&self) -> bool {
        !self.connection.is_handshaking()
    }

    /// What is in these bytes of the network.
    ///
    /// # Errors
    /// The other side has said that something failed, or TLS is broken.
    pub fn open(&mut self, mut sealed: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        while !sealed.is_empty() && !self.ended {
            self.connection.read_tls(&mut sealed)?;
            let state = self.connection.process_new_packets();
            let state = state.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
            self.ended = state.peer_has_closed();
            let begin = plain.len();
            plain.resize(begin + state.plaintext_bytes_to_read(), 0);
            self.connection.reader().read_exact(&mut plain[begin..])?;
        }
        assert!(sealed.is_empty(), "{} bytes behind the end", sealed.len());
        Ok(plain)
    }

    /// What goes to the network for these bytes, behind what TLS has to say itself.
    pub fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        self.connection.writer().write_all(plain).expect("there is no limit");
        let mut sealed = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut sealed).expect("there is room");
        }
        sealed
    }

    /// The same for the end of this side.
    pub fn seal_end(&mut self) -> Vec<u8> {
        self.connection.send_close_notify();
        self.seal(b"")
    }
}
