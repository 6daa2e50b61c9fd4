//! The clients of a case: connections of an engine that does not listen.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, channel};

use millstream::{
    Action, Address, CloseReason, Conn, Connect, Datagram, DatagramId, DatagramSocket, Engine,
    EventHandler, OpenDatagram, Reactor, Reactors, UnixAddress,
};

use socket2::{Domain, Socket, Type};

use super::{Carrier, Case, Origin};
use crate::common::tls::IDENTITY;
use crate::common::{TestEngine, assert_same, pattern, receive};

/// How many clients each address has.
const CLIENTS: usize = 10;
/// How many bytes a client sends on a stream.
const STREAM: usize = 1024 * 1024;
/// How many bytes a client sends in datagrams, of which one is on its way at a time.
const DATAGRAMS: usize = 32 * DATAGRAM;
const DATAGRAM: usize = 1024;

/// An engine of clients.
pub(crate) struct Clients {
    engine: TestEngine,
    origin: Origin,
    carriers: Vec<Carrier>,
    done: Receiver<u64>,
}

impl Clients {
    pub(crate) fn start(case: &Case) -> Self {
        let (tell, done) = channel();
        // It sends everything before it reads anything; both sides would wait for each other.
        let builder = Engine::builder().reactors(case.reactors).pause_reading_at_high_water(false);
        let engine = TestEngine::start_exactly(builder, move |_| Client {
            done: tell.clone(),
            datagrams: HashMap::new(),
        });
        Clients { engine, origin: case.origin, carriers: case.carriers.clone(), done }
    }

    /// Makes all clients send and compare what comes back.
    pub(crate) fn converse(&self, server: &Engine) {
        let listeners = server.listeners();
        assert_eq!(listeners.len(), self.carriers.len());
        for (place, (listener, carrier)) in listeners.iter().zip(&self.carriers).enumerate() {
            for number in 0..CLIENTS {
                let seed = (place * CLIENTS + number) as u64;
                if listener.transport().is_stream() {
                    self.begin_stream(listener.local_addr(), *carrier, seed);
                } else {
                    self.begin_datagrams(listener.local_addr(), seed);
                }
            }
        }
        let mut seeds: Vec<u64> =
            (0..listeners.len() * CLIENTS).map(|_| receive(&self.done)).collect();
        seeds.sort_unstable();
        let all: Vec<u64> = (0..seeds.len() as u64).collect();
        assert_eq!(seeds, all, "each client is done once");
    }

    fn begin_stream(&self, address: Address, carrier: Carrier, seed: u64) {
        let (reactors, reactor) = self.reactor(seed);
        let begun = match self.origin {
            Origin::Dialled => {
                let mut connect = Connect::to(address);
                if carrier == Carrier::Tls {
                    connect = connect.tls(&IDENTITY.client);
                }
                reactors.connect(reactor, connect, move |_, _, conn| {
                    let conn = conn.expect("it listens");
                    assert_eq!(conn.tls().is_some(), carrier == Carrier::Tls);
                    send(conn, seed)
                })
            }
            Origin::Adopted => {
                let socket = connect(address, Type::STREAM);
                reactors.adopt(reactor, socket, move |_, _, conn| {
                    send(conn.expect("it is connected"), seed)
                })
            }
        };
        begun.expect("the engine runs");
    }

    fn begin_datagrams(&self, address: Address, seed: u64) {
        let (reactors, reactor) = self.reactor(seed);
        let begin = move |client: &mut Client,
                          _: &mut Reactor<'_, Client>,
                          socket: Result<&mut DatagramSocket<'_, Client>, _>| {
            client.begin(socket.expect("it can be opened"), seed)
        };
        let begun = match self.origin {
            Origin::Dialled => reactors.open_datagram(reactor, OpenDatagram::to(address), begin),
            Origin::Adopted => {
                reactors.adopt_datagram(reactor, connect(address, Type::DGRAM), begin)
            }
        };
        begun.expect("the engine runs");
    }

    /// The reactor of a client.
    fn reactor(&self, seed: u64) -> (Reactors<Client>, usize) {
        let reactors: Reactors<Client> =
            self.engine.reactors().expect("it is the engine's handler");
        let reactor = seed as usize % reactors.len();
        (reactors, reactor)
    }
}

/// A socket that the engine has nothing to do with yet.
fn connect(address: Address, kind: Type) -> OwnedFd {
    let domain = address.socket_addr().map_or(Domain::UNIX, Domain::for_address);
    let socket = Socket::new(domain, kind, None).expect("there are descriptors");
    if (domain, kind) == (Domain::UNIX, Type::DGRAM) {
        // With a name that the system chooses, to be answered at.
        socket
            .bind(&Address::Unix(UnixAddress::UNNAMED).to_sock_addr().expect("it is one"))
            .expect("it has one");
    }
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
    /// What is compared on each socket for datagrams.
    datagrams: HashMap<DatagramId, State>,
}

impl Client {
    fn begin(&mut self, socket: &mut DatagramSocket<'_, Self>, seed: u64) -> Action {
        let expected = pattern(DATAGRAMS, seed);
        let sent = socket.send(&expected[..DATAGRAM]);
        self.datagrams.insert(socket.id(), State { seed, expected, compared: 0 });
        sent.into()
    }
}

#[derive(Default)]
struct State {
    seed: u64,
    expected: Vec<u8>,
    compared: usize,
}

impl EventHandler for Client {
    const TAKES_DATAGRAMS: bool = true;

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

    fn on_datagram(
        &mut self,
        socket: &mut DatagramSocket<'_, Self>,
        datagram: Datagram<'_>,
    ) -> Action {
        let state = self.datagrams.get_mut(&socket.id()).expect("it has sent");
        let end = state.compared + datagram.bytes.len();
        assert_same(datagram.bytes, &state.expected[state.compared..end]);
        state.compared = end;
        if end == DATAGRAMS {
            let _ = self.done.send(state.seed);
            return Action::Close;
        }
        match end % DATAGRAM {
            0 => socket.send(&state.expected[end..end + DATAGRAM]).into(),
            _ => Action::Continue,
        }
    }
}
