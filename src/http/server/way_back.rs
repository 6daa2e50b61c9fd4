//! The way back to a connection, from any thread.

use super::exchange::Handler;
use super::serving::HttpServing;
use crate::codec::FramedRemote;
use crate::http::response::OwnedResponse;
use crate::ConnId;

/// The way back to a connection, whatever the server's handler is.
pub(super) trait WayBack: Send + Sync {
    fn id(&self) -> ConnId;

    fn is_open(&self) -> bool;

    /// Lets the reactor look at the pieces of contents.
    fn look(&self);

    /// Brings the answer to a request. If the connection is closed, nobody waits.
    fn answer(&self, id: u64, response: OwnedResponse);
}

impl<H: Handler> WayBack for FramedRemote<HttpServing<H>> {
    fn id(&self) -> ConnId {
        self.id()
    }

    fn is_open(&self) -> bool {
        self.is_open()
    }

    fn look(&self) {
        let _ = self.run(|serving, conn| serving.look(conn)); // If it closes, its contents do.
    }

    fn answer(&self, id: u64, response: OwnedResponse) {
        let _ = self.run(move |serving, conn| serving.answer(conn, id, response));
    }
}
