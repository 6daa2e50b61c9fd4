//! Peers that wait until it is done, peers with a codec, and runs that do not repeat.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use millstream::codec::{LineError, Lines};
use millstream::sim::{Faults, FrameError, FramedPeer, Simulation, assert_repeats, for_each_seed};
use millstream::unwind::catch;
use millstream::{Action, Conn, Engine, EventHandler};

/// Sends everything back.
struct Echo;

impl EventHandler for Echo {
    type State = ();

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.output.write(conn.input.take_all());
        Action::Continue
    }
}

fn start<H: EventHandler>(seed: u64, handler: H) -> Simulation<H> {
    Simulation::new(seed, Faults::harmless(), Engine::builder(), handler).expect("it starts")
}

/// Longer than what fits into the window, in which a single send would leave most.
#[test]
fn all_is_sent_and_exactly_what_is_asked_for_is_received() {
    struct Sink(usize);
    impl EventHandler for Sink {
        type State = ();
        fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
            self.0 += conn.input.take_all().len();
            Action::Continue
        }
        fn on_end(&mut self, conn: &mut Conn<'_, Self>) -> Action {
            conn.output.write(format!("{:>8}and no more", self.0).as_bytes());
            Action::Close
        }
    }
    for_each_seed(20, |seed| {
        let mut simulation = start(seed, Sink(0));
        let mut peer = simulation.connect().expect("it listens");
        let bytes = vec![1; 50 * Faults::harmless().window + 7];
        simulation.send_all(&mut peer, &bytes).expect("it is received");
        peer.shutdown();
        let count = simulation.receive_exact(&mut peer, 8).expect("it replies");
        assert_eq!(count, format!("{:>8}", bytes.len()).as_bytes(), "seed {seed}");
        let rest = simulation.receive_to_end(&mut peer).expect("it ends");
        assert_eq!(rest, b"and no more", "seed {seed}");
        let late = simulation.receive_exact(&mut peer, 1).expect_err("it has ended");
        assert_eq!(late.kind(), ErrorKind::UnexpectedEof);
    });
}

/// Pauses when it is asked to, and resets.
struct Stubborn;

impl EventHandler for Stubborn {
    type State = ();

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        match conn.input.take_all() {
            b"reset" => conn.reset(),
            _ => conn.pause_reading(),
        }
        Action::Continue
    }
}

#[test]
fn what_never_comes_is_an_error_after_a_minute() {
    let faults = Faults { window: 1000, ..Faults::none() };
    let simulation = Simulation::new(1, faults, Engine::builder(), Stubborn);
    let mut simulation = simulation.expect("it starts");
    let mut peer = simulation.connect().expect("it listens");
    simulation.send_all(&mut peer, b"pause").expect("there is room");
    simulation.run(Duration::from_secs(1));
    let begin = simulation.now();
    let error = simulation.send_all(&mut peer, &[0; 1001]).expect_err("nobody receives");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(simulation.now() - begin, Duration::from_secs(60));
    let error = simulation.receive_exact(&mut peer, 1).expect_err("nobody sends");
    assert_eq!(error.kind(), ErrorKind::TimedOut);

    let mut peer = simulation.connect().expect("it listens");
    simulation.send_all(&mut peer, b"reset").expect("there is room");
    let error = simulation.receive_to_end(&mut peer).expect_err("it is reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let error = simulation.send_all(&mut peer, b"x").expect_err("it is reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn frames_come_whole_however_they_arrive() {
    for_each_seed(20, |seed| {
        let mut simulation = start(seed, Echo);
        let peer = simulation.connect().expect("it listens");
        let mut peer = FramedPeer::new(peer, Lines::new().max_length(5000));
        let lines = [&b""[..], b"short", &[b'x'; 4000], b"last"];
        for line in lines {
            simulation.send_frame(&mut peer, line).expect("it is received");
        }
        for line in lines {
            let seen = simulation.receive_frame(&mut peer, <[u8]>::to_vec).expect("it replies");
            assert_eq!(seen, line, "seed {seed}");
        }
        // Behind the last line feed, and then the end: both are for the codec.
        simulation.send_all(peer.peer(), b"and a rest").expect("it is received");
        peer.peer().shutdown();
        let rest = simulation.receive_frame(&mut peer, <[u8]>::to_vec).expect("it is a line");
        assert_eq!(rest, b"and a rest", "seed {seed}");
        let error = simulation.receive_frame(&mut peer, |_| ()).expect_err("it has ended");
        let FrameError::Connection(error) = error else { panic!("{error}") };
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    });
}

#[test]
fn what_the_codec_refuses_is_its_error() {
    let mut simulation = start(1, Echo);
    let peer = simulation.connect().expect("it listens");
    let mut peer = FramedPeer::new(peer, Lines::new().max_length(5));
    let error = simulation.send_frame(&mut peer, b"a\nb").expect_err("it is no line");
    assert!(matches!(error, FrameError::Codec(LineError::LineFeed { at: 1 })), "{error}");
    simulation.send_all(peer.peer(), b"much too long\nnext\n").expect("it is received");
    let error = simulation.receive_frame(&mut peer, |_| ()).expect_err("it is too long");
    assert!(matches!(error, FrameError::Codec(LineError::TooLong { .. })), "{error}");
    let next = simulation.receive_frame(&mut peer, <[u8]>::to_vec).expect("it is whole");
    assert_eq!(next, b"next");
}

// --- what does not repeat ------------------------------------------------------------------------

/// Replies with what a closure makes of the time.
struct Says<F>(F);

impl<F: FnMut(Instant) -> String + 'static> EventHandler for Says<F> {
    type State = ();

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.input.take_all();
        let reply = (self.0)(conn.now());
        conn.output.write(reply.as_bytes());
        Action::Continue
    }
}

/// Asks it ten times.
fn ask(seed: u64, says: impl FnMut(Instant) -> String + 'static) -> u64 {
    let mut simulation = start(seed, Says(says));
    let mut peer = simulation.connect().expect("it listens");
    for _ in 0..10 {
        simulation.send_all(&mut peer, b"?").expect("it is received");
        simulation.run(Duration::from_millis(20));
        peer.receive();
    }
    simulation.digest()
}

#[test]
fn what_goes_by_the_clock_of_the_simulation_repeats() {
    assert_repeats(7, |seed| {
        let mut since = None;
        ask(seed, move |now| format!("{} ms", (now - *since.get_or_insert(now)).as_millis()))
    });
}

/// Neither clock nor order of a map comes from the seed, and both are found.
#[test]
fn what_goes_by_something_else_than_the_seed_is_found() {
    let real_time = || {
        assert_repeats(7, |seed| {
            let since = Instant::now();
            ask(seed, move |_| format!("{} ms", since.elapsed().as_millis() / 5))
        });
    };
    let order_of_a_map = || {
        assert_repeats(7, |seed| {
            let map: HashMap<u8, ()> = (0..100).map(|key| (key, ())).collect();
            ask(seed, move |_| format!("{:?}", map.keys().collect::<Vec<_>>()))
        });
    };
    for panic in [catch(real_time), catch(order_of_a_map)] {
        let message = panic.expect_err("it does not repeat").message().expect("it is text");
        assert!(message.starts_with("seed 7 does not repeat"), "{message}");
    }
}
