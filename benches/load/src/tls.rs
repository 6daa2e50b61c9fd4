//! TLS 1.3 on a connection, by rustls with cryptography by ring: AES-128-GCM and X25519, so that
//! every server does the same work. Certificates are not looked at: what is measured is the server.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind, SignatureScheme,
};

use super::Tls;

/// How much one `recv` takes.
const SEALED: usize = 64 * 1024;
/// Servers whose sessions are kept: there is one.
const SERVERS: usize = 1;

thread_local! {
    /// Where all connections receive records into.
    static RECORDS: RefCell<Box<[u8]>> = RefCell::new(vec![0; SEALED].into_boxed_slice());
}

/// What the connections of a thread begin with.
pub(super) struct TlsClient {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl TlsClient {
    /// `None` if there is no TLS.
    pub(super) fn of(tls: Tls) -> io::Result<Option<Self>> {
        let resumption = match tls {
            Tls::Off => return Ok(None),
            Tls::Full => Resumption::disabled(),
            Tls::Resumed => Resumption::in_memory_sessions(SERVERS),
        };
        let provider = CryptoProvider {
            cipher_suites: vec![ring::cipher_suite::TLS13_AES_128_GCM_SHA256],
            kx_groups: vec![ring::kx_group::X25519],
            ..ring::default_provider()
        };
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer))
            .with_no_client_auth();
        config.resumption = resumption;
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        Ok(Some(Self { config: Arc::new(config), name }))
    }

    /// The first words of a handshake.
    pub(super) fn hello(&self) -> io::Result<Vec<u8>> {
        let session = ClientConnection::new(Arc::clone(&self.config), self.name.clone());
        let mut hello = Vec::new();
        session.map_err(io::Error::other)?.write_tls(&mut hello)?;
        Ok(hello)
    }

    pub(super) fn begin(&self, socket: TcpStream) -> io::Result<TlsStream> {
        let session = ClientConnection::new(Arc::clone(&self.config), self.name.clone());
        Ok(TlsStream { socket, session: session.map_err(io::Error::other)? })
    }
}

/// TLS over a socket.
pub(super) struct TlsStream {
    socket: TcpStream,
    session: ClientConnection,
}

impl TlsStream {
    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(super) fn socket_mut(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    pub(super) fn is_resumed(&self) -> bool {
        self.session.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Opens what one `recv` gives into `buffer`, and sends what the handshake says to it. Returns
    /// how much it opened, and whether there may be more; an end is an error.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, bool)> {
        RECORDS.with_borrow_mut(|records| {
            let room = records.len().min(buffer.len());
            let count = self.socket.read(&mut records[..room])?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let (mut rest, mut opened) = (&records[..count], 0);
            while !rest.is_empty() {
                self.session.read_tls(&mut rest)?;
                let read = self.session.process_new_packets();
                read.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
                // It takes nothing more while much is open.
                opened += self.take_open(&mut buffer[opened..])?;
            }
            self.flush()?;
            Ok((opened, count == room))
        })
    }

    /// What is open already, at most as much as `buffer` takes.
    fn take_open(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut taken = 0;
        while taken < buffer.len() {
            match self.session.reader().read(&mut buffer[taken..]) {
                Ok(0) => break,
                Ok(count) => taken += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }
}

impl Read for TlsStream {
    /// As of a socket, a read that does not fill the buffer has drained it.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut taken = self.take_open(buffer)?;
        while taken < buffer.len() {
            let (opened, more) = match self.receive(&mut buffer[taken..]) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
                Err(error) if taken > 0 && error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            taken += opened;
            if !more && taken > 0 {
                break;
            }
        }
        Ok(taken)
    }
}

impl Write for TlsStream {
    /// As of a socket, a write that does not take all has filled it.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        while taken < bytes.len() {
            self.flush()?;
            // It takes little before the handshake is over, and none while the socket is full.
            let blocked = self.session.wants_write();
            match if blocked { 0 } else { self.session.writer().write(&bytes[taken..])? } {
                0 => break,
                count => taken += count,
            }
        }
        self.flush()?;
        if taken == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Takes every certificate.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
