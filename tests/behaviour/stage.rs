//! What the behaviours are written with: waits that have a deadline and let the world go on
//! meanwhile, peers, and the checks at the end of each.

use std::thread;
use std::time::{Duration, Instant};

use millstream::{Action, AlreadyStopping, Builder, Conn, Engine, Remote};

use crate::common::recorder::{Log, Note, On, Recorder};
use crate::common::wire::Far as _;
use crate::common::{DEADLINE, assert_empty};
use crate::world::World;

/// No wait takes more turns of a simulated engine: it would spin.
const MOST_TURNS: usize = 50_000;

/// An engine in its world, and what its handler recorded. When it is dropped, every connection must
/// close, must have lived one whole life, and must have given everything back.
pub(crate) struct Stage<W: World> {
    pub(crate) world: W,
    pub(crate) log: Log,
    /// How many notes were looked at.
    read: usize,
    ended: bool,
}

/// A peer, and what it has received and the test has not looked at.
pub(crate) struct Peer<W: World> {
    far: W::Far,
    buffer: Vec<u8>,
}

impl<W: World> Peer<W> {
    fn pull(&mut self) -> usize {
        self.buffer.extend(self.far.receive());
        self.buffer.len()
    }

    /// All that it has received and nobody has looked at.
    pub(crate) fn pulled(&mut self) -> &[u8] {
        self.pull();
        &self.buffer
    }

    /// Sends what the connection takes now.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> usize {
        self.far.send(bytes)
    }

    /// Ends its side.
    pub(crate) fn end(&mut self) {
        self.far.end();
    }

    pub(crate) fn reset(self) {
        self.far.reset();
    }
}

impl<W: World> Stage<W> {
    pub(crate) fn start(
        seed: u64,
        builder: Builder,
        script: impl Fn(On, &mut Conn<'_, Recorder>) -> Action + Send + Sync + 'static,
    ) -> Self {
        Self::with(seed, builder, Recorder::new(script))
    }

    pub(crate) fn with(seed: u64, builder: Builder, handler: Recorder) -> Self {
        let log = handler.log.clone();
        Stage { world: W::start(seed, builder, handler), log, read: 0, ended: false }
    }

    pub(crate) fn engine(&self) -> &Engine {
        self.world.engine()
    }

    pub(crate) fn panics(&self) -> u64 {
        self.engine().stats().reactors[0].panics
    }

    /// That this many callbacks have panicked, which is counted a moment after the last note.
    #[track_caller]
    pub(crate) fn has_panicked(&mut self, times: u64) {
        self.until("each panic is counted", |world| {
            world.engine().stats().reactors[0].panics >= times
        });
        assert_eq!(self.panics(), times);
    }

    pub(crate) fn count(&self, on: On) -> usize {
        self.log.count(on)
    }

    // Waiting.

    /// Lets the world go on until a condition holds.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, mut condition: impl FnMut(&W) -> bool) {
        let end = self.world.now() + DEADLINE;
        for _ in 0..MOST_TURNS {
            if condition(&self.world) {
                return;
            }
            let left = end.saturating_duration_since(self.world.now());
            assert!(!left.is_zero(), "not within {DEADLINE:?}: {what}");
            let goes_on = self.world.step(left);
            assert!(goes_on || condition(&self.world), "the engine ended before: {what}");
        }
        panic!("not within {MOST_TURNS} turns: {what}");
    }

    /// Lets this much time pass.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.world.now() + time;
        loop {
            let left = end.saturating_duration_since(self.world.now());
            if left.is_zero() || !self.world.step(left) {
                return;
            }
        }
    }

    /// The next callback that ran, other than `on_closing`.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Note {
        loop {
            let note = self.next_of_all();
            if note.on != On::Closing {
                return note;
            }
        }
    }

    #[track_caller]
    fn next_of_all(&mut self) -> Note {
        let (log, read) = (self.log.clone(), self.read);
        self.until("the next callback", |_| log.notes().len() > read);
        self.read += 1;
        log.notes()[read].clone()
    }

    /// The next callback, which must be this one.
    #[track_caller]
    pub(crate) fn expect(&mut self, on: On) -> Note {
        let note = self.next();
        assert_eq!(note.on, on, "the next callback");
        note
    }

    /// Waits for a callback; those before it are passed over.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, on: On) -> Note {
        loop {
            let note = self.next_of_all();
            if note.on == on {
                return note;
            }
        }
    }

    /// Waits until a connection is over; callbacks before that are passed over.
    #[track_caller]
    pub(crate) fn closed(&mut self) -> Note {
        self.wait_for(On::Close)
    }

    /// Waits until a connection is over, for this reason.
    #[track_caller]
    pub(crate) fn closed_by(&mut self, reason: &str) -> Note {
        let note = self.closed();
        assert_eq!(note.reason, Some(reason), "the reason of the close");
        note
    }

    // Peers.

    pub(crate) fn connect(&mut self) -> Peer<W> {
        Peer { far: self.world.connect(), buffer: Vec::new() }
    }

    /// Connects a peer, and waits until its `on_open` has returned.
    #[track_caller]
    pub(crate) fn open(&mut self) -> (Peer<W>, Remote<Recorder>) {
        let peer = self.connect();
        (peer, self.wait_for(On::Open).remote())
    }

    /// Accepts a connection of the engine.
    #[track_caller]
    pub(crate) fn accept(&mut self, listener: &W::Listener) -> Peer<W> {
        let mut far = None;
        self.until("the engine connects", |_| {
            far = W::accept(listener);
            far.is_some()
        });
        Peer { far: far.expect("it was accepted"), buffer: Vec::new() }
    }

    /// Sends all of it, and receives nothing meanwhile.
    #[track_caller]
    pub(crate) fn send(&mut self, peer: &mut Peer<W>, bytes: &[u8]) {
        let mut sent = 0;
        self.until("the engine takes what a peer sends", |_| {
            sent += peer.far.send(&bytes[sent..]);
            sent == bytes.len()
        });
    }

    /// Sends as much of it as the engine takes, and returns how much that is: nothing goes for a
    /// while.
    #[track_caller]
    pub(crate) fn send_until_stuck(&mut self, peer: &mut Peer<W>, bytes: &[u8]) -> usize {
        let mut sent = 0;
        for _ in 0..MOST_TURNS {
            let before = sent;
            sent += peer.far.send(&bytes[sent..]);
            if sent == before {
                self.pass(Duration::from_millis(50));
                sent += peer.far.send(&bytes[sent..]);
                if sent == before || sent == bytes.len() {
                    return sent;
                }
            }
        }
        panic!("the engine takes all, slowly");
    }

    /// Sends all of it, then ends if asked, and meanwhile and after that receives this many bytes.
    #[track_caller]
    pub(crate) fn exchange(
        &mut self,
        peer: &mut Peer<W>,
        bytes: &[u8],
        count: usize,
        end: bool,
    ) -> Vec<u8> {
        let (mut sent, mut ends) = (0, end);
        self.until("the engine takes what a peer sends, and answers", |_| {
            if sent < bytes.len() {
                sent += peer.far.send(&bytes[sent..]);
            } else if std::mem::take(&mut ends) {
                peer.end();
            }
            peer.pull() >= count && sent == bytes.len() && !ends
        });
        peer.buffer.drain(..count).collect()
    }

    /// Receives this many bytes.
    #[track_caller]
    pub(crate) fn receive(&mut self, peer: &mut Peer<W>, count: usize) -> Vec<u8> {
        self.until("a peer receives", |_| peer.pull() >= count);
        peer.buffer.drain(..count).collect()
    }

    /// Receives until the engine ends its side, orderly.
    #[track_caller]
    pub(crate) fn receive_end(&mut self, peer: &mut Peer<W>) -> Vec<u8> {
        self.until("a peer sees the end", |_| {
            peer.pull();
            assert!(peer.far.ended() || !peer.far.was_reset(), "an orderly end was expected");
            assert!(!peer.far.is_cut(), "the network's end came without that of what is between");
            peer.far.ended()
        });
        std::mem::take(&mut peer.buffer)
    }

    /// The same where the engine closes at once, which waits for nothing: TLS can't say its end
    /// then if the network refuses to take it.
    #[track_caller]
    pub(crate) fn receive_end_at_once(&mut self, peer: &mut Peer<W>) -> Vec<u8> {
        if !W::REFUSES {
            return self.receive_end(peer);
        }
        let received = self.receive_any_end(peer);
        assert!(peer.far.ended(), "an orderly end was expected");
        received
    }

    /// Receives until the engine resets the connection.
    #[track_caller]
    pub(crate) fn receive_reset(&mut self, peer: &mut Peer<W>) -> Vec<u8> {
        self.until("a peer sees a reset", |_| {
            peer.pull();
            assert!(!peer.far.ended(), "a reset was expected");
            peer.far.was_reset()
        });
        std::mem::take(&mut peer.buffer)
    }

    /// Waits until the engine has left a peer, orderly or not.
    #[track_caller]
    pub(crate) fn receive_any_end(&mut self, peer: &mut Peer<W>) -> Vec<u8> {
        self.until("a peer is left", |_| {
            peer.pull();
            peer.far.ended() || peer.far.was_reset()
        });
        std::mem::take(&mut peer.buffer)
    }

    // Time.

    /// Something that was asked for at one time came `after` that: never earlier, and in virtual
    /// time at the first tick that is not.
    #[track_caller]
    pub(crate) fn assert_due(&self, since: Instant, after: Duration, came: Instant) {
        match self.world.tick_zero() {
            Some(zero) => assert_eq!(came - zero, millis((since + after - zero).as_nanos(), true)),
            None => assert!(came >= since + after, "early by {:?}", since + after - came),
        }
    }

    /// A timeout came, counted from something whose tick alone is kept: never earlier, and in
    /// virtual time this much after the end of that tick.
    #[track_caller]
    pub(crate) fn assert_timeout(&self, since: Instant, after: Duration, came: Instant) {
        match self.world.tick_zero() {
            Some(zero) => {
                let tick = millis((since - zero).as_nanos(), false);
                assert_eq!(came - zero, tick + Duration::from_millis(1) + after);
            }
            None => assert!(came >= since + after, "early by {:?}", since + after - came),
        }
    }

    // The end.

    pub(crate) fn stop(&self, patience: Duration) -> Result<(), AlreadyStopping> {
        self.world.stop(patience)
    }

    /// Waits until the engine has ended, which must be stopping, and looks at what is left of it.
    #[track_caller]
    pub(crate) fn wait_for_the_end(&mut self) {
        self.world.wait();
        self.ended = true;
        assert_empty(self.engine());
        assert_idle(self.engine());
        assert_eq!(self.world.leaked(), 0, "connections that the engine did not close");
    }

    /// Every connection closes, by what its peer did, before the engine has to stop.
    fn settle(&mut self) {
        self.until("every connection is closed and has given all back", |world| {
            world.engine().connections() == 0 && idle(world.engine()) == [0; 5]
        });
        assert_eq!(self.world.leaked(), 0, "connections that the engine did not close");
    }
}

/// Input rings, output queues, timers, requests and connections at this moment.
fn idle(engine: &Engine) -> [usize; 5] {
    let stats = engine.stats();
    let reactor = &stats.reactors[0];
    [
        reactor.rings_leased,
        reactor.output_queues_leased,
        reactor.timers,
        reactor.inbox_depth,
        reactor.connections,
    ]
}

#[track_caller]
fn assert_idle(engine: &Engine) {
    assert_eq!(idle(engine), [0; 5], "rings, output queues, timers, requests, connections");
}

impl<W: World> Drop for Stage<W> {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.world.stop(Duration::ZERO); // The test failed already.
            return;
        }
        if !self.ended {
            self.settle();
            self.stop(Duration::from_secs(5)).expect("nobody stopped it before");
            self.wait_for_the_end();
        }
        self.log.check(self.engine());
    }
}

fn millis(nanos: u128, up: bool) -> Duration {
    let ticks = if up { nanos.div_ceil(1_000_000) } else { nanos / 1_000_000 };
    Duration::from_millis(u64::try_from(ticks).expect("a test is not that long"))
}
