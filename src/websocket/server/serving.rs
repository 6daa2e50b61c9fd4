//! WebSockets on connections that HTTP handed over.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::http::{Protocol, ProtocolConn, ProtocolRemote};
use crate::websocket::backlog::Permit;
use crate::websocket::buffers::MessageBuffers;
use crate::websocket::carrier::{Carrier, SocketConn, Task, Way};
use crate::websocket::handler::WebSocketHandler;
use crate::websocket::prepared::PreparedMessage;
use crate::websocket::socket::WebSocket;
use crate::{Action, Address, CloseReason, Closed, ConnId, Output, TimerId};

thread_local! {
    /// Those of all connections of a reactor.
    static BUFFERS: Cell<Option<Box<MessageBuffers>>> = const { Cell::new(None) };
}

impl<H: WebSocketHandler> Protocol for WebSocket<H> {
    fn on_open(&mut self, conn: &mut ProtocolConn<'_, '_, Self>) -> Action {
        self.opened(conn)
    }

    #[inline]
    fn on_bytes(&mut self, conn: &mut ProtocolConn<'_, '_, Self>) -> Action {
        let mut buffers = BUFFERS.take().unwrap_or_default();
        let read = self.link().codec.decode(conn.input(), &mut buffers);
        let action = self.received(conn, read);
        BUFFERS.set(Some(buffers));
        action
    }

    fn on_low_water(&mut self, conn: &mut ProtocolConn<'_, '_, Self>) -> Action {
        self.low_water(conn)
    }

    fn on_timer(
        &mut self,
        conn: &mut ProtocolConn<'_, '_, Self>,
        timer: TimerId,
        value: u64,
    ) -> Action {
        self.timer(conn, timer, value)
    }

    fn on_drain(&mut self, conn: &mut ProtocolConn<'_, '_, Self>) -> Action {
        self.call(conn, H::on_drain)
    }

    fn on_closing(&mut self, conn: &mut ProtocolConn<'_, '_, Self>, reason: &CloseReason) {
        self.closing(conn, reason);
    }
}

impl<H: WebSocketHandler> SocketConn for ProtocolConn<'_, '_, WebSocket<H>> {
    fn id(&self) -> ConnId {
        self.id()
    }

    fn now(&self) -> Instant {
        self.now()
    }

    fn peer_addr(&self) -> Address {
        self.peer_addr()
    }

    #[inline]
    fn with_output(&mut self, write: &mut dyn FnMut(&mut Output<'_>)) {
        write(self.output());
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

impl<H: WebSocketHandler> Carrier<H> for ProtocolConn<'_, '_, WebSocket<H>> {
    fn way(&mut self) -> Arc<dyn Way<H>> {
        Arc::new(self.remote())
    }

    fn plain(&mut self) -> &mut dyn SocketConn {
        self
    }
}

impl<H: WebSocketHandler> Way<H> for ProtocolRemote<WebSocket<H>> {
    fn deliver(&self, message: PreparedMessage, permit: Permit) -> Result<(), Closed> {
        self.run(move |web_socket, conn| {
            web_socket.link().deliver(conn, message, permit);
            Action::Continue
        })
    }

    fn run(&self, task: Task<H>) -> Result<(), Closed> {
        self.run(move |web_socket, conn| task(web_socket, conn))
    }
}
