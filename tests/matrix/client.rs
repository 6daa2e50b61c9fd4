//! The clients of a case: connections of an engine that does not listen.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, channel};

use millstream::{Action, Address, CloseReason, Conn, Connect, Engine, EventHandler, Reactors};

use socket2::{Domain, Socket, Type};

use super::{Case, Origin};
use crate::common::{TestEngine, assert_same, pattern, receive};

/// How many clients each address has.
const CLIENTS: usize = 10;
/// How many bytes a client sends on a stream.
const STREAM: usize = 1024 * 1024;

/// An engine of clients.
pub(crate) struct Clients {
    engine: TestEngine,
    origin: Origin,
    done: Receiver<u64>,
}

impl Clients {
    pub(crate) fn start(case: &Case) -> Self {
        let (tell, done) = channel();
        // It sends everything before it reads anything; both sides would wait for each other.
        let builder = Engine::builder().reactors(case.reactors).pause_reading_at_high_water(false);
        let engine = TestEngine::start_exactly(builder, move |_| Client { done: tell.clone() });
        Clients { engine, origin: case.origin, done }
    }

    /// Has all clients send and compare what comes back.
    pub(crate) fn converse(&self, server: &Engine) {
        let addresses = server.local_addrs();
        for (place, address) in addresses.iter().enumerate() {
            for number in 0..CLIENTS {
                self.begin(address, (place * CLIENTS + number) as u64);
            }
        }
        let mut seeds: Vec<u64> =
            (0..addresses.len() * CLIENTS).map(|_| receive(&self.done)).collect();
        seeds.sort_unstable();
        let all: Vec<u64> = (0..seeds.len() as u64).collect();
        assert_eq!(seeds, all, "each client is done once");
    }

    fn begin(&self, address: &Address, seed: u64) {
        let reactors: Reactors<Client> =
            self.engine.reactors().expect("it is the engine's handler");
        let reactor = seed as usize % reactors.len();
        let begun = match self.origin {
            Origin::Dialled => reactors.connect(reactor, Connect::to(*address), move |_, conn| {
                send(conn.expect("it listens"), seed)
            }),
            Origin::Adopted => reactors.adopt(reactor, connect(address), move |_, conn| {
                send(conn.expect("it is connected"), seed)
            }),
        };
        begun.expect("the engine runs");
    }
}

/// A socket that the engine has nothing to do with yet.
fn connect(address: &Address) -> OwnedFd {
    let domain = address.socket_addr().map_or(Domain::UNIX, Domain::for_address);
    let socket = Socket::new(domain, Type::STREAM, None).expect("there are descriptors");
    let address = address.to_sock_addr().expect("it is an address");
    socket.connect(&address).expect("it listens");
    socket.into()
}

/// Sends a client's bytes.
fn send(conn: &mut Conn<'_, Client>, seed: u64) -> Action {
    conn.state.seed = seed;
    conn.state.expected = pattern(STREAM, seed);
    conn.output.write(&conn.state.expected);
    Action::Continue
}

struct Client {
    done: Sender<u64>,
}

#[derive(Default)]
struct State {
    seed: u64,
    expected: Vec<u8>,
    compared: usize,
}

impl EventHandler for Client {
    type State = State;

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let bytes = conn.input.take_all();
        let end = conn.state.compared + bytes.len();
        assert_same(bytes, &conn.state.expected[conn.state.compared..end]);
        conn.state.compared = end;
        if end == STREAM { Action::Close } else { Action::Continue }
    }

    fn on_close(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        if conn.state.compared == STREAM && matches!(reason, CloseReason::Local) {
            let _ = self.done.send(conn.state.seed); // A failed case doesn't wait.
        }
    }
}
