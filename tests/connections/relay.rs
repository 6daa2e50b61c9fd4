//! Relaying: what one connection receives goes out on another one of its reactor.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread;

use crate::common::{
    DEADLINE, TestEngine, assert_same, end, eventually, pattern, read_exactly, read_to_end,
    receive, reset,
};
use millstream::{
    Action, Builder, CloseReason, Conn, Connect, Engine, EventHandler, OtherReactor, Reactor,
    ReactorAction, Remote,
};
use socket2::SockRef;

/// Relays each connection to a new one and back.
struct Relay {
    upstream: SocketAddr,
    /// What is given the clients' handles.
    clients: Sender<Remote<Relay>>,
}

impl EventHandler for Relay {
    type State = ();

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        if conn.is_outgoing() {
            return Action::Continue;
        }
        let client = conn.remote();
        let _ = self.clients.send(client.clone()); // Most tests want none.
        let reactor = conn.id().reactor();
        let connect = Connect::to(self.upstream).timeout(DEADLINE);
        let begun = conn.reactors().connect(reactor, connect, move |_, _, server| {
            let Ok(server) = server else { return Action::Continue };
            let back = server.remote();
            server.relay_to(&client).expect("they have one reactor");
            client.run(move |_, client| client.relay_to(&back).into()).into()
        });
        conn.pause_reading();
        begun.into()
    }

    fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        unreachable!("what is relayed comes to no handler")
    }

    fn on_end(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        unreachable!("the end of what is relayed comes to no handler")
    }
}

/// A relay, and a peer on either side of it.
struct Stand {
    engine: TestEngine,
    listener: TcpListener,
    clients: Receiver<Remote<Relay>>,
}

impl Stand {
    fn start(builder: Builder) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
        let upstream = listener.local_addr().expect("it is bound");
        let (sender, clients) = channel();
        let engine =
            TestEngine::start(builder, move |_| Relay { upstream, clients: sender.clone() });
        Stand { engine, listener, clients }
    }

    fn connect(&self) -> (TcpStream, TcpStream) {
        let client = self.engine.connect();
        let (server, _) = self.listener.accept().expect("the engine connects");
        server.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
        server.set_write_timeout(Some(DEADLINE)).expect("a socket has timeouts");
        (client, server)
    }

    fn closed(&self, reason: &str) -> u64 {
        let place = CloseReason::NAMES.iter().position(|name| *name == reason).expect("it is one");
        self.engine.stats().reactors.iter().map(|reactor| reactor.closed[place]).sum()
    }
}

/// Sends bytes in pieces from its own thread, and then ends.
fn send(mut stream: TcpStream, bytes: Vec<u8>, piece: usize) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for piece in bytes.chunks(piece) {
            stream.write_all(piece).expect("the relay reads");
        }
        end(&stream);
    })
}

/// Whether they come in pieces or in streams, bytes arrive as they were sent, in both directions at
/// once, and so does the end of each.
#[test]
fn both_directions_are_relayed_to_the_last_byte_and_so_are_their_ends() {
    let stand = Stand::start(Engine::builder().reactors(2));
    for (seed, (len, piece)) in
        [(1, 1), (5000, 7), (3_000_000, 100_000), (8 << 20, 1 << 20)].into_iter().enumerate()
    {
        let (client, server) = stand.connect();
        let (request, reply) = (pattern(len, seed as u64), pattern(len, !seed as u64));
        let senders = [(&client, &request), (&server, &reply)].map(|(stream, bytes)| {
            send(stream.try_clone().expect("there are descriptors"), bytes.clone(), piece)
        });
        let reader = {
            let mut server = server.try_clone().expect("there are descriptors");
            thread::spawn(move || read_to_end(&mut server))
        };
        assert_same(&read_to_end(&mut &client), &reply);
        assert_same(&reader.join().expect("the relay ends"), &request);
        for sender in senders {
            sender.join().expect("it was read");
        }
    }
    eventually("all is closed", || stand.engine.connections() == 0);
    assert_eq!(stand.closed("peer"), 8);
}

/// F12 of the fault checklist: a fast sender and a slow reader.
#[test]
fn a_slow_reader_slows_the_sender_down_and_loses_nothing() {
    const LEN: usize = 32 << 20;
    let stand = Stand::start(Engine::builder().reactors(1));
    let (client, mut server) = stand.connect();
    let bytes = pattern(LEN, 9);
    let sender = send(client.try_clone().expect("there are descriptors"), bytes.clone(), 1 << 20);
    // Nobody reads, so the sender is stopped: no more than the sockets hold is on its way.
    let taken = || stand.engine.stats().reactors[0].bytes_in;
    let mut before = u64::MAX;
    eventually("the sender is stopped", || {
        // sleep: nothing is to happen meanwhile.
        thread::sleep(std::time::Duration::from_millis(100));
        let now = taken();
        std::mem::replace(&mut before, now) == now
    });
    assert!(taken() < LEN as u64, "nothing stopped the sender");
    let stats = stand.engine.stats();
    assert!(stats.reactors[0].output_queues_leased <= 1, "{stats:?}");
    assert_same(&read_exactly(&mut server, LEN), &bytes);
    sender.join().expect("it was read");
    end(&server);
    assert_eq!(read_to_end(&mut &client), b"");
}

#[test]
fn a_reset_on_one_side_is_a_reset_on_the_other() {
    let stand = Stand::start(Engine::builder().reactors(1));
    let (mut client, server) = stand.connect();
    client.write_all(b"hello").expect("it reads");
    assert_eq!(read_exactly(&mut &server, 5), b"hello");
    reset(server);
    let error = client.read(&mut [0; 1]).expect_err("it is not an orderly end");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    eventually("both are closed", || stand.engine.connections() == 0);
    assert_eq!((stand.closed("failed"), stand.closed("relay")), (1, 1));
}

/// The side that breaks is found out by sending, while the other one's bytes go on coming.
#[test]
fn a_reset_is_passed_on_to_whoever_is_sending() {
    let stand = Stand::start(Engine::builder().reactors(1));
    for _ in 0..20 {
        let (mut client, mut server) = stand.connect();
        client.write_all(b"hello").expect("it reads");
        assert_eq!(read_exactly(&mut server, 5), b"hello"); // So the two are a pair.
        let sender = {
            let mut client = client.try_clone().expect("there are descriptors");
            thread::spawn(move || client.write_all(&pattern(3_000_000, 7)))
        };
        reset(server);
        let sent = sender.join().expect("it does not panic");
        // The system tells it once, to the first that asks.
        let told = sent.and_then(|()| (&client).read(&mut [0; 1]));
        let error = told.expect_err("it is not an orderly end");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    eventually("all are closed", || stand.engine.connections() == 0);
}

#[test]
fn what_is_on_its_way_when_the_engine_stops_arrives() {
    let stand = Stand::start(Engine::builder().reactors(1));
    let (mut client, server) = stand.connect();
    client.write_all(b"hello").expect("it reads");
    assert_eq!(read_exactly(&mut &server, 5), b"hello");
    stand.engine.stop(DEADLINE).expect("the first stop");
    assert_eq!(read_to_end(&mut &server), b"");
    assert_eq!(read_to_end(&mut &client), b"");
}

/// A connection that leaves the engine leaves nothing to relay to.
#[test]
fn a_side_that_is_detached_ends_the_other() {
    let stand = Stand::start(Engine::builder().reactors(1));
    let (mut client, mut server) = stand.connect();
    client.write_all(b"hello").expect("it reads");
    assert_eq!(read_exactly(&mut server, 5), b"hello");
    let (sender, detached) = channel();
    let leaves = receive(&stand.clients).run(move |_, conn| {
        let then = move |_: &mut Relay, _: &mut Reactor<'_, Relay>, detached| {
            let _ = sender.send(detached); // The test may have failed.
            ReactorAction::Continue
        };
        conn.detach(then).into()
    });
    leaves.expect("it is open");
    let detached = receive(&detached);
    assert_eq!(read_to_end(&mut server), b"");
    drop(server);
    eventually("both are gone", || stand.engine.connections() == 0);
    assert_eq!((stand.closed("detached"), stand.closed("relay")), (1, 1));
    TcpStream::from(detached.socket).write_all(b"goodbye").expect("it is open");
    assert_eq!(read_to_end(&mut client), b"goodbye");
}

/// A connection of another engine, whose reactor has the same index, is told from the engine's own.
#[test]
fn a_connection_of_another_engine_is_refused() {
    let (sender, refused) = channel();
    let foreign: Arc<OnceLock<Remote<Foreign>>> = Arc::default();
    let engines = [(); 2].map(|()| {
        let (foreign, refused) = (Arc::clone(&foreign), sender.clone());
        let builder = Engine::builder().reactors(1);
        TestEngine::start(builder, move |_| Foreign {
            foreign: Arc::clone(&foreign),
            refused: refused.clone(),
        })
    });
    let mut clients = engines.each_ref().map(|engine| {
        let mut client = engine.connect();
        assert_eq!(read_exactly(&mut client, 5), b"hello");
        client
    });
    clients[1].write_all(b"go").expect("it reads");
    let error: OtherReactor = receive(&refused);
    assert!(error.to_string().ends_with("is not one of this engine's reactor 0"), "{error}");
    assert_eq!(read_to_end(&mut clients[1]), b"", "it goes on without relaying, and closes");
}

/// Relays to the first connection that any engine had.
struct Foreign {
    foreign: Arc<OnceLock<Remote<Foreign>>>,
    refused: Sender<OtherReactor>,
}

impl EventHandler for Foreign {
    type State = ();

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.foreign.get_or_init(|| conn.remote());
        conn.output.write(b"hello");
        Action::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let relayed = conn.relay_to(self.foreign.get().expect("it was first"));
        let Err(error) = relayed else { return Action::Continue };
        self.refused.send(error).expect("it is waited for");
        Action::Close
    }
}

/// Relays a connection to itself.
struct Mirror;

impl EventHandler for Mirror {
    type State = ();

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let own = conn.remote();
        conn.relay_to(&own).into()
    }
}

#[test]
fn a_connection_that_is_relayed_to_itself_echoes() {
    let engine = TestEngine::start(Engine::builder().reactors(1), |_| Mirror);
    let client = engine.connect();
    let bytes = pattern(1 << 20, 3);
    let sender = send(client.try_clone().expect("there are descriptors"), bytes.clone(), 1 << 16);
    assert_same(&read_to_end(&mut &client), &bytes);
    sender.join().expect("it was read");
}

/// A sandbox, or a system that has no such call: what would go inside the kernel is received and
/// sent.
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")
))] // As `common::denied`.
#[test]
fn relays_do_without_the_system_calls_that_move_bytes() {
    use crate::common::denied::{Call, deny};
    let bytes = pattern(1 << 20, 3);
    for call in [libc::SYS_splice, libc::SYS_pipe2] {
        for error in [libc::ENOSYS, libc::EPERM, libc::EACCES, libc::EINVAL, libc::EIO] {
            let engine = TestEngine::start(Engine::builder().reactors(1), |_| Mirror);
            let client = engine.connect();
            let denies =
                engine.reactors::<Mirror>().expect("it is the handler").run(0, move |_, _| {
                    deny(&[Call::any(call)], error);
                    ReactorAction::Continue
                });
            denies.expect("the engine runs");
            let sender = send(client.try_clone().expect("it is open"), bytes.clone(), 1 << 16);
            assert_same(&read_to_end(&mut &client), &bytes);
            sender.join().expect("it was read");
        }
    }
}

/// Bytes behind urgent data, and the end behind them, come through, also where all is there before
/// the first byte is relayed, and pieces are so large that they go inside the kernel.
#[test]
fn urgent_data_is_left_out_and_nothing_else() {
    let stand = Stand::start(Engine::builder().reactors(1));
    let (client, mut server) = stand.connect();
    let remote = receive(&stand.clients);
    // From here on it is relayed.
    (&client).write_all(b"hello").expect("it is taken");
    assert_eq!(read_exactly(&mut server, 5), b"hello");
    let pauses = |paused: bool| {
        let (sender, done) = channel();
        let ran = remote.run(move |_, conn| {
            match paused {
                true => conn.pause_reading(),
                false => conn.resume_reading(),
            }
            sender.send(()).expect("it is waited for");
            Action::Continue
        });
        ran.expect("it is open");
        receive(&done);
    };
    let bytes = pattern(60_000, 5);
    for last in [false, false, true] {
        pauses(true);
        let (before, behind) = bytes.split_at(20_000);
        (&client).write_all(before).expect("it is taken");
        SockRef::from(&client).send_out_of_band(b"!").expect("it is taken");
        (&client).write_all(behind).expect("it is taken");
        if last {
            end(&client);
        }
        pauses(false);
        assert_same(&read_exactly(&mut server, bytes.len()), &bytes);
    }
    assert_eq!(read_to_end(&mut server), b"");
    drop(server);
    assert_eq!(read_to_end(&mut &client), b"");
}
