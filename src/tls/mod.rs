//! TLS between the socket and the handler, by rustls.
//!
//! - `layer` drives rustls as a layer;
//! - `server` and `client` are what the two sides are configured with, `settings` what both are
//!   told alike; `pem` reads their files, `version` and `provider` are what both choose from;
//! - `certificate` reads what is in one, `selection` chooses which one a client is shown;
//! - `watch` reads a server's files again;
//! - `clients` checks the certificates of clients, and `tickets` let them resume their sessions;
//! - `noted` is what rustls tells of a handshake only in the course of it.

mod certificate;
mod client;
mod clients;
mod error;
mod layer;
mod noted;
mod pem;
mod provider;
mod selection;
mod server;
mod settings;
mod tickets;
mod version;
mod watch;

use std::any::Any;
use std::fmt;

pub use self::certificate::CertificateNames;
pub use self::client::{TlsClient, TlsClientBuilder};
pub use self::error::{Origin, TlsError};
use self::layer::TlsLayer;
pub use self::server::{TlsServer, TlsServerBuilder};
pub use self::version::TlsVersion;
use crate::config::{Connect, Layer, Listen, Target};
pub use crate::handler::StartTlsError;
use crate::handler::{Conn, EventHandler, Pending};

impl Listen {
    /// Encrypts the connections of this listener: their handlers get and write what is inside, and
    /// [`on_open`](EventHandler::on_open) comes when the handshake is over. One that fails, or
    /// takes longer than its [timeout](TlsServerBuilder::handshake_timeout), is counted as closed
    /// for [`CloseReason::Handshake`](crate::CloseReason::Handshake), and no callback is told. With
    /// the PROXY protocol its header comes first, outside.
    ///
    /// ```no_run
    /// # use millstream::{Engine, EventHandler, Conn, Action};
    /// use millstream::Listen;
    /// use millstream::tls::TlsServer;
    /// # struct Echo;
    /// # impl EventHandler for Echo {
    /// #     type State = ();
    /// #     fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
    /// #         conn.output.write(conn.input.take_all());
    /// #         Action::Continue
    /// #     }
    /// # }
    ///
    /// let tls = TlsServer::from_pem_files("chain.pem", "key.pem")?;
    /// let engine = Engine::builder()
    ///     .listen(Listen::from("0.0.0.0:7000").tls(&tls))
    ///     .start(|_reactor| Echo)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn tls(mut self, server: &TlsServer) -> Self {
        self.layers = server.layers(true);
        self
    }
}

impl Connect {
    /// Encrypts the connection, which is open when the handshake is over. The certificate that the
    /// server shows has to be for the host's name that is connected to, or for the IP address; with
    /// [`tls_name`](Self::tls_name) for another one.
    ///
    /// A connection to a Unix socket has no name: say one.
    pub fn tls(self, client: &TlsClient) -> Self {
        let name = match &self.to {
            Target::Host { name, .. } => name.clone(),
            Target::Address(address) => {
                address.ip().map_or_else(String::new, |address| address.to_string())
            }
        };
        self.tls_name(client, name)
    }

    /// The same for a server whose certificate is for this name, or this IP address.
    pub fn tls_name(mut self, client: &TlsClient, name: impl Into<String>) -> Self {
        self.layers = client.layers(name.into());
        self
    }
}

impl<H: EventHandler> Conn<'_, H> {
    /// Begins TLS on an open connection, as its server: for protocols that ask for it in plain
    /// bytes first (STARTTLS), or by [`on_open`](EventHandler::on_open) if the handler is to be
    /// told of connections before their handshake. When that is over,
    /// [`on_tls`](EventHandler::on_tls) comes.
    ///
    /// - What was written before goes out first, as it is. What is written from here on waits for
    ///   the handshake, within the same marks and cap, and goes out behind it, encrypted.
    /// - **All that is unread belongs to the handshake**, and is gone from
    ///   [`input`](Self::input). So take the request for TLS and nothing behind it, and call this
    ///   before anything else that was sent is looked at. What somebody has put plainly behind the
    ///   request then breaks the handshake, instead of being taken for what came through TLS.
    /// - Forget what the peer said before: anyone in between may have said it.
    ///
    /// The handshake has the server's [time](TlsServerBuilder::handshake_timeout). Pausing doesn't
    /// hold it up. If it fails, the connection closes with
    /// [`CloseReason::Handshake`](crate::CloseReason::Handshake). If the connection closes before
    /// it is over, what waits for it is dropped.
    ///
    /// # Errors
    /// Nothing has changed: see [`StartTlsError`].
    #[doc(alias = "upgrade")]
    pub fn start_tls(&mut self, server: &TlsServer) -> Result<(), StartTlsError> {
        self.start_layer(&server.layers(false))
    }

    /// The same as the client of a server whose certificate is for this name, or this IP address.
    /// Call it when the server has agreed; what came behind its reply belongs to the handshake.
    ///
    /// # Errors
    /// As for [`start_tls`](Self::start_tls). A name that can't be one fails the handshake.
    pub fn start_tls_to(
        &mut self,
        client: &TlsClient,
        name: impl Into<String>,
    ) -> Result<(), StartTlsError> {
        self.start_layer(&client.layers(name.into()))
    }

    /// What is known of the connection's TLS, if it has that.
    pub fn tls(&self) -> Option<Tls<'_>> {
        Tls::of(self.output.pending)
    }
}

/// What is known of a connection's TLS, once the handshake is over.
#[derive(Clone, Copy)]
pub struct Tls<'a>(&'a TlsLayer);

impl<'a> Tls<'a> {
    /// That of a connection, if it has one.
    pub(crate) fn of(pending: &'a Pending) -> Option<Self> {
        let layer: &dyn Any = pending.layer()?.layer();
        layer.downcast_ref().map(Tls)
    }

    /// The version that both sides speak.
    pub fn version(&self) -> Option<TlsVersion> {
        self.0.state()?.protocol_version().and_then(TlsVersion::of)
    }

    /// The name of the cipher suite, such as `TLS13_AES_256_GCM_SHA384`.
    pub fn cipher_suite(&self) -> Option<&'static str> {
        self.0.state()?.negotiated_cipher_suite()?.suite().as_str()
    }

    /// The name of the server that the client asked for (SNI).
    pub fn server_name(&self) -> Option<&'a str> {
        self.0.server_name()
    }

    /// The protocol that both sides agreed on (ALPN).
    pub fn alpn(&self) -> Option<&'a [u8]> {
        self.0.state()?.alpn_protocol()
    }

    /// The peer's certificates in DER, its own first; empty if it has shown none.
    pub fn peer_certificates(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let certificates = self.0.state().and_then(|state| state.peer_certificates());
        certificates.unwrap_or_default().iter().map(AsRef::as_ref)
    }

    /// Whose the peer's certificate is: its subject's names. They are read from it with each call.
    /// `None` if the peer has shown no certificate, or one whose names can't be read.
    ///
    /// At a server only a peer that was [asked](TlsServerBuilder::require_client_certificates)
    /// shows one, and it was checked then. At a client a server's certificate was found to be for
    /// the name that was connected to, which need not be any that stands here.
    pub fn peer_names(&self) -> Option<CertificateNames> {
        CertificateNames::of(self.peer_certificates().next()?)
    }

    /// The name of the group in which both sides agreed on keys, such as `X25519`. A session of
    /// TLS 1.2 that is resumed has none.
    pub fn key_exchange_group(&self) -> Option<&'static str> {
        self.0.state()?.negotiated_key_exchange_group()?.name().as_str()
    }

    /// Whether an earlier session goes on, so that no certificates were shown again.
    pub fn is_resumed(&self) -> bool {
        self.0.is_resumed()
    }
}

impl fmt::Debug for Tls<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("version", &self.version())
            .field("cipher_suite", &self.cipher_suite())
            .field("server_name", &self.server_name())
            .field("is_resumed", &self.is_resumed())
            .finish_non_exhaustive()
    }
}
