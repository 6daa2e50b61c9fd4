//! Descriptors and wake-ups: what the engine's sockets are to the system, and who is woken for
//! them.
//!
//! Faults: F2 (a write fails while its descriptor could be used again), F3 (a duplicate of a
//! descriptor lives on), F14 (long connections amid short ones), F15 (several reactors, one
//! listener).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use crate::common::{
    DEADLINE, TestEngine, assert_same, end, eventually, pattern, read_exactly, receive, reset,
};
use millstream::balance::{LeastConnections, RoundRobin};
use millstream::{AcceptMode, Action, CloseReason, Conn, Engine, EventHandler};

// --- a write that fails --------------------------------------------------------------------------

/// What a connection begins with that is to be written to after its peer is gone.
const DOOMED: u8 = b'!';
/// The size of the engine's receive buffer: less than the doomed connection sends.
const RECEIVE_BUFFER: usize = 1024;

/// Echoes. A doomed connection's callback meets the test twice: before it writes, and when that has
/// failed.
#[derive(Clone)]
struct Late {
    arrived: Sender<()>,
    go_on: Arc<Mutex<Receiver<()>>>,
    over: Sender<(String, Vec<u8>)>,
}

impl Late {
    fn meet(&self) {
        let _ = self.arrived.send(()); // Nobody listens if the test has failed.
        let go_on = self.go_on.lock().expect("the callback that panics is the only one that meets");
        go_on.recv_timeout(DEADLINE).expect("the test lets it go on");
    }
}

impl EventHandler for Late {
    type State = Vec<u8>;

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let bytes = conn.input.take_all();
        conn.state.extend_from_slice(bytes);
        if conn.state[0] != DOOMED {
            conn.output.write(bytes);
            return Action::Continue;
        }
        self.meet();
        conn.output.write(&[0; 64 * 1024]); // This much is offered to the system at once.
        assert!(!conn.output.is_writable(), "the system has told that the peer is gone");
        self.meet();
        Action::Continue
    }

    /// A peer that ended its side may still be reset.
    fn on_end(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        if conn.state.first() == Some(&DOOMED) { Action::Continue } else { Action::Close }
    }

    fn on_close(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        let received = std::mem::take(conn.state);
        let _ = self.over.send((reason.to_string(), received)); // As in `meet`.
    }
}

/// F2 of the fault checklist: while a callback's write has failed and its connection is not closed
/// yet, other threads connect and accept. The newcomers have their own descriptors: they see their
/// own bytes and no others. From the old descriptor nothing more is read, although there is more.
#[test]
fn a_descriptor_whose_write_failed_is_not_another_connections_too() {
    for ended_before in [false, true] {
        let (send_arrived, arrived) = channel();
        let (go_on, receive_go_on) = channel();
        let (send_over, over) = channel();
        let handler = Late {
            arrived: send_arrived,
            go_on: Arc::new(Mutex::new(receive_go_on)),
            over: send_over,
        };
        let builder = Engine::builder().reactors(2).receive_buffer(RECEIVE_BUFFER);
        let handlers = Mutex::new(handler);
        let engine =
            TestEngine::start(builder, move |_| handlers.lock().expect("it is whole").clone());
        for round in 0..10 {
            // In turn: this one on reactor 0, which then waits for the test; those below on
            // reactor 1.
            let mut doomed = engine.connect();
            doomed.write_all(&[DOOMED; 8 * RECEIVE_BUFFER]).expect("it is taken");
            receive(&arrived);
            if ended_before {
                end(&doomed); // The error is another one then.
            }
            reset(doomed);
            go_on.send(()).expect("the callback waits");
            receive(&arrived);
            let mut newcomer = engine.connect();
            assert_own_echo(&mut newcomer, 2 * round);
            go_on.send(()).expect("the callback waits");
            let (reason, received) = receive(&over);
            assert!(reason.starts_with("failed"), "{reason}");
            assert_same(&received, &[DOOMED; RECEIVE_BUFFER]);
            assert_own_echo(&mut newcomer, 2 * round + 1);
            drop(newcomer);
            let (_, received) = receive(&over);
            let all = [message(2 * round), message(2 * round + 1)].concat();
            assert_same(&received, &all);
        }
        let panics: u64 = engine.stats().reactors.iter().map(|reactor| reactor.panics).sum();
        assert_eq!(panics, 0, "a callback's own checks failed");
    }
}

fn message(seed: u64) -> Vec<u8> {
    let mut message = pattern(10_000, seed);
    message[0] = 0;
    message
}

#[track_caller]
fn assert_own_echo(client: &mut TcpStream, seed: u64) {
    client.write_all(&message(seed)).expect("it is taken");
    assert_same(&read_exactly(client, 10_000), &message(seed));
}

// --- duplicates of descriptors -------------------------------------------------------------------

#[cfg(target_os = "linux")]
mod duplicates {
    use std::fs;
    use std::net::SocketAddr;
    use std::os::fd::OwnedFd;
    use std::process::{Child, Command, Stdio};
    use std::thread;
    use std::time::Duration;

    use millstream::{Connect, Reactor};
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    use socket2::Socket;

    use super::*;
    use crate::common::Echo;

    /// Closes a connection at once when something comes.
    struct Closer;

    impl EventHandler for Closer {
        type State = ();

        fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
            conn.input.take_all();
            conn.close_now();
            Action::Continue
        }
    }

    /// What a child process has open, but for its standard streams.
    fn inherited() -> Vec<String> {
        let script = "for each in /proc/self/fd/*; do readlink $each; done";
        let output = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .expect("there is a shell");
        let text = String::from_utf8(output.stdout).expect("it is text");
        let kernels = |line: &&str| line.starts_with("socket:") || line.starts_with("anon_inode:");
        text.lines().filter(kernels).map(str::to_owned).collect()
    }

    /// F3 of the fault checklist: a child process gets none of the engine's descriptors, neither
    /// listeners and connections of both kinds nor what its threads wait on.
    #[test]
    fn a_child_process_inherits_nothing_of_the_engine() {
        let before = inherited();
        for mode in [AcceptMode::MainAcceptor, AcceptMode::ReusePort] {
            let engine = TestEngine::echo(Engine::builder().reactors(2).accept_mode(mode));
            let mut clients: Vec<TcpStream> = (0..10).map(|_| engine.connect()).collect();
            let reactors = engine.reactors::<Echo>().expect("it is the engine's handler");
            let (send, connected) = channel();
            let address = engine.local_addrs()[0];
            let done = move |_: &mut Echo,
                             _: &mut Reactor<'_, Echo>,
                             made: Result<&mut Conn<'_, Echo>, _>| {
                let _ = send.send(made.is_ok()); // Nobody listens if the test has failed.
                Action::Continue
            };
            reactors.connect(0, Connect::to(address), done).expect("the engine runs");
            assert!(receive(&connected), "it connects to itself");
            for client in &mut clients {
                client.write_all(b"here").expect("it is taken");
                assert_same(&read_exactly(client, 4), b"here");
            }
            assert_eq!(inherited(), before, "{mode:?}");
        }
    }

    /// A process that has a duplicate, which ends with the test.
    struct Holder(Child);

    impl Holder {
        fn start(duplicate: Socket) -> Self {
            let duplicate = OwnedFd::from(duplicate);
            let child = Command::new("sleep").arg("60").stdin(duplicate).spawn();
            Holder(child.expect("there is a sleep"))
        }
    }

    impl Drop for Holder {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A duplicate of the descriptor in this process whose socket is connected to `peer`.
    fn duplicate(peer: SocketAddr) -> Option<Socket> {
        let this = pidfd_open(getpid(), PidfdFlags::empty()).expect("this process is there");
        let descriptors = fs::read_dir("/proc/self/fd").expect("the system tells");
        let numbers =
            descriptors.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        numbers.into_iter().find_map(|number| {
            let copy = pidfd_getfd(&this, number, PidfdGetfdFlags::empty()).ok()?;
            let socket = Socket::from(copy);
            let is_it = socket.peer_addr().ok()?.as_socket() == Some(peer);
            is_it.then_some(socket)
        })
    }

    /// F3 of the fault checklist: the engine closes a connection of which another process has a
    /// duplicate, so the system's socket stays. The reactor rests. What comes for the dead
    /// descriptor disturbs nobody: at most one turn for each arrival, and then the reactor rests
    /// again.
    #[test]
    fn a_duplicate_that_lives_on_does_not_make_the_reactor_spin() {
        let engine = TestEngine::start(Engine::builder().reactors(1), |_| Closer);
        let mut client = engine.connect();
        let mut found = None;
        let address = client.local_addr().expect("it is connected");
        eventually("it is accepted", || {
            found = duplicate(address);
            found.is_some()
        });
        let holder = Holder::start(found.expect("it was waited for"));
        client.write_all(b"close").expect("it is taken");
        eventually("it is closed", || engine.connections() == 0);
        let turns = || engine.stats().reactors[0].turns;
        assert_rests(turns);
        let before = turns();
        for _ in 0..5 {
            client.write_all(b"nobody reads this").expect("the system's socket takes it");
            assert_rests(turns);
        }
        assert!(turns() - before <= 5, "{} turns for five arrivals", turns() - before);
        drop(holder);
    }

    /// Waits until no turn is made for a while; one that spins never comes there.
    #[track_caller]
    fn assert_rests(turns: impl Fn() -> u64) {
        eventually("the reactor rests", || {
            let before = turns();
            // sleep: nothing is to happen meanwhile, which no event tells.
            thread::sleep(Duration::from_millis(50));
            turns() == before
        });
    }
}

// --- which reactor gets the connections, and which is woken --------------------------------------

/// Says hello, and then echoes.
struct Greeter;

impl EventHandler for Greeter {
    type State = ();

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.output.write(b"h");
        Action::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.output.write(conn.input.take_all());
        Action::Continue
    }
}

/// Connects, and waits until that is served.
#[track_caller]
fn greeted(engine: &TestEngine) -> TcpStream {
    let mut client = engine.connect();
    assert_same(&read_exactly(&mut client, 1), b"h");
    client
}

const LONG: usize = 2000;
const REACTORS: usize = 4;

/// F14 of the fault checklist: long connections that come amid short ones in random number. The
/// balancers keep the reactors within a tenth of the mean. In reuse-port mode the system's hash
/// decides, which is not even: one half more than the mean would be ten standard deviations.
#[test]
fn long_connections_amid_short_ones_are_spread_over_the_reactors() {
    let builder = || Engine::builder().reactors(REACTORS);
    let reuse_port = builder().accept_mode(AcceptMode::ReusePort);
    for (name, builder, bound) in [
        ("round robin", builder().balance(RoundRobin::default()), 1.1),
        ("least connections", builder().balance(LeastConnections), 1.1),
        ("reuse port", reuse_port, 1.5),
    ] {
        let engine = TestEngine::start(builder, |_| Greeter);
        let mut random = fastrand::Rng::with_seed(14);
        let mut long = Vec::new();
        while long.len() < LONG {
            for _ in 0..random.usize(..3) {
                let mut short = greeted(&engine);
                end(&short);
                assert_eq!(short.read(&mut [0]).expect("the server ends"), 0);
            }
            long.push(greeted(&engine));
        }
        eventually("the short ones are closed", || engine.connections() == LONG);
        let spread: Vec<usize> =
            engine.stats().reactors.iter().map(|reactor| reactor.connections).collect();
        let most = *spread.iter().max().expect("there are reactors") as f64;
        let mean = LONG as f64 / REACTORS as f64;
        assert!(most / mean <= bound, "{name}: {spread:?}, at most {bound} times the mean");
    }
}

/// F15 of the fault checklist: of eight reactors that could serve a new connection one is woken. A
/// crowd that is woken for each would make eight turns.
#[test]
fn a_new_connection_wakes_one_reactor() {
    const CONNECTIONS: u64 = 200;
    for mode in [AcceptMode::MainAcceptor, AcceptMode::ReusePort] {
        let engine =
            TestEngine::start(Engine::builder().reactors(8).accept_mode(mode), |_| Greeter);
        let sum = || {
            let reactors = engine.stats().reactors;
            let turns: u64 = reactors.iter().map(|reactor| reactor.turns).sum();
            let wakeups: u64 = reactors.iter().map(|reactor| reactor.wakeups).sum();
            (turns, wakeups)
        };
        let before = sum();
        let clients: Vec<TcpStream> = (0..CONNECTIONS).map(|_| greeted(&engine)).collect();
        let (turns, wakeups) = (sum().0 - before.0, sum().1 - before.1);
        assert!(turns <= 2 * CONNECTIONS, "{mode:?}: {turns} turns for {CONNECTIONS} connections");
        assert!(wakeups <= CONNECTIONS, "{mode:?}: {wakeups} wake-ups");
        drop(clients);
    }
}
