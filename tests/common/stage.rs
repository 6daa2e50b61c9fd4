//! A stage: an engine whose handler does what the test's script says, and tells the test of every
//! callback. When it is dropped, every connection must have lived exactly one whole life.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use millstream::{
    Action, Builder, CloseReason, Conn, ConnId, Engine, EventHandler, Remote, TimerId,
};

use super::{TestEngine, eventually, receive};

/// Which callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    Open,
    Traffic,
    End,
    HighWater,
    LowWater,
    Timer,
    Closing,
    Close,
    /// Not a callback: the connection's state was dropped.
    Dropped,
}

impl On {
    /// What a handler returns that doesn't care.
    pub fn usual(self) -> Action {
        if self == On::End { Action::Close } else { Action::Continue }
    }
}

/// A callback that ran, told when it returned.
pub struct Note {
    pub on: On,
    pub remote: Remote<Probe>,
    /// The engine's time of the callback.
    pub now: Instant,
    /// The system's time when the callback began.
    pub at: Instant,
    /// How much was unread when it began.
    pub unread: usize,
    /// How much output was pending when it began.
    pub pending: usize,
    /// How much output was pending when it returned.
    pub left: usize,
    /// For `Timer`.
    pub fired: Option<Fired>,
    /// For `Close`.
    pub end: Option<End>,
}

/// A timer that was set with [`arm`].
#[derive(Clone, Copy, Debug)]
pub struct Fired {
    /// The how many-th of its connection it was, from 0.
    pub number: usize,
    /// The earliest time that was right.
    pub due: Instant,
}

/// How a connection ended.
#[derive(Clone, Debug)]
pub struct End {
    /// One of [`CloseReason::NAMES`].
    pub reason: &'static str,
    /// What the script put into [`Kept::received`].
    pub received: Vec<u8>,
    /// What was never read.
    pub unread: Vec<u8>,
    /// The engine's time of `on_close`.
    pub now: Instant,
}

/// The state of a connection.
#[derive(Default)]
pub struct Kept {
    /// For the script to collect what came.
    pub received: Vec<u8>,
    /// All timers that were set with [`arm`], and when they are due.
    pub timers: Vec<(TimerId, Instant)>,
    guard: Option<Guard>,
}

/// Tells that the state was dropped.
struct Guard(ConnId, Sender<Told>);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.1.send(Told::Dropped(self.0)); // Nobody listens if the test has failed.
    }
}

enum Told {
    Called(Box<Note>),
    Dropped(ConnId),
}

/// What the handler does in each callback; in `Closing` and `Close`, what it returns does not
/// count.
type Script = dyn Fn(On, &mut Conn<'_, Probe>) -> Action + Send + Sync;

/// The handler.
pub struct Probe {
    script: Arc<Script>,
    told: Sender<Told>,
}

impl Probe {
    fn play(&self, on: On, conn: &mut Conn<'_, Self>) -> Action {
        let note = self.note(on, conn);
        self.finish(note, conn)
    }

    fn note(&self, on: On, conn: &mut Conn<'_, Self>) -> Note {
        Note {
            on,
            remote: conn.remote(),
            now: conn.now(),
            at: Instant::now(),
            unread: conn.input.len(),
            pending: conn.output.pending(),
            left: 0,
            fired: None,
            end: None,
        }
    }

    fn finish(&self, mut note: Note, conn: &mut Conn<'_, Self>) -> Action {
        let action = (self.script)(note.on, conn);
        note.left = conn.output.pending();
        let _ = self.told.send(Told::Called(Box::new(note)));
        action
    }
}

impl EventHandler for Probe {
    type State = Kept;

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.state.guard = Some(Guard(conn.id(), self.told.clone()));
        self.play(On::Open, conn)
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.play(On::Traffic, conn)
    }

    fn on_end(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.play(On::End, conn)
    }

    fn on_high_water(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.play(On::HighWater, conn)
    }

    fn on_low_water(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.play(On::LowWater, conn)
    }

    fn on_timer(&mut self, conn: &mut Conn<'_, Self>, timer: TimerId) -> Action {
        let mut note = self.note(On::Timer, conn);
        let number = conn.state.timers.iter().position(|(id, _)| *id == timer);
        note.fired = number.map(|number| Fired { number, due: conn.state.timers[number].1 });
        self.finish(note, conn)
    }

    fn on_closing(&mut self, conn: &mut Conn<'_, Self>, _reason: &CloseReason) {
        let _ = self.play(On::Closing, conn);
    }

    fn on_close(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        let mut note = self.note(On::Close, conn);
        note.end = Some(End {
            reason: name(reason),
            received: conn.state.received.clone(),
            unread: conn.input.peek().to_vec(),
            now: note.now,
        });
        let _ = self.finish(note, conn);
    }
}

fn name(reason: &CloseReason) -> &'static str {
    let text = reason.to_string();
    let named = CloseReason::NAMES.into_iter().find(|name| text.starts_with(name));
    named.expect("a reason's text begins with its name")
}

/// Sets a timer that its note will know.
pub fn arm(conn: &mut Conn<'_, Probe>, after: Duration) -> TimerId {
    let due = Instant::now() + after;
    let timer = conn.set_timer(after);
    conn.state.timers.push((timer, due));
    timer
}

/// Takes all that came into [`Kept::received`].
pub fn collect(conn: &mut Conn<'_, Probe>) {
    conn.state.received.extend_from_slice(conn.input.take_all());
}

/// Runs a closure on the connection's reactor, and waits for what it returns.
#[track_caller]
pub fn run<T: Send + 'static>(
    remote: &Remote<Probe>,
    closure: impl FnOnce(&mut Conn<'_, Probe>) -> T + Send + 'static,
) -> T {
    let (send, answer) = channel();
    let closure = move |_: &mut Probe, conn: &mut Conn<'_, Probe>| {
        let _ = send.send(closure(conn)); // Nobody listens if the test has failed.
        Action::Continue
    };
    remote.run(closure).expect("the connection is open");
    receive(&answer)
}

/// The engine, its notes, and what they said so far.
pub struct Stage {
    engine: Option<TestEngine>,
    told: Receiver<Told>,
    history: RefCell<Vec<(ConnId, On, Option<&'static str>)>>,
}

impl Stage {
    /// The builder most tests want: with one reactor, so notes come in the order of the callbacks.
    pub fn builder() -> Builder {
        Engine::builder().reactors(1)
    }

    pub fn start(
        builder: Builder,
        script: impl Fn(On, &mut Conn<'_, Probe>) -> Action + Send + Sync + 'static,
    ) -> Self {
        let (send, told) = channel();
        let script: Arc<Script> = Arc::new(script);
        let factory = move |_| Probe { script: Arc::clone(&script), told: send.clone() };
        let engine = Some(TestEngine::start(builder, factory));
        Stage { engine, told, history: RefCell::default() }
    }

    /// Connects a client, and waits until its `on_open` has returned.
    #[track_caller]
    pub fn open(&self) -> (std::net::TcpStream, Remote<Probe>) {
        let client = self.connect();
        (client, self.wait_for(On::Open).remote)
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
            if let Some(note) = self.log(receive(&self.told)) {
                return note;
            }
        }
    }

    /// The next callback, if it was told of already.
    pub fn try_next(&self) -> Option<Note> {
        self.told.try_iter().find_map(|told| self.log(told))
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
        self.over(self.wait_for(On::Close))
    }

    /// As [`closed`](Self::closed), and no other callback may come first.
    #[track_caller]
    pub fn expect_closed(&self) -> End {
        self.over(self.expect(On::Close))
    }

    #[track_caller]
    fn over(&self, note: Note) -> End {
        let dropped = (note.remote.id(), On::Dropped, None);
        while !self.history.borrow().contains(&dropped) {
            self.log(receive(&self.told));
        }
        note.end.expect("on_close was noted with the end")
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
        self.history.borrow().iter().filter(|entry| entry.1 == on).count()
    }

    fn log(&self, told: Told) -> Option<Note> {
        let (entry, note) = match told {
            Told::Dropped(id) => ((id, On::Dropped, None), None),
            Told::Called(note) => {
                let reason = note.end.as_ref().map(|end| end.reason);
                ((note.remote.id(), note.on, reason), Some(*note))
            }
        };
        self.history.borrow_mut().push(entry);
        note
    }

    /// The engine is gone: did every connection live one whole life, with the reason that was
    /// counted?
    fn check(&self, engine: &Engine) {
        let mut lives: HashMap<ConnId, Vec<On>> = HashMap::new();
        let mut reasons = [0; CloseReason::NAMES.len()];
        for &(id, on, reason) in self.history.borrow().iter() {
            lives.entry(id).or_default().push(on);
            let counted = CloseReason::NAMES.iter().position(|name| Some(*name) == reason);
            counted.into_iter().for_each(|index| reasons[index] += 1);
        }
        lives.values().for_each(|life| assert_whole(life));
        let panics: u64 = engine.stats().reactors.iter().map(|reactor| reactor.panics).sum();
        assert_eq!(panics, 0, "a script's own checks failed");
        for (index, name) in CloseReason::NAMES.iter().enumerate() {
            let counted: u64 =
                engine.stats().reactors.iter().map(|reactor| reactor.closed[index]).sum();
            assert_eq!(reasons[index], counted, "on_close was told {name:?}, and it was counted");
        }
    }
}

/// A life begins with `on_open`, has its end of input at most once and no traffic after it, and
/// ends with `on_closing`, `on_close` and then the drop of the state.
fn assert_whole(life: &[On]) {
    let count = |on| life.iter().filter(|each| **each == on).count();
    assert_eq!(life.first(), Some(&On::Open), "a life begins with on_open: {life:?}");
    let end = [On::Closing, On::Close, On::Dropped];
    assert!(life.ends_with(&end), "a life ends with on_closing and on_close: {life:?}");
    let once = [On::Open, On::Closing, On::Close, On::Dropped].map(count);
    assert_eq!((once, count(On::End).min(2)), ([1; 4], count(On::End).min(1)), "{life:?}");
    let after_end = life.iter().skip_while(|on| **on != On::End);
    assert!(!after_end.into_iter().any(|on| *on == On::Traffic), "traffic after on_end: {life:?}");
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
        if thread::panicking() {
            return; // The test failed already; a second panic would hide why.
        }
        for told in self.told.try_iter() {
            self.log(told);
        }
        self.check(&engine);
    }
}
