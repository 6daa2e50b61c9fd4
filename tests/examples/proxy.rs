//! The relay of the example `proxy` between peers of the test: backpressure both ways, and how ends
//! and failures of one side reach the other.
//!
//! Faults: F12 (a proxy between a fast and a slow side).
//!
//! What passes through it also does with TLS, on both sides, on the clients' alone, which is ended
//! here, or on the upstream's. Where much passes through, it is on both or on none.

#[path = "../../examples/proxy/relay.rs"]
mod relay;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::common::seeds::for_each_seed;
use crate::common::tls::IDENTITY;
use crate::common::wire::{Client, Wire};
use crate::common::{
    DEADLINE, TestEngine, assert_same, eventually, pattern, read_exactly, read_to_end,
    read_to_reset,
};
use millstream::{Builder, Connect, Engine, Listen};
use relay::Relay;

with_and_without_tls! {
    a_slow_side_stops_the_fast_one_and_no_byte_is_lost
    both_directions_may_be_full_at_once
    a_client_without_an_upstream_is_reset
}

/// What clients and the upstream are connected by.
const SIDES: [[Wire; 2]; 4] = [
    [Wire::Plain, Wire::Plain],
    [Wire::Tls, Wire::Tls],
    [Wire::Tls, Wire::Plain],
    [Wire::Plain, Wire::Tls],
];

const KIB: usize = 1024;
/// What one read may bring.
const RECEIVE_BUFFER: usize = 64 * KIB;
/// What is sent is blocks of this size, each of which is other bytes.
const BLOCK: usize = 64 * KIB;
/// 64 MiB, more than the kernel keeps for a connection whose reader is asleep.
const BLOCKS: u64 = 1024;

/// A proxy and its upstream.
struct Stage {
    wires: [Wire; 2],
    engine: TestEngine,
    upstream: TcpListener,
}

impl Stage {
    fn start(wires: [Wire; 2]) -> Self {
        Stage::build(wires, Engine::builder())
    }

    fn build(wires: [Wire; 2], builder: Builder) -> Self {
        let upstream = TcpListener::bind("127.0.0.1:0").expect("there is a port");
        upstream.set_nonblocking(true).expect("a socket need not block");
        let address = upstream.local_addr().expect("it listens");
        let to = wires[1].dress(Connect::to(address));
        let listen = Listen::from("127.0.0.1:0");
        let listen = if wires[0] == Wire::Tls { listen.tls(&IDENTITY.server) } else { listen };
        let builder = builder.listen(listen).reactors(1).receive_buffer(RECEIVE_BUFFER);
        let engine = TestEngine::start_exactly(builder, move |_| Relay { upstream: to.clone() });
        Stage { wires, engine, upstream }
    }

    /// Connects a client; returns it and its upstream's end.
    fn pair(&self) -> (Client, Client) {
        thread::scope(|scope| {
            let upstream = scope.spawn(|| self.accept());
            let client = self.wires[0].connect(&self.engine);
            (client, upstream.join().expect("the proxy connects"))
        })
    }

    /// The upstream's end of a new connection.
    #[track_caller]
    fn accept(&self) -> Client {
        let mut accepted = None;
        eventually("the proxy connects", || {
            accepted = self.upstream.accept().ok();
            accepted.is_some()
        });
        let (upstream, _) = accepted.expect("it was waited for");
        upstream.set_nonblocking(false).expect("a socket can block");
        upstream.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
        upstream.set_write_timeout(Some(DEADLINE)).expect("a socket has timeouts");
        Client::new(upstream, self.wires[1].server())
    }

    /// How many bytes the proxy has received and not sent; never more than there are while it runs.
    /// Handshakes count, too, which both sides begin and end with about as much.
    fn held(&self) -> usize {
        let reactor = &self.engine.stats().reactors[0];
        reactor.bytes_in.saturating_sub(reactor.bytes_out).try_into().expect("it is less")
    }

    /// How much it may hold in a direction: a read, and with TLS the beginning of a record.
    fn most_held(&self) -> usize {
        RECEIVE_BUFFER + if self.wires.contains(&Wire::Tls) { 17 * KIB } else { 0 }
    }

    /// Waits until nothing moves any more because this many directions are full, of each of which a
    /// part of one read is held.
    #[track_caller]
    fn gets_stuck(&self, directions: usize) {
        let (mut turns, mut since) = (0, Instant::now());
        let full = directions..=directions * self.most_held();
        eventually("it is full, and the reactor rests", || {
            let now = self.engine.stats().reactors[0].turns;
            if now != turns {
                (turns, since) = (now, Instant::now());
            }
            since.elapsed() > Duration::from_millis(200) && full.contains(&self.held())
        });
    }

    #[track_caller]
    fn assert_all_closed(&self) {
        eventually("both sides are closed", || self.engine.connections() == 0);
    }
}

fn is_reset(read: &io::Result<usize>) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    // The last two are told of a connection whose reset was.
    let kinds = [ConnectionReset, BrokenPipe, NotConnected];
    read.as_ref().is_err_and(|error| kinds.contains(&error.kind()))
}

fn block(number: u64) -> Vec<u8> {
    pattern(BLOCK, number)
}

/// Sends all blocks, and counts them.
fn send(mut to: Client, sent: Arc<AtomicU64>) -> JoinHandle<()> {
    thread::spawn(move || {
        for number in 0..BLOCKS {
            to.write_all(&block(number)).expect("all of it is taken");
            sent.store(number + 1, Ordering::Relaxed);
        }
        to.end();
    })
}

/// F12 of the fault checklist: one side sends as fast as it can, the other one doesn't read, and
/// then reads in fits. The sender is stopped and goes on, the proxy holds no more than one read,
/// and every byte arrives, and behind the last one the end. The opposite direction is still open
/// then.
fn a_slow_side_stops_the_fast_one_and_no_byte_is_lost(wire: Wire) {
    for towards_client in [false, true] {
        for_each_seed(1, |seed| {
            let stage = Stage::start([wire; 2]);
            let (client, upstream) = stage.pair();
            let (mut fast, mut slow) =
                if towards_client { (upstream, client) } else { (client, upstream) };
            relay_under_pressure(&stage, &fast, &mut slow, seed);
            assert_same(&read_to_end(&mut slow), b"");
            slow.write_all(b"got it").expect("this direction is open");
            slow.end();
            assert_same(&read_to_end(&mut fast), b"got it");
            stage.assert_all_closed();
        });
    }
}

fn relay_under_pressure(stage: &Stage, fast: &Client, slow: &mut Client, seed: u64) {
    let sent = Arc::new(AtomicU64::new(0));
    let sender = send(fast.try_clone().expect("it is open"), Arc::clone(&sent));
    stage.gets_stuck(1);
    assert!(sent.load(Ordering::Relaxed) < BLOCKS, "nobody stopped the sender");
    let mut random = fastrand::Rng::with_seed(seed);
    for number in 0..BLOCKS {
        let mut got = vec![0; BLOCK];
        let (front, back) = got.split_at_mut(random.usize(..BLOCK));
        slow.read_exact(front).expect("it arrives");
        let held = stage.held();
        assert!(held <= stage.most_held(), "{held} bytes are held");
        slow.read_exact(back).expect("it arrives");
        assert_same(&got, &block(number));
    }
    sender.join().expect("all is sent");
}

/// F12: an upstream that answers as it reads, and a client that begins to read when everything is
/// stuck. That output waits for the upstream must not keep the proxy from reading the answers that
/// the upstream is stuck with.
fn both_directions_may_be_full_at_once(wire: Wire) {
    let stage = Stage::start([wire; 2]);
    let (mut client, mut upstream) = stage.pair();
    let echo = thread::spawn(move || {
        let mut from = upstream.try_clone().expect("it is open");
        io::copy(&mut from, &mut upstream).expect("all of it is echoed");
        upstream.end();
    });
    let sent = Arc::new(AtomicU64::new(0));
    let sender = send(client.try_clone().expect("it is open"), Arc::clone(&sent));
    stage.gets_stuck(2);
    for number in 0..BLOCKS {
        assert_same(&read_exactly(&mut client, BLOCK), &block(number));
    }
    assert_same(&read_to_end(&mut client), b"");
    sender.join().expect("all is sent");
    echo.join().expect("the upstream ends well");
    stage.assert_all_closed();
}

/// What a client sends before there is an upstream, its end included, is kept for it.
#[test]
fn what_comes_before_the_upstream_is_kept() {
    for wires in SIDES {
        let stage = Stage::start(wires);
        for seed in 0..10 {
            let mut client = wires[0].connect(&stage.engine);
            let request = pattern(10_000, seed);
            client.write_all(&request).expect("it is taken");
            client.end();
            let mut upstream = stage.accept();
            assert_same(&read_to_end(&mut upstream), &request);
            upstream.write_all(b"reply").expect("it is taken");
            upstream.end();
            assert_same(&read_to_end(&mut client), b"reply");
        }
        stage.assert_all_closed();
    }
}

/// One side is reset: the other one gets what was received before that, and is reset, too, so that
/// it doesn't take a part for the whole.
#[test]
fn a_side_that_fails_resets_the_other() {
    for wires in SIDES {
        let stage = Stage::start(wires);
        for upstream_fails in [false, true] {
            let (client, upstream) = stage.pair();
            let (mut fails, mut other) =
                if upstream_fails { (upstream, client) } else { (client, upstream) };
            fails.write_all(b"last words").expect("it is taken");
            assert_same(&read_exactly(&mut other, 10), b"last words");
            fails.reset();
            assert_same(&read_to_reset(&mut other), b"");
            stage.assert_all_closed();
        }
    }
}

/// A client that nobody has an upstream for is reset, whatever it sent: an orderly end would be an
/// answer.
fn a_client_without_an_upstream_is_reset(wire: Wire) {
    let free: SocketAddr = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
        listener.local_addr().expect("it listens")
    };
    let (builder, to) = (wire.build(Engine::builder().reactors(1)), wire.dress(Connect::to(free)));
    let engine = TestEngine::start(builder, move |_| Relay { upstream: to.clone() });
    // A reset may overtake each step of a client, from connecting on: then that step is told of it.
    let connect = |_| {
        let client = TcpStream::connect_timeout(&engine.address(), DEADLINE)?;
        client.set_read_timeout(Some(DEADLINE))?;
        Client::try_new(client, wire.client())
    };
    let mut clients: Vec<io::Result<Client>> = (0..12).map(connect).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let ended = match client {
            Ok(client) => match number % 3 {
                0 => Ok(()),
                1 => client.write_all(b"hello?"),
                _ => client.try_end(),
            }
            .and_then(|()| client.read(&mut [0])),
            Err(error) => Err(error.kind().into()),
        };
        assert!(is_reset(&ended), "client {number}: {ended:?}");
    }
    drop(clients);
    eventually("all are closed", || engine.connections() == 0);
}

/// Nothing moves for too long: neither side takes what it got by then for the whole.
#[test]
fn a_pair_that_idles_is_reset_on_both_sides() {
    for wires in SIDES {
        // Also the time in which the upstream's connection is made.
        let stage = Stage::build(wires, Engine::builder().idle_timeout(Duration::from_secs(1)));
        let mut pairs = [false, true].map(|ends_first| {
            let (mut client, mut upstream) = stage.pair();
            upstream.write_all(b"a part").expect("it is taken");
            assert_same(&read_exactly(&mut client, 6), b"a part");
            if ends_first {
                client.end();
                assert_same(&read_to_end(&mut upstream), b"");
            }
            (client, upstream)
        });
        for (client, _) in &mut pairs {
            assert_same(&read_to_reset(client), b"");
        }
        assert_same(&read_to_reset(&mut pairs[0].1), b"");
        stage.assert_all_closed();
    }
}
