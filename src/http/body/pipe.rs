//! A bounded way for the pieces of a content, between a reactor and one other place: with the
//! reactor at its reading end for what it sends, and at its writing end for what it receives.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;

use crate::LogLimit;
use crate::http::fields::FieldLines;
use crate::unwind::catch;

/// With this much in it a pipe is full.
pub(in crate::http) const WINDOW: usize = 64 * 1024;
/// At this much one that was full takes more.
const LOW: usize = WINDOW / 2;
/// What a piece takes besides its bytes, so that many tiny ones don't take much more than that.
const PIECE: usize = 64;

/// The way to a reactor that has one end of a pipe.
pub(in crate::http) trait Look: Send + Sync {
    /// Lets it look at the pieces of contents.
    fn look(&self);
}

pub(in crate::http) struct Pipe {
    state: Mutex<PipeState>,
    /// Tells threads at the other end.
    changed: Condvar,
    /// The way to the reactor, once it has one.
    line: OnceLock<Arc<dyn Look>>,
}

#[derive(Default)]
struct PipeState {
    pieces: VecDeque<Bytes>,
    /// How much is in it, with what the pieces take.
    weight: usize,
    /// The writer has ended.
    end: Option<ContentEnd>,
    /// Nobody reads any more.
    closed: bool,
    /// A reader has asked for something.
    wanted: bool,
    /// The reactor has nothing to do until it is asked.
    sleeps: bool,
    /// What the other end waits with.
    waiter: Option<Waiter>,
    /// How many threads wait there.
    threads: usize,
}

/// How a content ends.
#[derive(Clone, Debug)]
pub(in crate::http) enum ContentEnd {
    /// It is complete, with these trailers.
    Finished(FieldLines),
    Aborted,
}

pub(in crate::http) type Waiter = Box<dyn FnOnce() + Send>;

/// What is at the front of a pipe.
pub(in crate::http) enum Front {
    Piece(Bytes),
    Nothing,
    End(ContentEnd),
}

/// Why a pipe takes no piece.
pub(in crate::http) enum Blocked {
    Full(Bytes),
    Closed,
}

impl PipeState {
    fn take(&mut self, most: usize) -> Front {
        let Some(piece) = self.pieces.front_mut() else {
            return self.end.clone().map_or(Front::Nothing, Front::End);
        };
        if piece.len() > most {
            self.weight -= most;
            return Front::Piece(piece.split_to(most));
        }
        let piece = mem::take(piece);
        self.pieces.pop_front();
        self.weight -= piece.len() + PIECE;
        Front::Piece(piece)
    }

    fn push(&mut self, piece: Bytes) {
        self.weight = self.weight.saturating_add(piece.len()).saturating_add(PIECE);
        self.pieces.push_back(piece);
    }
}

impl Pipe {
    pub(in crate::http) fn new() -> Arc<Self> {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Arc::new(Pipe { state, changed, line: OnceLock::new() })
    }

    fn lock(&self) -> MutexGuard<'_, PipeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects it with its reactor, which looks at it now.
    pub(in crate::http) fn attach(&self, line: Arc<dyn Look>) {
        let _ = self.line.set(line); // It has one connection.
    }

    /// Asks the reactor to look. If the connection closes, its end of the pipe is dropped.
    fn ask(&self) {
        if let Some(line) = self.line.get() {
            line.look();
        }
    }

    /// Tells the other end that something has changed.
    fn wake(&self, mut state: MutexGuard<'_, PipeState>) {
        if state.threads > 0 {
            self.changed.notify_all();
        }
        let waiter = state.waiter.take();
        drop(state);
        if let Some(waiter) = waiter {
            run(waiter);
        }
    }

    // What the other end does, on any thread.

    pub(in crate::http) fn send(&self, piece: Bytes) -> Result<(), Blocked> {
        let mut state = self.lock();
        if state.closed {
            return Err(Blocked::Closed);
        }
        if state.weight >= WINDOW {
            return Err(Blocked::Full(piece));
        }
        if piece.is_empty() {
            return Ok(());
        }
        state.push(piece);
        if mem::take(&mut state.sleeps) {
            drop(state);
            self.ask();
        }
        Ok(())
    }

    /// The other end writes nothing more; the first end counts.
    pub(in crate::http) fn end(&self, end: ContentEnd) {
        let mut state = self.lock();
        let is_first = state.end.is_none();
        state.end.get_or_insert(end);
        drop(state);
        if is_first {
            self.ask();
        }
    }

    pub(in crate::http) fn receive(&self) -> Front {
        let mut state = self.lock();
        let front = state.take(usize::MAX);
        let is_first = !mem::replace(&mut state.wanted, true);
        let has_room = state.sleeps && state.weight <= LOW;
        state.sleeps &= !has_room;
        drop(state);
        if is_first || has_room {
            self.ask();
        }
        front
    }

    /// Nobody reads any more at the other end.
    pub(in crate::http) fn abandon(&self) {
        let mut state = self.lock();
        let was_over = mem::replace(&mut state.closed, true) || state.end.is_some();
        state.pieces.clear();
        state.weight = 0;
        drop(state);
        if !was_over {
            self.ask();
        }
    }

    /// Calls `waiter` on the reactor once something is to be done at the other end; on this thread
    /// if the reactor has let go of its end.
    pub(in crate::http) fn wait_with(&self, waiter: Waiter) {
        let mut state = self.lock();
        if state.closed || state.end.is_some() {
            drop(state);
            return run(waiter);
        }
        state.wanted = true;
        state.waiter = Some(waiter);
        drop(state);
        self.ask();
    }

    /// Blocks until a piece may be sent, or nobody takes any.
    pub(in crate::http) fn wait_for_room(&self) {
        self.wait_while(|state| !state.closed && state.weight >= WINDOW);
    }

    /// Blocks until something may be received, or the content ends.
    pub(in crate::http) fn wait_for_piece(&self) {
        self.wait_while(|state| state.pieces.is_empty() && state.end.is_none());
    }

    fn wait_while(&self, condition: fn(&mut PipeState) -> bool) {
        let mut state = self.lock();
        state.threads += 1;
        let waited = self.changed.wait_while(state, condition);
        waited.unwrap_or_else(PoisonError::into_inner).threads -= 1;
    }

    pub(in crate::http) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    pub(in crate::http) fn is_full(&self) -> bool {
        self.lock().weight >= WINDOW
    }
}

/// The reactor's end of the pipe of what it sends.
pub(in crate::http) struct Source(Arc<Pipe>);

impl Source {
    pub(in crate::http) fn new(pipe: &Arc<Pipe>) -> Self {
        Source(Arc::clone(pipe))
    }

    pub(in crate::http) fn attach(&self, line: Arc<dyn Look>) {
        self.0.attach(line);
    }

    /// Takes a piece, of at most this many bytes. After [`Front::Nothing`] the reactor is asked to
    /// look when there is something.
    pub(in crate::http) fn take(&self, most: usize) -> Front {
        let mut state = self.0.lock();
        let front = state.take(most);
        state.sleeps = matches!(front, Front::Nothing);
        front
    }

    /// Tells the writer if it may go on.
    pub(in crate::http) fn tell(&self) {
        let state = self.0.lock();
        if state.weight <= LOW {
            self.0.wake(state);
        }
    }

    /// Whether the writer gave up before it wrote anything.
    pub(in crate::http) fn is_void(&self) -> bool {
        let state = self.0.lock();
        state.pieces.is_empty() && matches!(state.end, Some(ContentEnd::Aborted))
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        state.pieces.clear();
        state.weight = 0;
        self.0.wake(state);
    }
}

/// The reactor's end of the pipe of what it receives.
pub(in crate::http) struct Sink(Arc<Pipe>);

/// What a reader says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Reading {
    /// It has not asked for anything.
    NotYet,
    Goes,
    /// As much waits for it as may; it is told to the reactor when that changes.
    Full,
    /// It takes no more.
    Over,
}

impl Sink {
    pub(in crate::http) fn new(pipe: &Arc<Pipe>) -> Self {
        Sink(Arc::clone(pipe))
    }

    pub(in crate::http) fn put(&self, data: &[u8]) {
        let mut state = self.0.lock();
        if !state.closed {
            state.push(Bytes::copy_from_slice(data));
            self.0.wake(state);
        }
    }

    pub(in crate::http) fn end(&self, end: ContentEnd) {
        let mut state = self.0.lock();
        state.end.get_or_insert(end);
        self.0.wake(state);
    }

    /// Tells the reader if there is something for it.
    pub(in crate::http) fn tell(&self) {
        let state = self.0.lock();
        if !state.pieces.is_empty() {
            self.0.wake(state);
        }
    }

    pub(in crate::http) fn reading(&self) -> Reading {
        let mut state = self.0.lock();
        if state.closed {
            return Reading::Over;
        }
        state.sleeps |= state.weight >= WINDOW;
        match state.wanted {
            _ if state.sleeps => Reading::Full,
            true => Reading::Goes,
            false => Reading::NotYet,
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.end(ContentEnd::Aborted);
    }
}

/// Runs what is a user's.
pub(in crate::http) fn run(waiter: Waiter) {
    static LIMIT: LogLimit = LogLimit::new();
    if let Err(panic) = catch(waiter)
        && let Some(left_out) = LIMIT.admit()
    {
        let panic = panic.message();
        let panic = panic.as_deref().unwrap_or("not a text");
        tracing::error!(left_out, panic, "a closure that waited for a peer panicked");
    }
}
