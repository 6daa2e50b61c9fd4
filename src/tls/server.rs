//! The server's side: which certificates it shows, and what it asks of its clients.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::thread::{self, Thread};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::{
    NoServerSessionStorage, ProducesTickets, ServerSessionMemoryCache, StoresServerSessions,
};

use super::clients::{Asked, Clients};
use super::error::TlsError;
use super::layer::TlsLayer;
use super::pem::{Identity, Source};
use super::provider::{provider, ticketer};
use super::selection::{Certificates, Noting};
use super::settings::{Settings, set_by};
use super::tickets::{CheckedTickets, FileKeys, hash_of};
use super::version::TlsVersion;
use super::watch::{Trace, watch};
use crate::config::Layers;

/// How many sessions of TLS 1.2 clients without tickets are remembered.
const SESSIONS: usize = 4096;

/// How the connections of a listener are encrypted: what [`Listen::tls`](crate::Listen::tls) is
/// given. Cheap to clone; clones share their certificates, so that one can
/// [`reload`](Self::reload) what all listeners use.
///
/// TLS 1.2 and 1.3 are spoken. Sessions are resumed by tickets, on whichever reactor a client comes
/// back to. Early data (0-RTT) is not accepted, since it can be replayed.
#[derive(Clone)]
pub struct TlsServer {
    state: Arc<ServerState>,
    handshake_timeout: Duration,
}

pub(super) struct ServerState {
    /// `None` if the program brought its own configuration.
    made_of: Option<(TlsServerBuilder, Sessions)>,
    config: RwLock<Arc<ServerConfig>>,
    reloading: Mutex<()>,
    /// What looks at the files.
    watch: OnceLock<Thread>,
}

impl Drop for ServerState {
    fn drop(&mut self) {
        if let Some(watch) = self.watch.get() {
            watch.unpark(); // It ends.
        }
    }
}

impl TlsServer {
    /// With a chain of certificates, the server's own first, and its private key, in PEM files. The
    /// short form of [`builder`](Self::builder).
    ///
    /// # Errors
    /// A file can't be read, or has not in it what it should.
    pub fn from_pem_files(
        chain: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, TlsError> {
        TlsServer::builder().pem_files(chain, key).build()
    }

    /// With a configuration of the program's own, of rustls 0.23. [`reload`](Self::reload) does
    /// nothing then; what chooses the certificates in it may do so. Early data is not accepted,
    /// whatever it says.
    pub fn from_rustls(config: Arc<ServerConfig>) -> Self {
        let mut config = Arc::unwrap_or_clone(config);
        config.cert_resolver = Arc::new(Noting(config.cert_resolver));
        config.max_early_data_size = 0;
        TlsServer::new(None, Arc::new(config), Settings::default().handshake_timeout)
    }

    /// How long a handshake may take with this one and with what is cloned from it, instead of what
    /// it was built with, or 10 seconds.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// With more to say than where the certificate is.
    pub fn builder() -> TlsServerBuilder {
        TlsServerBuilder {
            identities: Vec::new(),
            strict: false,
            clients: Clients::default(),
            no_resumption: false,
            ticket_keys: None,
            settings: Settings::default(),
            watched: None,
            misplaced: None,
        }
    }

    /// Reads all files again: handshakes that begin from now on are with what is in them, all at
    /// once; connections that are open go on. Sessions can still be resumed, unless the authorities
    /// of clients or the lists of revoked certificates are others now: then clients shake hands in
    /// full, and are checked again. Any thread may call it; it blocks for as long as reading takes.
    ///
    /// # Errors
    /// What is in the files can't be used, and what was there before stays in force.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.state.reload()
    }

    fn new(
        made_of: Option<(TlsServerBuilder, Sessions)>,
        config: Arc<ServerConfig>,
        handshake_timeout: Duration,
    ) -> Self {
        let state = Arc::new(ServerState {
            made_of,
            config: RwLock::new(config),
            reloading: Mutex::default(),
            watch: OnceLock::new(),
        });
        TlsServer { state, handshake_timeout }
    }

    /// Has a thread look at the files this often. They were `seen` like this before they were read.
    fn watch(&self, interval: Duration, seen: Vec<Option<Trace>>) -> Result<(), TlsError> {
        let server = Arc::downgrade(&self.state);
        let thread = thread::Builder::new().name("millstream-tls".to_owned());
        let spawned = thread.spawn(move || watch(&server, interval, seen));
        let spawned = spawned.map_err(TlsError::settings)?;
        let _ = self.state.watch.set(spawned.thread().clone()); // It is set here alone.
        Ok(())
    }

    /// What stands between its connections and the handler. If they begin with it, a client may
    /// have taken the port for one of plain HTTP, and is told.
    pub(crate) fn layers(&self, begin_with_it: bool) -> Layers {
        let TlsServer { state, handshake_timeout } = self.clone();
        Layers::new(move || {
            Box::new(TlsLayer::server(state.config(), handshake_timeout, begin_with_it))
        })
    }
}

impl ServerState {
    pub(super) fn reload(&self) -> Result<(), TlsError> {
        let Some((builder, sessions)) = &self.made_of else { return Ok(()) };
        // One at a time, or what was read first could be put in force last.
        let _alone = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let config = builder.load(sessions)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// How its files look now.
    pub(super) fn traces(&self) -> Vec<Option<Trace>> {
        self.made_of.as_ref().map_or_else(Vec::new, |(builder, _)| builder.traces())
    }

    fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What sessions are resumed by without a file, for as long as the server is there.
struct Sessions {
    keys: Arc<dyn ProducesTickets>,
    storage: Arc<dyn StoresServerSessions>,
}

impl Sessions {
    fn new() -> Result<Self, TlsError> {
        let keys = ticketer().map_err(TlsError::settings)?;
        Ok(Sessions { keys, storage: ServerSessionMemoryCache::new(SESSIONS) })
    }
}

/// Makes a [`TlsServer`].
#[derive(Clone, Debug)]
#[must_use]
pub struct TlsServerBuilder {
    identities: Vec<Identity>,
    /// Whether a client that asks for another name, or for none, is refused.
    strict: bool,
    clients: Clients,
    no_resumption: bool,
    ticket_keys: Option<Source>,
    settings: Settings,
    watched: Option<Duration>,
    /// What was said in the wrong place.
    misplaced: Option<&'static str>,
}

set_by!(TlsServerBuilder);

impl TlsServerBuilder {
    /// Adds a chain of certificates, the server's own first, and its private key, in PEM files. Of
    /// several the one is shown that has the name that the client asks for (SNI), for which a
    /// wildcard stands at the first label; the first one is also shown to clients that ask for
    /// none, or for one that no certificate has, unless [`strict_names`](Self::strict_names) says
    /// otherwise.
    pub fn pem_files(self, chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity(Source::File(chain.into()), Source::File(key.into()))
    }

    /// The same with the contents of such files.
    pub fn pem(self, chain: &[u8], key: &[u8]) -> Self {
        self.identity(Source::Bytes(chain.into()), Source::Bytes(key.into()))
    }

    fn identity(mut self, chain: Source, key: Source) -> Self {
        self.identities.push(Identity { chain, key, ocsp: None });
        self
    }

    /// Shows this answer of the authority's OCSP responder (in DER) along with the certificate that
    /// was added last, so that clients need not ask. Before any certificate it is an error of
    /// [`build`](Self::build).
    pub fn ocsp_file(mut self, answer: impl Into<PathBuf>) -> Self {
        match self.identities.last_mut() {
            Some(identity) => identity.ocsp = Some(Source::File(answer.into())),
            None => self.misplaced = Some("an OCSP answer comes behind its certificate"),
        }
        self
    }

    /// Refuses clients that ask for a name that no certificate has, or for none.
    pub fn strict_names(mut self) -> Self {
        self.strict = true;
        self
    }

    /// Lets in only clients that show a certificate of one of the authorities in this PEM file.
    pub fn require_client_certificates(self, authorities: impl Into<PathBuf>) -> Self {
        self.ask_clients(Asked::Required, authorities.into())
    }

    /// Asks clients for a certificate of one of the authorities in this PEM file. Those that show
    /// none are let in, too; [`Conn::tls`](crate::Conn::tls) tells.
    pub fn request_client_certificates(self, authorities: impl Into<PathBuf>) -> Self {
        self.ask_clients(Asked::Optional, authorities.into())
    }

    fn ask_clients(mut self, asked: Asked, authorities: PathBuf) -> Self {
        self.clients.asked = asked;
        self.clients.authorities.push(Source::File(authorities));
        self
    }

    /// Refuses client certificates that are in these lists (CRLs, in PEM), at least one in each
    /// file. A certificate whose authority has no list is not refused, nor is one because its list
    /// is old. [`reload`](TlsServer::reload) takes new lists.
    pub fn revoked_client_certificates(mut self, lists: impl Into<PathBuf>) -> Self {
        self.clients.revoked.push(Source::File(lists.into()));
        self
    }

    /// Gives no tickets out: each connection shakes hands in full.
    pub fn no_resumption(mut self) -> Self {
        self.no_resumption = true;
        self
    }

    /// Seals tickets by the keys in this file, so that all servers that have it resume each other's
    /// sessions, also after a restart: they should be of one service. Each line is a key of 64
    /// hexadecimal digits (`openssl rand -hex 32` makes one), or is empty, or begins with `#`. The
    /// first key seals; each of them opens. A ticket is good for twelve hours. It is sealed as a
    /// record would be, by the provider's first cipher suite of TLS 1.3 with keys of 256 bits:
    /// servers whose providers have these in another order share no tickets, and their clients
    /// shake hands in full.
    ///
    /// Anyone who has the keys can read what was recorded of sessions of TLS 1.2, and go on with
    /// anyone's session. So change them every day or so: put the new key second in the files of
    /// all servers, then first, and later remove the old one. [`reload`](TlsServer::reload) takes
    /// them.
    ///
    /// Without a file the keys are the server's own, and change every six hours.
    pub fn ticket_keys_file(mut self, keys: impl Into<PathBuf>) -> Self {
        self.ticket_keys = Some(Source::File(keys.into()));
        self
    }

    /// [Reloads](TlsServer::reload) the files when one of them has changed, for which a thread
    /// looks at their times, sizes and inodes this often, but at least a second apart. Files that
    /// can't be used are reported by a `tracing` event and tried again every time; those before
    /// stay in force. The thread ends with the last clone of the server.
    pub fn reload_when_changed(mut self, interval: Duration) -> Self {
        self.watched = Some(interval.max(Duration::from_secs(1)));
        self
    }

    /// Reads all files.
    ///
    /// # Errors
    /// A file can't be read, or has not in it what it should, or the settings don't go together.
    pub fn build(self) -> Result<TlsServer, TlsError> {
        if let Some(misplaced) = self.misplaced {
            return Err(TlsError::settings(misplaced));
        }
        let watched = self.watched.map(|interval| (interval, self.traces()));
        let sessions = Sessions::new()?;
        let config = self.load(&sessions)?;
        let handshake_timeout = self.settings.handshake_timeout;
        let server = TlsServer::new(Some((self, sessions)), config, handshake_timeout);
        if let Some((interval, seen)) = watched {
            server.watch(interval, seen)?;
        }
        Ok(server)
    }

    /// Makes the configuration.
    fn load(&self, sessions: &Sessions) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = provider();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.settings.oldest.and_newer())
            .map_err(TlsError::settings)?;
        let clients = self.clients.load(&provider)?;
        let builder = match clients.verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let certificates = Certificates::load(&self.identities, self.strict, &provider)?;
        let mut config = builder.with_cert_resolver(Arc::new(Noting(Arc::new(certificates))));
        config.alpn_protocols.clone_from(&self.settings.alpn);
        config.key_log = self.settings.key_log();
        if self.no_resumption {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            return Ok(Arc::new(config));
        }
        let keys = match &self.ticket_keys {
            Some(source) => Arc::new(FileKeys::load(source, &provider)?),
            None => Arc::clone(&sessions.keys),
        };
        let rules = hash_of(&clients.rules, &provider)?;
        config.ticketer = Arc::new(CheckedTickets { keys, rules });
        config.session_storage = match self.clients.asked {
            Asked::Never => Arc::clone(&sessions.storage),
            // Of what is there it is not known until when it is good.
            Asked::Optional | Asked::Required => Arc::new(NoServerSessionStorage {}),
        };
        Ok(Arc::new(config))
    }

    fn sources(&self) -> impl Iterator<Item = &Source> {
        let identities = self.identities.iter().flat_map(Identity::sources);
        identities.chain(self.clients.sources()).chain(&self.ticket_keys)
    }

    /// How its files look now.
    fn traces(&self) -> Vec<Option<Trace>> {
        self.sources().map(Source::trace).collect()
    }
}
