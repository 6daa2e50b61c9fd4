//! The relay: two connections of one reactor, each of which passes on what the other one received.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use millstream::{
    Action, Builder, Bytes, CloseReason, Conn, Connect, Engine, EventHandler, Remote,
};

/// How many bytes of one side may be on their way to the other before reading pauses.
pub(crate) const WINDOW: usize = 256 * 1024;

/// The options that relaying needs: how much waits to be sent to one side is no reason to stop reading from
/// that same side, which might be what it waits for.
pub(crate) fn builder() -> Builder {
    Engine::builder().pause_reading_at_high_water(false)
}

/// Connects to the upstream for each client, and relays both ways.
pub(crate) struct Relay {
    /// Where the upstream listens.
    pub(crate) upstream: SocketAddr,
}

/// One side of a pair.
#[derive(Default)]
pub(crate) struct Side {
    /// The pair's other side, once there is one.
    other: Arc<OnceLock<Remote<Relay>>>,
    /// How many bytes of this side the other one has not sent yet.
    in_flight: usize,
}

impl EventHandler for Relay {
    type State = Side;

    /// A client waits, unread, until there is somebody to pass its bytes on to.
    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        if conn.is_outgoing() {
            return Action::Continue;
        }
        conn.pause_reading();
        let (client, other) = (conn.remote(), Arc::clone(&conn.state.other));
        let (reactor, upstream) = (conn.id().reactor(), Connect::to(self.upstream));
        let connected = conn.reactors().connect(reactor, upstream, move |_, connected| {
            match connected {
                Ok(upstream) => pair(upstream, &client, &other),
                Err(error) => {
                    tracing::warn!(%error, "a client is turned away");
                    let _ = client.close(); // It may be gone already.
                    Action::Continue
                }
            }
        });
        connected.into()
    }

    /// Passes bytes on, and reads no more while too many are on their way.
    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let Some(other) = conn.state.other.get().cloned() else { return Action::Continue };
        let bytes = Bytes::copy_from_slice(conn.input.take_all());
        let len = bytes.len();
        conn.state.in_flight += len;
        if conn.state.in_flight >= WINDOW {
            conn.pause_reading();
        }
        let this = conn.remote();
        other.write_then(bytes, move |_| {
            // If either side is closed, there is nobody left to read from.
            let _ = this.run(move |_, conn| {
                conn.state.in_flight -= len;
                if conn.state.in_flight <= WINDOW / 2 {
                    conn.resume_reading();
                }
                Action::Continue
            });
        });
        Action::Continue
    }

    /// Ends the other side behind the bytes that were passed on. The opposite direction goes on.
    fn on_end(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let Some(other) = conn.state.other.get() else { return Action::Close };
        let ended = other.run(|_, conn| {
            conn.shutdown();
            Action::Continue
        });
        ended.into()
    }

    /// Closes the other side once it has sent what was passed on. Where both directions came to their
    /// end, it closes by itself.
    fn on_close(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        if let Some(other) = conn.state.other.get()
            && !matches!(reason, CloseReason::Peer)
        {
            let _ = other.close(); // It may be closed already.
        }
    }
}

/// Makes a pair. If the client is gone by now, its upstream goes, too.
fn pair(
    upstream: &mut Conn<'_, Relay>,
    client: &Remote<Relay>,
    other: &OnceLock<Remote<Relay>>,
) -> Action {
    let _ = other.set(upstream.remote()); // It is empty: a client connects once.
    let _ = upstream.state.other.set(client.clone());
    let resumed = client.run(|_, client| {
        client.resume_reading();
        Action::Continue
    });
    resumed.into()
}
