//! WebSockets on connections to servers.

use std::cell::Cell;
use std::convert::Infallible;
use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::WebSocketClient;
use super::answer::Expected;
use super::error::WebSocketConnectError;
use super::request::{WebSocketRequest, draw_key};
use crate::codec::{Codec, FrameHandler, FramedConn, FramedReactor, FramedRemote};
use crate::websocket::backlog::Permit;
use crate::websocket::buffers::MessageBuffers;
use crate::websocket::carrier::{Carrier, SocketConn, Task, Way};
use crate::websocket::codec::WebSocketRole;
use crate::websocket::deflate::PerMessageDeflate;
use crate::websocket::handler::WebSocketHandler;
use crate::websocket::handshake::accept_of;
use crate::websocket::prepared::PreparedMessage;
use crate::websocket::settings::SocketSettings;
use crate::websocket::socket::WebSocket;
use crate::{Action, Address, CloseReason, Closed, ConnId, Input, Output, ShutdownAction, TimerId};

thread_local! {
    /// Those of all connections of a reactor.
    static BUFFERS: Cell<Option<Box<MessageBuffers>>> = const { Cell::new(None) };
}

/// Serves connections that are WebSockets to servers, each with a handler of its own:
/// [`WebSocketClient::connector`] makes it.
pub struct WebSocketConnector<H>(pub(super) PhantomData<fn() -> H>);

/// What is kept of a connection.
pub struct ConnectorState<H> {
    shaking: Option<Box<Shaking<H>>>,
    socket: Option<Box<WebSocket<H>>>,
}

impl<H> Default for ConnectorState<H> {
    fn default() -> Self {
        ConnectorState { shaking: None, socket: None }
    }
}

/// A connection whose request is not answered.
struct Shaking<H> {
    handler: H,
    settings: Arc<SocketSettings>,
    expected: Expected,
    timeout: Duration,
    timer: TimerId,
}

/// Cuts nothing: it says that there is something to read.
#[derive(Debug, Default)]
pub struct Unread {
    /// As much was offered in vain.
    offered: usize,
}

impl Codec for Unread {
    type Frame<'a> = ();
    type Item<'a> = &'a [u8];
    type Error = Infallible;

    fn decode<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<()>, Infallible> {
        let before = mem::replace(&mut self.offered, input.len());
        Ok((self.offered != before && self.offered > 0).then_some(()))
    }

    fn encode(&mut self, item: &[u8], output: &mut Output<'_>) -> Result<(), Infallible> {
        output.write(item);
        Ok(())
    }
}

type ClientConn<'a, H> = FramedConn<'a, WebSocketConnector<H>>;

/// There is a connection: sends the request.
pub(super) fn begin<H: WebSocketHandler>(
    conn: &mut ClientConn<'_, H>,
    client: &WebSocketClient,
    request: WebSocketRequest,
    mut handler: H,
) -> Action {
    if request.is_secure() && !is_encrypted(conn) {
        handler.on_failed(&WebSocketConnectError::NoTls);
        return Action::Close;
    }
    let key = match draw_key() {
        Ok(key) => key,
        Err(error) => {
            handler.on_failed(&WebSocketConnectError::Key(error));
            return Action::Close;
        }
    };
    let offer = client.deflate.as_ref().map(PerMessageDeflate::offer);
    request.write(&key, offer.as_deref(), &mut conn.output);
    let timeout = client.handshake_timeout;
    let timer = conn.set_timer(timeout, 0);
    let settings = Arc::clone(&client.settings);
    let (accept, deflate) = (accept_of(key.as_bytes()), client.deflate);
    let expected = Expected { accept, request, deflate, searched: 0 };
    let shaking = Shaking { handler, settings, expected, timeout, timer };
    conn.state.shaking = Some(Box::new(shaking));
    Action::Continue
}

#[cfg(any(feature = "tls", feature = "tls-ring"))]
fn is_encrypted<H: WebSocketHandler>(conn: &ClientConn<'_, H>) -> bool {
    conn.tls().is_some()
}

#[cfg(not(any(feature = "tls", feature = "tls-ring")))]
fn is_encrypted<H: WebSocketHandler>(_conn: &ClientConn<'_, H>) -> bool {
    false
}

/// Reads the server's answer.
fn shake<H: WebSocketHandler>(conn: &mut ClientConn<'_, H>) -> Action {
    let Some(mut shaking) = conn.state.shaking.take() else {
        conn.input.take_all(); // It closes.
        return Action::Continue;
    };
    let agreement = match shaking.expected.read(&mut conn.input) {
        Ok(Some(agreement)) => agreement,
        Ok(None) => {
            conn.state.shaking = Some(shaking);
            return Action::Continue;
        }
        Err(error) => return fail(conn, *shaking, &error),
    };
    let Shaking { handler, settings, timer, .. } = *shaking;
    conn.cancel_timer(timer);
    let socket = WebSocket::new(handler, WebSocketRole::Client, settings, agreement);
    conn.state.socket = Some(Box::new(socket));
    tell(conn, |socket, conn| socket.opened(conn))
}

fn fail<H: WebSocketHandler>(
    conn: &mut ClientConn<'_, H>,
    mut shaking: Shaking<H>,
    error: &WebSocketConnectError,
) -> Action {
    tracing::debug!(conn = %conn.id(), %error, "no WebSocket");
    shaking.handler.on_failed(error);
    Action::Close
}

/// Calls the WebSocket, if there is one.
fn tell<H: WebSocketHandler>(
    conn: &mut ClientConn<'_, H>,
    call: impl FnOnce(&mut WebSocket<H>, &mut ClientConn<'_, H>) -> Action,
) -> Action {
    let mut lent = Lent { socket: conn.state.socket.take(), conn };
    let Lent { socket: Some(socket), conn } = &mut lent else { return Action::Continue };
    call(socket, conn)
}

/// A WebSocket on the way: it comes back even if its handler panics, since it is told the end.
struct Lent<'l, 'a, H: WebSocketHandler> {
    conn: &'l mut ClientConn<'a, H>,
    socket: Option<Box<WebSocket<H>>>,
}

impl<H: WebSocketHandler> Drop for Lent<'_, '_, H> {
    fn drop(&mut self) {
        self.conn.state.socket = self.socket.take();
    }
}

fn read<H: WebSocketHandler>(socket: &mut WebSocket<H>, conn: &mut ClientConn<'_, H>) -> Action {
    let mut buffers = BUFFERS.take().unwrap_or_default();
    let read = socket.link().codec.decode(&mut conn.input, &mut buffers);
    let action = socket.received(conn, read);
    BUFFERS.set(Some(buffers));
    action
}

impl<H: WebSocketHandler> FrameHandler for WebSocketConnector<H> {
    type Codec = Unread;
    type State = ConnectorState<H>;

    fn codec(&self) -> Unread {
        Unread::default()
    }

    fn on_frame(&mut self, conn: &mut FramedConn<'_, Self>, (): ()) -> Action {
        let before = conn.input.len();
        let action = match conn.state.socket {
            Some(_) => tell(conn, read),
            None => shake(conn),
        };
        if conn.input.len() != before
            && let Some(codec) = conn.split().0.codec
        {
            codec.offered = 0;
        }
        action
    }

    fn on_low_water(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        tell(conn, |socket, conn| socket.low_water(conn))
    }

    fn on_timer(&mut self, conn: &mut FramedConn<'_, Self>, timer: TimerId, value: u64) -> Action {
        match conn.state.shaking.take_if(|shaking| shaking.timer == timer) {
            Some(shaking) => {
                let timeout = shaking.timeout;
                fail(conn, *shaking, &WebSocketConnectError::TimedOut { timeout })
            }
            None => tell(conn, |socket, conn| socket.timer(conn, timer, value)),
        }
    }

    fn on_closing(&mut self, conn: &mut FramedConn<'_, Self>, reason: &CloseReason) {
        if let Some(shaking) = conn.state.shaking.take() {
            let reason = reason.to_string();
            let _ = fail(conn, *shaking, &WebSocketConnectError::Lost { reason });
        }
        let _ = tell(conn, |socket, conn| {
            socket.closing(conn, reason);
            Action::Continue
        });
    }

    fn on_shutdown(&mut self, _reactor: &mut FramedReactor<'_, Self>) -> ShutdownAction {
        ShutdownAction::Drain
    }

    fn on_drain(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        match conn.state.socket {
            Some(_) => tell(conn, |socket, conn| socket.call(conn, H::on_drain)),
            None => Action::Close,
        }
    }
}

impl<H: WebSocketHandler> SocketConn for ClientConn<'_, H> {
    fn id(&self) -> ConnId {
        self.id()
    }

    fn now(&self) -> Instant {
        self.now()
    }

    fn peer_addr(&self) -> Address {
        self.peer_addr()
    }

    fn with_output(&mut self, write: &mut dyn FnMut(&mut Output<'_>)) {
        write(&mut self.output);
    }

    fn set_timer(&mut self, after: Duration, value: u64) -> TimerId {
        self.set_timer(after, value)
    }

    fn cancel_timer(&mut self, timer: TimerId) {
        self.cancel_timer(timer);
    }

    fn reset(&mut self) {
        self.reset();
    }

    fn pause_reading(&mut self) {
        self.pause_reading();
    }

    fn resume_reading(&mut self) {
        self.resume_reading();
    }
}

impl<H: WebSocketHandler> Carrier<H> for ClientConn<'_, H> {
    fn way(&mut self) -> Arc<dyn Way<H>> {
        Arc::new(self.remote())
    }

    fn plain(&mut self) -> &mut dyn SocketConn {
        self
    }
}

impl<H: WebSocketHandler> Way<H> for FramedRemote<WebSocketConnector<H>> {
    fn deliver(&self, message: PreparedMessage, permit: Permit) -> Result<(), Closed> {
        self.run(move |_, conn| {
            tell(conn, |socket, conn| {
                socket.link().deliver(conn, message, permit);
                Action::Continue
            })
        })
    }

    fn run(&self, task: Task<H>) -> Result<(), Closed> {
        self.run(move |_, conn| tell(conn, |socket, conn| task(socket, conn)))
    }
}

impl<H> fmt::Debug for WebSocketConnector<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketConnector").finish_non_exhaustive()
    }
}
