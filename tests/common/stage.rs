//! A stage: an engine whose handler does what the test's script says, and tells the test of every
//! callback. When it is dropped, every connection must have lived exactly one whole life.

use std::cell::Cell;
use std::ops::Deref;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use millstream::{Action, Builder, Conn, Engine, Remote};

use super::recorder::{Log, Note, On, Recorder};
use super::{TestEngine, eventually, receive};

/// How a connection ended.
#[derive(Clone, Debug)]
pub struct End {
    /// One of [`CloseReason::NAMES`](millstream::CloseReason::NAMES).
    pub reason: &'static str,
    /// What the script put into [`Kept::received`](super::recorder::Kept::received).
    pub received: Vec<u8>,
    /// What was never read.
    pub unread: Vec<u8>,
    /// The engine's time of `on_close`.
    pub now: Instant,
}

impl Note {
    /// For `Close`: how the connection ended.
    pub fn end(&self) -> Option<End> {
        let reason = self.reason.filter(|_| self.on == On::Close)?;
        let (received, unread) = (self.received.clone(), self.never_read.clone());
        Some(End { reason, received, unread, now: self.now })
    }
}

/// Runs a closure on the connection's reactor, and waits for what it returns.
#[track_caller]
pub fn run<T: Send + 'static>(
    remote: &Remote<Recorder>,
    closure: impl FnOnce(&mut Conn<'_, Recorder>) -> T + Send + 'static,
) -> T {
    let (send, answer) = channel();
    let closure = move |_: &mut Recorder, conn: &mut Conn<'_, Recorder>| {
        let _ = send.send(closure(conn)); // Nobody listens if the test has failed.
        Action::Continue
    };
    remote.run(closure).expect("the connection is open");
    receive(&answer)
}

/// The engine, and its notes.
pub struct Stage {
    engine: Option<TestEngine>,
    log: Log,
    /// How many notes were looked at.
    read: Cell<usize>,
}

impl Stage {
    /// The builder most tests want: with one reactor, so notes come in the order of the callbacks.
    pub fn builder() -> Builder {
        Engine::builder().reactors(1)
    }

    pub fn start(
        builder: Builder,
        script: impl Fn(On, &mut Conn<'_, Recorder>) -> Action + Send + Sync + 'static,
    ) -> Self {
        let handler = Recorder::new(script);
        let log = handler.log.clone();
        let engine = Some(TestEngine::start(builder, move |_| handler.clone()));
        Stage { engine, log, read: Cell::default() }
    }

    /// Connects a client, and waits until its `on_open` has returned.
    #[track_caller]
    pub fn open(&self) -> (std::net::TcpStream, Remote<Recorder>) {
        let client = self.connect();
        (client, self.wait_for(On::Open).remote())
    }

    /// The next callback, other than `on_closing`.
    #[track_caller]
    pub fn next(&self) -> Note {
        loop {
            let note = self.next_of_all();
            if note.on != On::Closing {
                return note;
            }
        }
    }

    #[track_caller]
    fn next_of_all(&self) -> Note {
        loop {
            let note = self.log.wait(self.read.get());
            self.read.set(self.read.get() + 1);
            if note.on != On::Dropped {
                return note;
            }
        }
    }

    /// The next callback, if it has run already.
    pub fn try_next(&self) -> Option<Note> {
        let count = self.log.notes().len();
        while self.read.get() < count {
            let note = self.log.wait(self.read.get());
            self.read.set(self.read.get() + 1);
            if note.on != On::Dropped {
                return Some(note);
            }
        }
        None
    }

    /// The next callback, which must be this one.
    #[track_caller]
    pub fn expect(&self, on: On) -> Note {
        let note = self.next();
        assert_eq!(note.on, on, "the next callback");
        note
    }

    /// Waits for a callback; those before it are passed over.
    #[track_caller]
    pub fn wait_for(&self, on: On) -> Note {
        loop {
            let note = self.next_of_all();
            if note.on == on {
                return note;
            }
        }
    }

    /// Waits until a connection is over altogether; callbacks before that are passed over.
    #[track_caller]
    pub fn closed(&self) -> End {
        self.over(&self.wait_for(On::Close))
    }

    /// As [`closed`](Self::closed), and no other callback may come first.
    #[track_caller]
    pub fn expect_closed(&self) -> End {
        self.over(&self.expect(On::Close))
    }

    /// Waits until the state is dropped, too; callbacks before that are passed over.
    #[track_caller]
    fn over(&self, note: &Note) -> End {
        let is_drop = |other: &Note| (other.id, other.on) == (note.id, On::Dropped);
        let dropped = (self.read.get()..).find(|place| is_drop(&self.log.wait(*place)));
        self.read.set(dropped.expect("each wait has a deadline") + 1);
        note.end().expect("it has closed")
    }

    /// Waits until the (first) reactor makes no more turns: it has nothing to do. One that spins
    /// never comes there.
    #[track_caller]
    pub fn comes_to_rest(&self) {
        let mut quiet = 0;
        eventually("the reactor rests", || {
            quiet = if self.turns_in(Duration::from_millis(20)) == 0 { quiet + 1 } else { 0 };
            quiet == 5
        });
    }

    /// How many turns the (first) reactor makes in some time.
    pub fn turns_in(&self, time: Duration) -> u64 {
        let turns = || self.stats().reactors[0].turns;
        let before = turns();
        // sleep: nothing is to happen meanwhile, which no event tells.
        thread::sleep(time);
        turns() - before
    }

    /// How often a callback came so far, of what was waited for.
    pub fn count(&self, on: On) -> usize {
        self.log.notes()[..self.read.get()].iter().filter(|note| note.on == on).count()
    }

    fn check(&self, engine: &Engine) {
        self.log.check(engine);
        let panics: u64 = engine.stats().reactors.iter().map(|reactor| reactor.panics).sum();
        assert_eq!(panics, 0, "a script's own checks failed");
    }
}

impl Deref for Stage {
    type Target = TestEngine;

    fn deref(&self) -> &TestEngine {
        self.engine.as_ref().expect("it is there until the stage is dropped")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let engine: Engine = (**self).clone();
        drop(self.engine.take());
        if !thread::panicking() {
            self.check(&engine); // After a failure, a second panic would hide why.
        }
    }
}
