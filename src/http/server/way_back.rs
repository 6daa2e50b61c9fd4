//! The way back to a connection, from any thread.

use bytes::Bytes;

use super::exchange::Handler;
use super::handover::tell_closure;
use super::responder::Leave;
use super::serving::HttpServing;
use super::upgrade::Visit;
use crate::codec::FramedRemote;
use crate::http::body::Look;
use crate::http::response::OwnedResponse;
use crate::{Action, Closed, ConnId};

/// The way back to a connection, whatever the server's handler is.
pub(super) trait WayBack: Look {
    fn id(&self) -> ConnId;

    fn is_open(&self) -> bool;

    /// Has an answer that gave way go on, in a later turn.
    fn go_on(&self);

    /// Brings the answer to a request. If the connection is closed, nobody waits.
    fn answer(&self, id: u64, response: OwnedResponse);

    /// Has `leave` wait with a request.
    fn watch(&self, id: u64, leave: Leave);

    // What is for a connection that was handed over.

    fn pending(&self) -> usize;

    fn write(&self, bytes: Bytes) -> Result<(), Closed>;

    fn write_then(&self, bytes: Bytes, done: Box<dyn FnOnce(Result<(), Closed>) + Send>);

    fn close(&self) -> Result<(), Closed>;

    fn close_now(&self) -> Result<(), Closed>;

    fn visit(&self, closure: Visit) -> Result<(), Closed>;
}

impl<H: Handler> Look for FramedRemote<HttpServing<H>> {
    fn look(&self) {
        let _ = self.run(|serving, conn| serving.look(conn)); // If it closes, its contents do.
    }
}

impl<H: Handler> WayBack for FramedRemote<HttpServing<H>> {
    fn id(&self) -> ConnId {
        self.id()
    }

    fn is_open(&self) -> bool {
        self.is_open()
    }

    fn go_on(&self) {
        let _ = self.run(|serving, conn| serving.take_turn(conn)); // As for `look`.
    }

    fn answer(&self, id: u64, response: OwnedResponse) {
        let _ = self.run(move |serving, conn| {
            if let Some(queue) = &mut conn.state.queue {
                queue.forget_leaves(id);
            }
            serving.answer(conn, id, response)
        });
    }

    fn watch(&self, id: u64, leave: Leave) {
        let _ = self.run(move |_, conn| {
            if let Some(queue) = &mut conn.state.queue {
                queue.watch(id, leave);
            }
            Action::Continue
        });
    }

    fn pending(&self) -> usize {
        self.pending()
    }

    fn write(&self, bytes: Bytes) -> Result<(), Closed> {
        self.write(bytes)
    }

    fn write_then(&self, bytes: Bytes, done: Box<dyn FnOnce(Result<(), Closed>) + Send>) {
        self.write_then(bytes, done);
    }

    fn close(&self) -> Result<(), Closed> {
        self.close()
    }

    fn close_now(&self) -> Result<(), Closed> {
        self.close_now()
    }

    fn visit(&self, closure: Visit) -> Result<(), Closed> {
        self.run(|_, conn| tell_closure(conn, closure))
    }
}
