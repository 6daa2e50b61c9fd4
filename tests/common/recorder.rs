//! A handler that does what the test's script says, and records every callback.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millstream::{
    Action, CloseReason, Conn, ConnId, Datagram, DatagramSocket, Engine, EventHandler, Reactor,
    ReactorAction, Remote, ShutdownAction, TimerId,
};

use super::DEADLINE;

/// Which callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    Open,
    Traffic,
    End,
    HighWater,
    LowWater,
    /// The handshake of a layer that came in later is over.
    Tls,
    Timer,
    Closing,
    Close,
    /// Not a callback: the connection's state was dropped.
    Dropped,
    Tick,
    /// A timer without a connection has fired.
    ReactorTimer,
    Shutdown,
    /// One came to a socket that is connected.
    Datagram,
    /// A socket for datagrams begins to close.
    DatagramClosing,
}

impl On {
    /// What a handler returns that doesn't care.
    pub fn usual(self) -> Action {
        if self == On::End { Action::Close } else { Action::Continue }
    }
}

/// A callback that ran, recorded when it had returned or panicked.
#[derive(Clone)]
pub struct Note {
    pub on: On,
    /// Of which connection, if of one.
    pub id: Option<ConnId>,
    /// None after the connection's end, and where there is no connection.
    remote: Option<Remote<Recorder>>,
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
    /// For `Timer`, if it was set with [`arm`].
    pub fired: Option<Fired>,
    /// For `ReactorTimer`: its value.
    pub value: u64,
    /// For `Closing`, `Close` and `DatagramClosing`: one of [`CloseReason::NAMES`].
    pub reason: Option<&'static str>,
    /// For `Close`: what the script put into [`Kept::received`]. For `Datagram`: its bytes.
    pub received: Vec<u8>,
    /// For `Close`: what was unread when it began.
    pub never_read: Vec<u8>,
    /// For `Shutdown`: how many connections the reactor had.
    pub connections: usize,
}

/// A timer that was set with [`arm`].
#[derive(Clone, Copy, Debug)]
pub struct Fired {
    /// The how many-th of its connection it was, from 0.
    pub number: usize,
    /// When it was due by the engine's time.
    pub due: Instant,
    /// The earliest time that was right by the system's.
    pub earliest: Instant,
}

impl Note {
    pub fn remote(&self) -> Remote<Recorder> {
        self.remote.clone().expect("the callback of a connection")
    }

    fn new(on: On, id: Option<ConnId>, now: Instant) -> Self {
        Note {
            on,
            id,
            remote: None,
            now,
            at: Instant::now(),
            unread: 0,
            pending: 0,
            left: 0,
            fired: None,
            value: 0,
            reason: None,
            received: Vec::new(),
            never_read: Vec::new(),
            connections: 0,
        }
    }
}

/// All notes so far. Where one reactor writes it, it has the order of the callbacks.
#[derive(Clone, Default)]
pub struct Log(Arc<(Mutex<Vec<Note>>, Condvar)>);

impl Log {
    pub fn notes(&self) -> MutexGuard<'_, Vec<Note>> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the note at this place.
    #[track_caller]
    pub fn wait(&self, place: usize) -> Note {
        let waits = |notes: &mut Vec<Note>| notes.len() <= place;
        let waited = self.0.1.wait_timeout_while(self.notes(), DEADLINE, waits);
        let (notes, _) = waited.unwrap_or_else(PoisonError::into_inner);
        notes.get(place).unwrap_or_else(|| panic!("no callback within {DEADLINE:?}")).clone()
    }

    /// How often a callback ran.
    pub fn count(&self, on: On) -> usize {
        self.notes().iter().filter(|note| note.on == on).count()
    }

    fn push(&self, note: Note) {
        self.notes().push(note);
        self.0.1.notify_all();
    }

    /// The engine has ended: did every connection live one whole life, with the reason that was
    /// counted?
    pub fn check(&self, engine: &Engine) {
        let notes = self.notes();
        let mut lives: HashMap<ConnId, Vec<On>> = HashMap::new();
        let mut reasons = [0; CloseReason::NAMES.len()];
        for note in notes.iter() {
            if let Some(id) = note.id {
                lives.entry(id).or_default().push(note.on);
            }
            if note.on == On::Close {
                let index = CloseReason::NAMES.iter().position(|name| Some(*name) == note.reason);
                reasons[index.expect("a known reason")] += 1;
            }
        }
        lives.values().for_each(|life| assert_whole(life));
        let mut unopened = 0;
        for reactor in engine.stats().reactors {
            unopened += i128::from(reactor.accepted);
            for (told, counted) in reasons.iter_mut().zip(reactor.closed) {
                *told -= i128::from(counted);
            }
        }
        unopened -= lives.len() as i128;
        let differences: Vec<_> = CloseReason::NAMES.iter().zip(reasons).collect();
        assert!(
            reasons.iter().all(|difference| *difference <= 0)
                && reasons.iter().sum::<i128>() == -unopened,
            "how often on_close was told more of a reason than was counted, with {unopened} \
             connections that never opened: {differences:?}"
        );
    }
}

/// A life begins with `on_open`, has its end of input at most once and no traffic after it, and
/// ends with `on_closing`, `on_close` and then the drop of the state.
fn assert_whole(life: &[On]) {
    let count = |on| life.iter().filter(|each| **each == on).count();
    assert_eq!(life.first(), Some(&On::Open), "a life begins with on_open: {life:?}");
    let end = [On::Closing, On::Close, On::Dropped];
    assert!(life.ends_with(&end), "a life ends with on_closing and on_close: {life:?}");
    assert_eq!([On::Open, On::Closing, On::Close, On::Dropped].map(count), [1; 4], "{life:?}");
    assert!(count(On::End) <= 1, "on_end at most once: {life:?}");
    let mut after_end = life.iter().skip_while(|on| **on != On::End);
    assert!(!after_end.any(|on| *on == On::Traffic), "traffic after the end: {life:?}");
    let marks = life.iter().filter(|on| matches!(on, On::HighWater | On::LowWater));
    let paired = marks.enumerate().all(|(index, on)| (*on == On::LowWater) == (index % 2 == 1));
    assert!(paired, "each low mark follows a high one: {life:?}");
}

/// The state of a connection.
#[derive(Default)]
pub struct Kept {
    /// For the script to collect what came.
    pub received: Vec<u8>,
    /// For the script to remember something.
    pub mark: usize,
    /// All timers that were set with [`arm`], and when they are due.
    pub timers: Vec<(TimerId, Fired)>,
    guard: Option<Guard>,
}

/// Records that the state was dropped.
struct Guard(ConnId, Log);

impl Drop for Guard {
    fn drop(&mut self) {
        self.1.push(Note::new(On::Dropped, Some(self.0), Instant::now()));
    }
}

/// What the handler does in a connection's callbacks; in `Closing` and `Close`, what it returns
/// does not count.
type Script = dyn Fn(On, &mut Conn<'_, Recorder>) -> Action + Send + Sync;
/// What it does in `Tick` or `Shutdown`.
type ReactorScript = dyn Fn(&mut Reactor<'_, Recorder>) + Send + Sync;
/// What it does in `ReactorTimer`.
type TimerScript = dyn Fn(&mut Reactor<'_, Recorder>, TimerId, u64) + Send + Sync;

/// The handler.
#[derive(Clone)]
pub struct Recorder {
    pub log: Log,
    script: Arc<Script>,
    on_tick: Arc<ReactorScript>,
    at_shutdown: Arc<ReactorScript>,
    on_reactor_timer: Arc<TimerScript>,
    on_shutdown: ShutdownAction,
}

impl Recorder {
    pub fn new(
        script: impl Fn(On, &mut Conn<'_, Recorder>) -> Action + Send + Sync + 'static,
    ) -> Self {
        let nothing: Arc<ReactorScript> = Arc::new(|_| {});
        let (log, script) = (Log::default(), Arc::new(script));
        let (on_tick, at_shutdown) = (Arc::clone(&nothing), nothing);
        let on_reactor_timer: Arc<TimerScript> = Arc::new(|_, _, _| {});
        let on_shutdown = ShutdownAction::Close;
        Recorder { log, script, on_tick, at_shutdown, on_reactor_timer, on_shutdown }
    }

    pub fn with_reactor_timer(
        self,
        script: impl Fn(&mut Reactor<'_, Recorder>, TimerId, u64) + Send + Sync + 'static,
    ) -> Self {
        Recorder { on_reactor_timer: Arc::new(script), ..self }
    }

    pub fn with_tick(
        self,
        script: impl Fn(&mut Reactor<'_, Recorder>) + Send + Sync + 'static,
    ) -> Self {
        Recorder { on_tick: Arc::new(script), ..self }
    }

    pub fn with_shutdown(
        self,
        script: impl Fn(&mut Reactor<'_, Recorder>) + Send + Sync + 'static,
    ) -> Self {
        Recorder { at_shutdown: Arc::new(script), ..self }
    }

    /// Its connections are drained when the engine stops.
    pub fn draining(self) -> Self {
        Recorder { on_shutdown: ShutdownAction::Drain, ..self }
    }

    fn play(&self, on: On, conn: &mut Conn<'_, Self>) -> Action {
        let note = note_of(on, conn);
        self.play_noted(note, conn)
    }

    fn play_noted(&self, mut note: Note, conn: &mut Conn<'_, Self>) -> Action {
        let outcome = catch_unwind(AssertUnwindSafe(|| (self.script)(note.on, conn)));
        note.left = conn.output.pending();
        if note.on == On::Close {
            note.received = conn.state.received.clone();
        }
        self.log.push(note);
        outcome.unwrap_or_else(|panic| resume_unwind(panic))
    }
}

fn note_of(on: On, conn: &mut Conn<'_, Recorder>) -> Note {
    let mut note = Note::new(on, Some(conn.id()), conn.now());
    note.remote = Some(conn.remote());
    note.unread = conn.input.len();
    note.pending = conn.output.pending();
    note
}

fn name(reason: &CloseReason) -> &'static str {
    let text = reason.to_string();
    let named = CloseReason::NAMES.into_iter().find(|name| text.starts_with(name));
    named.expect("a reason's text begins with its name")
}

impl EventHandler for Recorder {
    const TAKES_DATAGRAMS: bool = true;

    type State = Kept;

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.state.guard = Some(Guard(conn.id(), self.log.clone()));
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

    fn on_tls(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.play(On::Tls, conn)
    }

    fn on_timer(&mut self, conn: &mut Conn<'_, Self>, timer: TimerId, value: u64) -> Action {
        let mut note = note_of(On::Timer, conn);
        let armed = conn.state.timers.iter().find(|(id, _)| *id == timer);
        note.fired = armed.map(|(_, fired)| *fired);
        assert!(note.fired.is_none_or(|fired| fired.number as u64 == value), "its own value");
        self.play_noted(note, conn)
    }

    fn on_closing(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        let mut note = note_of(On::Closing, conn);
        note.reason = Some(name(reason));
        let _ = self.play_noted(note, conn);
    }

    fn on_close(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        let mut note = note_of(On::Close, conn);
        note.never_read = conn.input.peek().to_vec();
        note.reason = Some(name(reason));
        let _ = self.play_noted(note, conn);
    }

    fn on_tick(&mut self, reactor: &mut Reactor<'_, Self>) -> ReactorAction {
        (self.on_tick)(reactor);
        self.log.push(Note::new(On::Tick, None, reactor.now()));
        ReactorAction::Continue
    }

    fn on_reactor_timer(
        &mut self,
        reactor: &mut Reactor<'_, Self>,
        timer: TimerId,
        value: u64,
    ) -> ReactorAction {
        (self.on_reactor_timer)(reactor, timer, value);
        let mut note = Note::new(On::ReactorTimer, None, reactor.now());
        note.value = value;
        self.log.push(note);
        ReactorAction::Continue
    }

    /// Replies as often as the first byte says, but where the socket is a client's.
    fn on_datagram(
        &mut self,
        socket: &mut DatagramSocket<'_, Self>,
        datagram: Datagram<'_>,
    ) -> Action {
        if socket.peer_addr().is_some() {
            let mut note = Note::new(On::Datagram, None, socket.now());
            note.received = datagram.bytes.to_vec();
            self.log.push(note);
            return Action::Continue;
        }
        for _ in 0..datagram.bytes.first().copied().unwrap_or(1) {
            socket.reply(&datagram, datagram.bytes).expect("there is room");
        }
        Action::Continue
    }

    fn on_datagram_closing(&mut self, socket: &mut DatagramSocket<'_, Self>, reason: &CloseReason) {
        assert!(socket.is_closing() && !socket.remote().is_open());
        if socket.peer_addr().is_some() {
            socket.send(&[0; 3]).expect("there is room"); // The server sends nothing back.
        }
        let mut note = Note::new(On::DatagramClosing, None, socket.now());
        note.reason = Some(name(reason));
        self.log.push(note);
    }

    fn on_shutdown(&mut self, reactor: &mut Reactor<'_, Self>) -> ShutdownAction {
        let mut note = Note::new(On::Shutdown, None, reactor.now());
        note.connections = reactor.connections();
        (self.at_shutdown)(reactor);
        self.log.push(note);
        self.on_shutdown
    }
}

/// Sets a timer that its note will know.
pub fn arm(conn: &mut Conn<'_, Recorder>, after: Duration) -> TimerId {
    let (due, earliest) = (conn.now() + after, Instant::now() + after);
    let number = conn.state.timers.len();
    let timer = conn.set_timer(after, number as u64);
    conn.state.timers.push((timer, Fired { number, due, earliest }));
    timer
}

/// Sets a timer again that was set with [`arm`], by its number; its note will know.
pub fn rearm(conn: &mut Conn<'_, Recorder>, number: usize, after: Duration) -> bool {
    let (due, earliest) = (conn.now() + after, Instant::now() + after);
    let timer = conn.state.timers[number].0;
    conn.state.timers[number].1 = Fired { number, due, earliest };
    conn.reset_timer(timer, after)
}

/// Takes all that came into [`Kept::received`].
pub fn keep(conn: &mut Conn<'_, Recorder>) {
    conn.state.received.extend_from_slice(conn.input.take_all());
}

/// A script: sends back what comes.
pub fn echo(on: On, conn: &mut Conn<'_, Recorder>) -> Action {
    conn.output.write(conn.input.take_all());
    on.usual()
}

/// A script: keeps what comes.
pub fn collect(on: On, conn: &mut Conn<'_, Recorder>) -> Action {
    keep(conn);
    on.usual()
}
