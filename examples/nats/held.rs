//! What a connection waits for.

use std::sync::Arc;

use millstream::{Conn, Remote};

use crate::broker::{Broker, Wait};
use crate::protocol::Reply;

/// Holds a connection: none of its operations is served until this is dropped, on whatever reactor.
pub struct Held(Remote<Broker>);

impl Held {
    /// Holds a connection, which then is sent a reply.
    pub fn of(conn: &mut Conn<'_, Broker>, reply: Option<Reply<'static>>) -> Arc<Self> {
        conn.state.waits = Some(Wait::Held { reply });
        conn.pause_reading();
        Arc::new(Held(conn.remote()))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // A connection that is closing has no more operations.
        let _ = self.0.run(Broker::go_on);
    }
}
