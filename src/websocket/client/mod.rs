//! The client's end: connections to servers.

mod answer;
mod error;
mod request;
mod serving;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

pub use self::error::WebSocketConnectError;
pub use self::request::{WebSocketRequest, WebSocketRequestError};
pub use self::serving::WebSocketConnector;

use super::deflate::PerMessageDeflate;
use super::handler::WebSocketHandler;
use super::limits::MessageLimits;
use super::settings::SocketSettings;
use crate::codec::{Framed, FramedReactors};
use crate::{Action, Connect, Stopped};

/// What WebSockets to servers are set to. [`connector`](Self::connector) is the handler of an
/// engine, and [`connect`](Self::connect) makes a WebSocket on one of its reactors, from any
/// thread.
///
/// ```
/// use std::sync::mpsc::{Sender, channel};
/// use millstream::Engine;
/// use millstream::codec::Framed;
/// use millstream::websocket::{
///     CloseCode, Socket, WebSocketClient, WebSocketConnectError, WebSocketConnector,
///     WebSocketHandler, WebSocketRequest,
/// };
/// # use millstream::http::{Exchange, HttpServer};
/// # use millstream::websocket::WebSocketServer;
/// # struct Echo;
/// # impl WebSocketHandler for Echo {
/// #     fn on_text(&mut self, socket: &mut Socket<'_, Self>, text: &str) {
/// #         let _ = socket.send_text(text);
/// #     }
/// # }
/// # let (sockets, http) = (WebSocketServer::new(), HttpServer::new());
/// # let server = Engine::builder().listen("127.0.0.1:0").start(move |_reactor| {
/// #     let sockets = sockets.clone();
/// #     http.serve(move |exchange: Exchange<'_>| sockets.accept(exchange, Echo))
/// # })?;
/// # let address = server.local_addrs()[0].clone();
///
/// /// Greets, and passes the reply on.
/// struct Greeter(Sender<String>);
///
/// impl WebSocketHandler for Greeter {
///     fn on_open(&mut self, socket: &mut Socket<'_, Self>) {
///         let _ = socket.send_text("hello"); // It is open.
///     }
///
///     fn on_text(&mut self, socket: &mut Socket<'_, Self>, text: &str) {
///         let _ = self.0.send(text.to_owned());
///         socket.close(CloseCode::NORMAL, "");
///     }
///
///     fn on_failed(&mut self, error: &WebSocketConnectError) {
///         let _ = self.0.send(error.to_string());
///     }
/// }
///
/// let client = WebSocketClient::new();
/// let handler = client.clone();
/// let engine = Engine::builder().reactors(1).start(move |_reactor| handler.connector::<Greeter>())?;
/// let reactors = engine.reactors::<Framed<WebSocketConnector<Greeter>>>().expect("its handler");
/// let request = WebSocketRequest::new(&format!("ws://{address}/"))?;
/// let (sender, replies) = channel();
/// client.connect(&reactors, 0, request.destination(), &request, Greeter(sender))?;
/// assert_eq!(replies.recv()?, "hello");
/// # for engine in [&engine, &server] {
/// #     engine.stop(std::time::Duration::from_secs(5))?;
/// #     engine.wait()?;
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct WebSocketClient {
    settings: Arc<SocketSettings>,
    handshake_timeout: Duration,
    deflate: Option<PerMessageDeflate>,
}

impl WebSocketClient {
    /// With the limits and times that are said at each method.
    pub fn new() -> Self {
        let handshake_timeout = Duration::from_secs(10);
        WebSocketClient { settings: Arc::default(), handshake_timeout, deflate: None }
    }

    /// How long messages may be.
    pub fn limits(self, limits: MessageLimits) -> Self {
        self.with(|settings| settings.limits = limits)
    }

    /// How long a server may take to answer the request, once there is a connection; by default 10
    /// seconds.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// After how much silence a server is sent a ping; by default 30 seconds, `None` for never.
    pub fn ping_interval(self, interval: impl Into<Option<Duration>>) -> Self {
        let interval = interval.into();
        self.with(|settings| settings.ping_interval = interval)
    }

    /// How long after a ping a server may be silent; by default 15 seconds. Then it is taken for
    /// dead, and its connection is reset.
    pub fn pong_timeout(self, timeout: Duration) -> Self {
        self.with(|settings| settings.pong_timeout = timeout)
    }

    /// How long a server may take to reply to a close, and then to end the connection (RFC 6455,
    /// section 7.1.1); by default 5 seconds. Then it closes without that.
    pub fn close_timeout(self, timeout: Duration) -> Self {
        self.with(|settings| settings.close_timeout = timeout)
    }

    /// How many bytes may wait for a server that were sent by handles; by default 1 MiB: see
    /// [`WebSocketServer::backlog`](super::WebSocketServer::backlog).
    pub fn backlog(self, bytes: usize) -> Self {
        self.with(|settings| settings.backlog = bytes)
    }

    /// Offers to compress messages. By default none are.
    #[cfg(feature = "websocket-deflate")]
    #[cfg_attr(docsrs, doc(cfg(feature = "websocket-deflate")))]
    pub fn deflate(mut self, deflate: PerMessageDeflate) -> Self {
        self.deflate = Some(deflate);
        self
    }

    fn with(mut self, set: impl FnOnce(&mut SocketSettings)) -> Self {
        set(Arc::make_mut(&mut self.settings));
        self
    }

    /// The handler of an engine whose connections are WebSockets to servers.
    pub fn connector<H: WebSocketHandler>(&self) -> Framed<WebSocketConnector<H>> {
        Framed::new(WebSocketConnector(PhantomData)).frame_timeout(None)
    }

    /// Connects, sends the request, and calls [`WebSocketHandler::on_open`] when the server has
    /// accepted it, or [`WebSocketHandler::on_failed`] if that does not come about.
    ///
    /// # Errors
    /// [`Stopped`] if the reactor has stopped. Nothing is called then.
    ///
    /// # Panics
    /// If there is no such reactor: see [`Reactors::connect`](crate::Reactors::connect).
    pub fn connect<H: WebSocketHandler + Send>(
        &self,
        reactors: &FramedReactors<WebSocketConnector<H>>,
        reactor: usize,
        connect: Connect,
        request: &WebSocketRequest,
        mut handler: H,
    ) -> Result<(), Stopped> {
        let (client, request) = (self.clone(), request.clone());
        reactors.connect(reactor, connect, move |_, _, connected| match connected {
            Ok(conn) => serving::begin(conn, &client, request, handler),
            Err(error) => {
                handler.on_failed(&WebSocketConnectError::Unconnected(Box::new(error)));
                Action::Continue
            }
        })
    }
}

impl Default for WebSocketClient {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for WebSocketClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketClient").field("settings", &self.settings).finish_non_exhaustive()
    }
}
