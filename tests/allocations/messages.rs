//! In the steady state the engine allocates nothing from the heap, whatever the size and the number
//! of the messages: not for a datagram, not for a message that is echoed at once, not for one that
//! comes in parts, not for deadlines or timers. Clients use buffers that are prepared before.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use crate::ALLOCATOR;
use crate::common::alone::alone;
use crate::common::{DEADLINE, TestEngine, pattern};
use millstream::{Action, Builder, Conn, Engine, EventHandler, TimerId};
use stats_alloc::Region;

/// After this many equal rounds in a row without an allocation the steady state is shown. The first
/// rounds fill the pools up to what their load needs at a time.
const QUIET_ROUNDS: usize = 3;
/// It has to come within this many rounds.
const ROUNDS: usize = 15;

/// Repeats a round until it allocates nothing any more.
fn assert_steady_state(case: &str, messages: usize, mut round: impl FnMut()) {
    let mut allocated = [0; ROUNDS];
    for number in 0..ROUNDS {
        let region = Region::new(ALLOCATOR);
        round();
        let change = region.change();
        allocated[number] = change.allocations + change.reallocations;
        let last = &allocated[(number + 1).saturating_sub(QUIET_ROUNDS)..=number];
        if last.len() == QUIET_ROUNDS && last.iter().all(|count| *count == 0) {
            return;
        }
    }
    let per_message = *allocated.last().expect("a round") as f64 / messages as f64;
    panic!(
        "{case}: {per_message:.3} allocations per message, in rounds of {messages} messages \
         which allocated {allocated:?}"
    );
}

#[test]
fn the_steady_state_allocates_nothing() {
    alone(|| {
        let timeouts = |builder: Builder| {
            let timeout = Duration::from_secs(60);
            builder.idle_timeout(timeout).read_timeout(timeout).write_timeout(timeout)
        };
        for connections in [1, 100] {
            for kind in ["no timeouts", "timeouts"] {
                let builder = || {
                    let builder = Engine::builder().reactors(2);
                    if kind == "timeouts" { timeouts(builder) } else { builder }
                };
                for size in [64, 1024, 64 * 1024] {
                    for in_flight in [1, 16] {
                        let load = Load { connections, size, in_flight };
                        echo_whole_messages(builder(), kind, load);
                    }
                }
                echo_messages_in_parts(builder(), kind, connections);
            }
        }
        echo_datagrams();
    });
}

// --- messages that come whole --------------------------------------------------------------------

#[derive(Clone, Copy, Debug)]
struct Load {
    connections: usize,
    /// Of a message, in bytes.
    size: usize,
    in_flight: usize,
}

impl Load {
    /// How many messages each connection sends in a round: enough to find what happens seldom.
    fn messages(self) -> usize {
        let most = (16 << 20) / self.size / self.connections;
        (2_000 / self.connections).min(most).max(self.in_flight)
    }
}

/// A client that neither blocks nor allocates.
struct Client {
    stream: TcpStream,
    sent: usize,
    received: usize,
}

/// What one round exchanges.
struct Exchange<'a> {
    message: &'a [u8],
    /// Bytes in total, and in flight at most.
    total: usize,
    window: usize,
    buffer: &'a mut [u8],
}

fn echo_whole_messages(builder: Builder, kind: &str, load: Load) {
    let engine = TestEngine::echo(builder);
    let mut clients: Vec<_> = (0..load.connections)
        .map(|_| {
            let stream = engine.connect();
            stream.set_nonblocking(true).expect("a socket can");
            Client { stream, sent: 0, received: 0 }
        })
        .collect();
    let (message, mut buffer) = (pattern(load.size, 1), vec![0; load.size]);
    let case = format!("{load:?}, {kind}");
    assert_steady_state(&case, load.messages() * load.connections, || {
        let exchange = Exchange {
            message: &message,
            total: load.messages() * load.size,
            window: load.in_flight * load.size,
            buffer: &mut buffer,
        };
        exchange.run(&mut clients);
    });
}

impl Exchange<'_> {
    /// Serves the clients in turn until each has sent and got back everything.
    fn run(mut self, clients: &mut [Client]) {
        let mut last_moved = Instant::now();
        for client in &mut *clients {
            (client.sent, client.received) = (0, 0);
        }
        while clients.iter().any(|client| client.received < self.total) {
            let mut moved = 0;
            for client in &mut *clients {
                moved += self.send(client) + self.receive(client);
            }
            if moved > 0 {
                last_moved = Instant::now();
            } else {
                assert!(last_moved.elapsed() < DEADLINE, "nothing came within {DEADLINE:?}");
                thread::yield_now();
            }
        }
    }

    /// Sends the rest of a message, if the window allows it; returns how many bytes went.
    fn send(&self, client: &mut Client) -> usize {
        let allowed = self.total.min(client.received + self.window) - client.sent;
        let rest = &self.message[client.sent % self.message.len()..];
        let rest = &rest[..rest.len().min(allowed)];
        let sent = if rest.is_empty() { 0 } else { unless_blocked(client.stream.write(rest)) };
        client.sent += sent;
        sent
    }

    /// Receives and compares; returns how many bytes came.
    fn receive(&mut self, client: &mut Client) -> usize {
        let expected = &self.message[client.received % self.message.len()..];
        let room = &mut self.buffer[..expected.len()];
        let came = unless_blocked(client.stream.read(room));
        assert!(room[..came] == expected[..came], "the echo differs");
        client.received += came;
        came
    }
}

fn unless_blocked(moved: std::io::Result<usize>) -> usize {
    match moved {
        Ok(moved) => moved,
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        Err(error) => panic!("{error}"),
    }
}

// --- messages that come in parts -----------------------------------------------------------------

const FRAME: usize = 1000;
/// Says that the first part has begun to come.
const PART: &[u8] = b"p";

/// Echoes frames of [`FRAME`] bytes. What is not a frame yet stays unread, which takes a ring, and
/// sets a deadline and a timer, which the rest cancels.
struct Frames;

impl EventHandler for Frames {
    type State = Option<TimerId>;

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        while let Some(frame) = conn.input.take(FRAME) {
            conn.output.write(frame);
            conn.set_read_timeout(None);
            if let Some(timer) = conn.state.take() {
                assert!(conn.cancel_timer(timer));
            }
        }
        // A part can come in two, where a turn's read budget ends in it.
        if !conn.input.is_empty() && conn.state.is_none() {
            conn.output.write(PART);
            conn.set_read_timeout(Duration::from_secs(60));
            let timer = conn.set_timer(Duration::from_secs(30), 0);
            assert!(conn.reset_timer(timer, Duration::from_secs(60)));
            *conn.state = Some(timer);
        }
        Action::Continue
    }
}

fn echo_messages_in_parts(builder: Builder, kind: &str, connections: usize) {
    let engine = TestEngine::start(builder, |_| Frames);
    let mut clients: Vec<_> = (0..connections).map(|_| engine.connect()).collect();
    let (frame, mut buffer) = (pattern(FRAME, 2), vec![0; FRAME]);
    let (head, tail) = frame.split_at(300);
    let repeats = 500 / connections;
    let case = format!("messages in parts, {connections} connections, {kind}");
    assert_steady_state(&case, repeats * connections, || {
        for _ in 0..repeats {
            for (part, answer) in [(head, PART), (tail, &frame)] {
                clients.iter_mut().for_each(|client| client.write_all(part).expect("it reads"));
                for client in &mut clients {
                    let buffer = &mut buffer[..answer.len()];
                    client.read_exact(buffer).expect("it answers");
                    assert!(buffer == answer, "the answer differs");
                }
            }
        }
    });
}

// --- datagrams -----------------------------------------------------------------------------------

fn echo_datagrams() {
    // No more than the socket's receive buffer has room for.
    const CLIENTS: usize = 10;
    const IN_FLIGHT: usize = 5;
    for listen in ["udp://127.0.0.1:0", "udp4://0.0.0.0:0", "udp6://[::1]:0"] {
        let builder = Engine::builder().reactors(1).listen(listen);
        let engine = TestEngine::echo(builder);
        let address = engine.listeners()[0].local_addr().socket_addr().expect("it is UDP");
        let host = if address.is_ipv4() { "127.0.0.1" } else { "::1" };
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let socket = UdpSocket::bind((host, 0)).expect("there is a port");
                socket.connect((host, address.port())).expect("it is there");
                socket.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
                socket
            })
            .collect();
        for size in [64, 1024] {
            let (sent, mut received) = (pattern(size, 3), vec![0; size + 1]);
            let case = format!("datagrams of {size} bytes to {listen}");
            assert_steady_state(&case, CLIENTS * IN_FLIGHT, || {
                for client in &clients {
                    (0..IN_FLIGHT).for_each(|_| {
                        client.send(&sent).expect("it can be sent");
                    });
                }
                for client in &clients {
                    (0..IN_FLIGHT).for_each(|_| {
                        let len = client.recv(&mut received).expect("it is echoed");
                        assert!(received[..len] == sent, "the echo differs");
                    });
                }
            });
        }
    }
}
