//! The server's end: requests of HTTP become WebSockets.

mod handshake;
mod serving;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::codec::WebSocketRole;
use super::deflate::{EXTENSIONS, Malformed, PerMessageDeflate};
use super::handler::WebSocketHandler;
use super::handshake::{VERSION, accept_of};
use super::limits::MessageLimits;
use super::link::Agreement;
use super::settings::SocketSettings;
use super::socket::WebSocket;
use crate::http::{Answered, Exchange, Failure, OwnedResponse, RequestHead, StatusCode};

/// What WebSockets of a server are set to. [`accept`](Self::accept) makes one of a request, in any
/// handler of HTTP.
///
/// ```
/// use millstream::Engine;
/// use millstream::http::{Exchange, HttpServer, StatusCode};
/// use millstream::websocket::{Socket, WebSocketHandler, WebSocketServer};
///
/// /// Sends each text back.
/// struct Echo;
///
/// impl WebSocketHandler for Echo {
///     fn on_text(&mut self, socket: &mut Socket<'_, Self>, text: &str) {
///         let _ = socket.send_text(text); // If it closes, no one waits for it.
///     }
/// }
///
/// let server = HttpServer::new();
/// let sockets = WebSocketServer::new();
/// let engine = Engine::builder().listen("127.0.0.1:0").start(move |_reactor| {
///     let sockets = sockets.clone();
///     server.serve(move |exchange: Exchange<'_>| match exchange.path() {
///         "/ws" => sockets.accept(exchange, Echo),
///         _ => Err(StatusCode::NOT_FOUND.into()),
///     })
/// })?;
/// # engine.stop(std::time::Duration::from_secs(5))?;
/// # engine.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct WebSocketServer {
    settings: Arc<SocketSettings>,
    protocols: Arc<[String]>,
    origins: Origins,
    deflate: Option<PerMessageDeflate>,
}

/// Which pages may ask.
#[derive(Clone)]
enum Origins {
    Same,
    Any,
    Checked(Arc<dyn Fn(&RequestHead<'_>) -> bool + Send + Sync>),
}

impl WebSocketServer {
    /// With the limits and times that are said at each method, for pages of the same host.
    pub fn new() -> Self {
        let (settings, protocols) = (Arc::default(), Arc::from([]));
        WebSocketServer { settings, protocols, origins: Origins::Same, deflate: None }
    }

    /// How long messages may be.
    pub fn limits(self, limits: MessageLimits) -> Self {
        self.with(|settings| settings.limits = limits)
    }

    /// After how much silence a client is sent a ping; by default 30 seconds, `None` for never.
    pub fn ping_interval(self, interval: impl Into<Option<Duration>>) -> Self {
        let interval = interval.into();
        self.with(|settings| settings.ping_interval = interval)
    }

    /// How long after a ping a client may be silent; by default 15 seconds. Then it is taken for
    /// dead, and its connection is reset. Time in which the server does not read does not count.
    pub fn pong_timeout(self, timeout: Duration) -> Self {
        self.with(|settings| settings.pong_timeout = timeout)
    }

    /// How long a client may take to reply to a close; by default 5 seconds. Then its connection
    /// closes without that.
    pub fn close_timeout(self, timeout: Duration) -> Self {
        self.with(|settings| settings.close_timeout = timeout)
    }

    /// How many bytes may wait for a client that were sent by handles
    /// ([`WebSocketRemote`](super::WebSocketRemote)); by default 1 MiB. What a slow client costs is
    /// bounded by this and the [high-water mark](crate::Builder::water_marks). A message that is
    /// longer is taken if nothing else waits.
    pub fn backlog(self, bytes: usize) -> Self {
        self.with(|settings| settings.backlog = bytes)
    }

    /// Which protocols are spoken: of those that a client has in its list the first that is here is
    /// chosen, and [`Socket::subprotocol`](super::Socket::subprotocol) tells. By default none, and
    /// a client that would like one has to do without.
    pub fn subprotocols(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.protocols = names.into_iter().map(Into::into).collect();
        self
    }

    /// Compresses messages for clients that offer it, and takes compressed ones from them. By
    /// default none are.
    #[cfg(feature = "websocket-deflate")]
    #[cfg_attr(docsrs, doc(cfg(feature = "websocket-deflate")))]
    pub fn deflate(mut self, deflate: PerMessageDeflate) -> Self {
        self.deflate = Some(deflate);
        self
    }

    /// Takes requests from pages of any origin. By default a page's request, which has the field
    /// Origin, is only taken if its host and port are those of the request: otherwise any page that
    /// a user looks at could speak to this server in the user's name, with the user's cookies.
    pub fn any_origin(mut self) -> Self {
        self.origins = Origins::Any;
        self
    }

    /// Decides which requests are taken, in place of [that](Self::any_origin). Others are refused
    /// with 403.
    pub fn check_origin(
        mut self,
        check: impl Fn(&RequestHead<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.origins = Origins::Checked(Arc::new(check));
        self
    }

    fn with(mut self, set: impl FnOnce(&mut SocketSettings)) -> Self {
        set(Arc::make_mut(&mut self.settings));
        self
    }

    /// Makes a WebSocket of a request, with this handler.
    ///
    /// # Errors
    /// The request is not a handshake (400), does not ask for a WebSocket of the version that there
    /// is (426, with the fields Upgrade and Sec-WebSocket-Version), or comes from a page of another
    /// origin (403).
    pub fn accept<S, H: WebSocketHandler>(
        &self,
        exchange: Exchange<'_, S>,
        handler: H,
    ) -> Result<Answered, Failure> {
        if !exchange.upgrades_to("websocket") || !handshake::has_version(&exchange) {
            let response = OwnedResponse::upgrade_required("websocket")?;
            return Err(response.field("Sec-WebSocket-Version", VERSION)?.into());
        }
        let accept = accept_of(handshake::key_of(&exchange)?);
        if !self.origins.allow(&exchange) {
            return Err(StatusCode::FORBIDDEN.into());
        }
        let protocol = handshake::choose(&exchange, &self.protocols);
        let protocol = protocol.map(|index| (Arc::clone(&self.protocols), index));
        let deflate = match &self.deflate {
            Some(deflate) => deflate.accept(exchange.fields().get_all(EXTENSIONS)),
            None => Ok(None),
        };
        let deflate = deflate.map_err(|Malformed| StatusCode::BAD_REQUEST)?;
        let mut upgrade = exchange.upgrade("websocket")?.field("Sec-WebSocket-Accept", accept)?;
        if let Some((protocols, index)) = &protocol {
            upgrade = upgrade.field("Sec-WebSocket-Protocol", &protocols[*index])?;
        }
        if let Some((_, answer)) = &deflate {
            upgrade = upgrade.field(EXTENSIONS, answer)?;
        }
        let deflate = deflate.map(|(agreed, _)| agreed);
        let (role, settings) = (WebSocketRole::Server, Arc::clone(&self.settings));
        let agreement = Agreement { subprotocol: protocol, deflate };
        Ok(upgrade.to(WebSocket::new(handler, role, settings, agreement)))
    }
}

impl Origins {
    fn allow(&self, head: &RequestHead<'_>) -> bool {
        match self {
            Origins::Same => handshake::is_same_origin(head),
            Origins::Any => true,
            Origins::Checked(check) => check(head),
        }
    }
}

impl Default for WebSocketServer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for WebSocketServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketServer")
            .field("settings", &self.settings)
            .field("protocols", &self.protocols)
            .finish_non_exhaustive()
    }
}
