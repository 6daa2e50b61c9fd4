//! The relay of the example `proxy` between peers of the test: backpressure both ways, and how ends
//! and failures of one side reach the other.
//!
//! Faults: F12 (a proxy between a fast and a slow side).

#[path = "../../examples/proxy/relay.rs"]
mod relay;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::common::seeds::for_each_seed;
use crate::common::{
    DEADLINE, TestEngine, assert_same, end, eventually, pattern, read_exactly, read_to_end,
    read_to_reset, reset,
};
use millstream::{Connect, Engine};
use relay::Relay;

const KIB: usize = 1024;
/// What one read may bring.
const RECEIVE_BUFFER: usize = 64 * KIB;
/// What is sent is blocks of this size, each of which is other bytes.
const BLOCK: usize = 64 * KIB;
/// 64 MiB, more than the kernel keeps for a connection whose reader is asleep.
const BLOCKS: u64 = 1024;

/// A proxy and its upstream.
struct Stage {
    engine: TestEngine,
    upstream: TcpListener,
}

impl Stage {
    fn start() -> Self {
        let upstream = TcpListener::bind("127.0.0.1:0").expect("there is a port");
        upstream.set_nonblocking(true).expect("a socket need not block");
        let address = upstream.local_addr().expect("it listens");
        let builder = Engine::builder().reactors(1).receive_buffer(RECEIVE_BUFFER);
        let engine = TestEngine::start(builder, move |_| Relay { upstream: Connect::to(address) });
        Stage { engine, upstream }
    }

    /// Connects a client; returns it and its upstream's end.
    fn pair(&self) -> (TcpStream, TcpStream) {
        (self.engine.connect(), self.accept())
    }

    /// The upstream's end of a new connection.
    #[track_caller]
    fn accept(&self) -> TcpStream {
        let mut accepted = None;
        eventually("the proxy connects", || {
            accepted = self.upstream.accept().ok();
            accepted.is_some()
        });
        let (upstream, _) = accepted.expect("it was waited for");
        upstream.set_nonblocking(false).expect("a socket can block");
        upstream.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
        upstream.set_write_timeout(Some(DEADLINE)).expect("a socket has timeouts");
        upstream
    }

    /// How many bytes the proxy has received and not sent; never more than there are while it runs.
    fn held(&self) -> usize {
        let reactor = &self.engine.stats().reactors[0];
        reactor.bytes_in.saturating_sub(reactor.bytes_out).try_into().expect("it is less")
    }

    /// Waits until nothing moves any more because this many directions are full, of each of which a
    /// part of one read is held.
    #[track_caller]
    fn gets_stuck(&self, directions: usize) {
        let (mut turns, mut since) = (0, Instant::now());
        let full = directions..=directions * RECEIVE_BUFFER;
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
fn send(mut to: TcpStream, sent: Arc<AtomicU64>) -> JoinHandle<()> {
    thread::spawn(move || {
        for number in 0..BLOCKS {
            to.write_all(&block(number)).expect("all of it is taken");
            sent.store(number + 1, Ordering::Relaxed);
        }
        end(&to);
    })
}

/// F12 of the fault checklist: one side sends as fast as it can, the other one doesn't read, and
/// then reads in fits. The sender is stopped and goes on, the proxy holds no more than one read,
/// and every byte arrives, and behind the last one the end. The opposite direction is still open
/// then.
#[test]
fn a_slow_side_stops_the_fast_one_and_no_byte_is_lost() {
    for towards_client in [false, true] {
        for_each_seed(1, |seed| {
            let stage = Stage::start();
            let (client, upstream) = stage.pair();
            let (mut fast, slow) =
                if towards_client { (upstream, client) } else { (client, upstream) };
            relay_under_pressure(&stage, &fast, &slow, seed);
            assert_same(&read_to_end(&mut &slow), b"");
            (&slow).write_all(b"got it").expect("this direction is open");
            end(&slow);
            assert_same(&read_to_end(&mut fast), b"got it");
            stage.assert_all_closed();
        });
    }
}

fn relay_under_pressure(stage: &Stage, fast: &TcpStream, slow: &TcpStream, seed: u64) {
    let sent = Arc::new(AtomicU64::new(0));
    let sender = send(fast.try_clone().expect("it is open"), Arc::clone(&sent));
    stage.gets_stuck(1);
    assert!(sent.load(Ordering::Relaxed) < BLOCKS, "nobody stopped the sender");
    let mut slow = slow;
    let mut random = fastrand::Rng::with_seed(seed);
    for number in 0..BLOCKS {
        let mut got = vec![0; BLOCK];
        let (front, back) = got.split_at_mut(random.usize(..BLOCK));
        slow.read_exact(front).expect("it arrives");
        let held = stage.held();
        assert!(held <= RECEIVE_BUFFER, "{held} bytes are held");
        slow.read_exact(back).expect("it arrives");
        assert_same(&got, &block(number));
    }
    sender.join().expect("all is sent");
}

/// F12: an upstream that answers as it reads, and a client that begins to read when everything is
/// stuck. That output waits for the upstream must not keep the proxy from reading the answers that
/// the upstream is stuck with.
#[test]
fn both_directions_may_be_full_at_once() {
    let stage = Stage::start();
    let (client, upstream) = stage.pair();
    let echo = thread::spawn(move || {
        let (mut from, mut to) = (&upstream, &upstream);
        io::copy(&mut from, &mut to).expect("all of it is echoed");
        end(&upstream);
    });
    let sent = Arc::new(AtomicU64::new(0));
    let sender = send(client.try_clone().expect("it is open"), Arc::clone(&sent));
    stage.gets_stuck(2);
    for number in 0..BLOCKS {
        assert_same(&read_exactly(&mut &client, BLOCK), &block(number));
    }
    assert_same(&read_to_end(&mut &client), b"");
    sender.join().expect("all is sent");
    echo.join().expect("the upstream ends well");
    stage.assert_all_closed();
}

/// What a client sends before there is an upstream, its end included, is kept for it.
#[test]
fn what_comes_before_the_upstream_is_kept() {
    let stage = Stage::start();
    for seed in 0..10 {
        let mut client = stage.engine.connect();
        let request = pattern(10_000, seed);
        client.write_all(&request).expect("it is taken");
        end(&client);
        let mut upstream = stage.accept();
        assert_same(&read_to_end(&mut upstream), &request);
        upstream.write_all(b"reply").expect("it is taken");
        drop(upstream);
        assert_same(&read_to_end(&mut client), b"reply");
    }
    stage.assert_all_closed();
}

/// One side is reset: the other one gets what was received before that, and is reset, too, so that
/// it doesn't take a part for the whole.
#[test]
fn a_side_that_fails_resets_the_other() {
    let stage = Stage::start();
    for upstream_fails in [false, true] {
        let (client, upstream) = stage.pair();
        let (mut fails, mut other) =
            if upstream_fails { (upstream, client) } else { (client, upstream) };
        fails.write_all(b"last words").expect("it is taken");
        assert_same(&read_exactly(&mut other, 10), b"last words");
        reset(fails);
        assert_same(&read_to_reset(&mut other), b"");
        stage.assert_all_closed();
    }
}

/// A client that nobody has an upstream for is reset, whatever it sent: an orderly end would be an
/// answer.
#[test]
fn a_client_without_an_upstream_is_reset() {
    let free: SocketAddr = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
        listener.local_addr().expect("it listens")
    };
    let builder = Engine::builder().reactors(1);
    let engine = TestEngine::start(builder, move |_| Relay { upstream: Connect::to(free) });
    // A reset may overtake each step of a client, from connecting on: then that step is told of it.
    let connect = |_| {
        let client = TcpStream::connect_timeout(&engine.address(), DEADLINE)?;
        client.set_read_timeout(Some(DEADLINE))?;
        Ok(client)
    };
    let mut clients: Vec<io::Result<TcpStream>> = (0..12).map(connect).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let ended = match client {
            Ok(client) => match number % 3 {
                0 => Ok(()),
                1 => client.write_all(b"hello?"),
                _ => client.shutdown(Shutdown::Write),
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
    let upstream = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let address = upstream.local_addr().expect("it listens");
    let builder = Engine::builder().reactors(1).idle_timeout(Duration::from_millis(300));
    let engine = TestEngine::start(builder, move |_| Relay { upstream: Connect::to(address) });
    for ends_first in [false, true] {
        let client = engine.connect();
        let (server, _) = upstream.accept().expect("the proxy connects");
        server.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
        (&server).write_all(b"a part").expect("it is taken");
        assert_same(&read_exactly(&mut &client, 6), b"a part");
        if ends_first {
            end(&client);
            assert_same(&read_to_end(&mut &server), b"");
        }
        assert_same(&read_to_reset(&mut &client), b"");
        if !ends_first {
            assert_same(&read_to_reset(&mut &server), b"");
        }
        eventually("both sides are closed", || engine.connections() == 0);
    }
}
