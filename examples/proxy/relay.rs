//! The relay: each client is relayed to its own connection to the upstream, and back.

use std::error::Error;

use millstream::{Action, Conn, Connect, EventHandler, LogLimit, Remote};

/// Connects to the upstream for each client, and relays both ways.
pub(crate) struct Relay {
    /// How the upstream is reached.
    pub(crate) upstream: Connect,
}

impl EventHandler for Relay {
    type State = ();

    /// A client waits, unread, until there is somebody to relay it to.
    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        if conn.is_outgoing() {
            return Action::Continue;
        }
        conn.pause_reading();
        let (client, reactor) = (conn.remote(), conn.id().reactor());
        let connect = self.upstream.clone();
        let connected =
            conn.reactors().connect(reactor, connect, move |_, _, connected| match connected {
                Ok(upstream) => pair(upstream, &client),
                Err(error) => {
                    static LIMIT: LogLimit = LogLimit::new();
                    if let Some(left_out) = LIMIT.admit() {
                        let error = &error as &dyn Error;
                        tracing::warn!(error, left_out, "a client is turned away");
                    }
                    turn_away(&client)
                }
            });
        if connected.is_err() {
            conn.reset();
        }
        Action::Continue
    }

    /// Nothing comes here: what is received is relayed, and before that nothing is.
    fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        Action::Continue
    }
}

/// Resets a client. An orderly end would look like an empty answer of the upstream.
fn turn_away(client: &Remote<Relay>) -> Action {
    // It may be gone already.
    let _ = client.run(|_, client| {
        client.reset();
        Action::Continue
    });
    Action::Continue
}

/// Relays both ways. A client that is gone by now leaves its upstream nowhere to relay to, which
/// closes it.
fn pair(upstream: &mut Conn<'_, Relay>, client: &Remote<Relay>) -> Action {
    let back = upstream.remote();
    let _ = client.run(move |_, client| client.relay_to(&back).into());
    upstream.relay_to(client).into()
}
