//! The handler of all behaviours: it does what the test's script says, and records every callback.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millstream::{
    Action, CloseReason, Conn, ConnId, Datagram, DatagramSocket, EventHandler, Reactor, Remote,
    TimerId,
};

/// Which callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
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
    Tick,
    Shutdown,
    /// One came to a socket that is connected.
    Datagram,
    /// A socket for datagrams begins to close.
    DatagramClosing,
}

impl On {
    /// What a handler returns that doesn't care.
    pub(crate) fn usual(self) -> Action {
        if matches!(self, On::End | On::Shutdown) { Action::Close } else { Action::Continue }
    }
}

/// A callback that ran, recorded when it had returned or panicked.
#[derive(Clone)]
pub(crate) struct Note {
    pub(crate) on: On,
    /// Of which connection, if of one.
    pub(crate) id: Option<ConnId>,
    /// None after the connection's end, and where there is no connection.
    remote: Option<Remote<Recorder>>,
    /// The engine's time of the callback.
    pub(crate) now: Instant,
    /// How much was unread when it began.
    pub(crate) unread: usize,
    /// How much output was pending when it began.
    pub(crate) pending: usize,
    /// For `Timer`: the how many-th that was set with [`arm`], and when it was due.
    pub(crate) timer: Option<(usize, Instant)>,
    /// For `Closing`, `Close` and `DatagramClosing`: one of [`CloseReason::NAMES`].
    pub(crate) reason: Option<&'static str>,
    /// For `Close`: what the script put into [`Kept::received`]. For `Datagram`: its bytes.
    pub(crate) received: Vec<u8>,
}

impl Note {
    pub(crate) fn remote(&self) -> Remote<Recorder> {
        self.remote.clone().expect("the callback of a connection")
    }

    fn new(on: On, id: Option<ConnId>, now: Instant) -> Self {
        let (timer, reason, received) = (None, None, Vec::new());
        Note { on, id, remote: None, now, unread: 0, pending: 0, timer, reason, received }
    }
}

/// All notes so far. One reactor writes it, so it has the order of the callbacks.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Note>>>);

impl Log {
    pub(crate) fn notes(&self) -> MutexGuard<'_, Vec<Note>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often a callback ran.
    pub(crate) fn count(&self, on: On) -> usize {
        self.notes().iter().filter(|note| note.on == on).count()
    }

    fn push(&self, note: Note) {
        self.notes().push(note);
    }
}

/// The state of a connection.
#[derive(Default)]
pub(crate) struct Kept {
    /// For the script to collect what came.
    pub(crate) received: Vec<u8>,
    /// For the script to remember something.
    pub(crate) mark: usize,
    /// All timers that were set with [`arm`], and when they are due.
    timers: Vec<(TimerId, Instant)>,
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
/// What it does in `Tick` and `Shutdown`.
type ReactorScript = dyn Fn(On, &mut Reactor<'_>) -> Action + Send + Sync;

/// The handler.
#[derive(Clone)]
pub(crate) struct Recorder {
    pub(crate) log: Log,
    script: Arc<Script>,
    reactor_script: Arc<ReactorScript>,
}

impl Recorder {
    pub(crate) fn new(
        script: impl Fn(On, &mut Conn<'_, Recorder>) -> Action + Send + Sync + 'static,
    ) -> Self {
        let reactor_script = Arc::new(|on: On, _: &mut Reactor<'_>| on.usual());
        Recorder { log: Log::default(), script: Arc::new(script), reactor_script }
    }

    pub(crate) fn with_reactor(
        self,
        script: impl Fn(On, &mut Reactor<'_>) -> Action + Send + Sync + 'static,
    ) -> Self {
        Recorder { reactor_script: Arc::new(script), ..self }
    }

    fn play(&self, on: On, conn: &mut Conn<'_, Self>) -> Action {
        let note = note_of(on, conn);
        self.play_noted(note, conn)
    }

    fn play_noted(&self, mut note: Note, conn: &mut Conn<'_, Self>) -> Action {
        let outcome = catch_unwind(AssertUnwindSafe(|| (self.script)(note.on, conn)));
        if note.on == On::Close {
            note.received = conn.state.received.clone();
        }
        self.log.push(note);
        outcome.unwrap_or_else(|panic| resume_unwind(panic))
    }

    fn play_reactor(&self, on: On, reactor: &mut Reactor<'_>) -> Action {
        let action = (self.reactor_script)(on, reactor);
        self.log.push(Note::new(on, None, reactor.now()));
        action
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

    fn on_timer(&mut self, conn: &mut Conn<'_, Self>, timer: TimerId) -> Action {
        let mut note = note_of(On::Timer, conn);
        let number = conn.state.timers.iter().position(|(id, _)| *id == timer);
        note.timer = number.map(|number| (number, conn.state.timers[number].1));
        self.play_noted(note, conn)
    }

    fn on_closing(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        let mut note = note_of(On::Closing, conn);
        note.reason = Some(name(reason));
        let _ = self.play_noted(note, conn);
    }

    fn on_close(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        let mut note = note_of(On::Close, conn);
        note.reason = Some(name(reason));
        let _ = self.play_noted(note, conn);
    }

    fn on_tick(&mut self, reactor: &mut Reactor<'_>) -> Action {
        self.play_reactor(On::Tick, reactor)
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

    fn on_shutdown(&mut self, reactor: &mut Reactor<'_>) -> Action {
        self.play_reactor(On::Shutdown, reactor)
    }
}

/// Sets a timer that its note will know.
pub(crate) fn arm(conn: &mut Conn<'_, Recorder>, after: Duration) -> TimerId {
    let timer = conn.set_timer(after);
    conn.state.timers.push((timer, conn.now() + after));
    timer
}

/// A script: sends back what comes.
pub(crate) fn echo(on: On, conn: &mut Conn<'_, Recorder>) -> Action {
    conn.output.write(conn.input.take_all());
    on.usual()
}

/// A script: keeps what comes.
pub(crate) fn collect(on: On, conn: &mut Conn<'_, Recorder>) -> Action {
    conn.state.received.extend_from_slice(conn.input.take_all());
    on.usual()
}
