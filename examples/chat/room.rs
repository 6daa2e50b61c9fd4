//! The room: what a client writes goes to all others, on whichever reactor they are.
//!
//! Each reactor keeps a list of its own clients. A line goes to each reactor once, and from there
//! to those on its list, as neighbours. Memory is bounded, whatever clients do:
//!
//! - A client has one line on its way. The next one is served when all reactors have told the last.
//! - A client that doesn't read is taken off the list while its output is above the high-water
//!   mark, and is told how many lines it missed when it has caught up. Nor is it read meanwhile.
//! - A line that is too long, or no text, closes its client; so does one that is not whole after a
//!   minute, by the default of `Framed`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use millstream::codec::{
    FrameHandler, Framed, FramedConn, FramedRemote, LineError, Lines, Utf8Lines,
};
use millstream::{Action, Builder, Bytes, CloseReason, ConnId, Engine, Neighbours, ReactorAction};

/// The longest line in bytes.
pub(crate) const LONGEST_LINE: usize = 1024;
/// A client that has more than this many bytes to read still misses what is said.
pub(crate) const HIGH_WATER: usize = 64 * 1024;

/// A client that says nothing for this long is asked to leave.
const MOST_SILENCE: Duration = Duration::from_secs(60 * 60);
/// A client that takes nothing of its output for this long is cut off.
const MOST_STUCK: Duration = Duration::from_secs(60);

/// The handler of a reactor.
#[derive(Default)]
pub(crate) struct Room {
    /// Those of this reactor who have a name and keep up.
    listeners: HashSet<ConnId>,
    /// How many lines they were told.
    told: u64,
}

/// What is known of a client.
#[derive(Default)]
pub(crate) struct Guest {
    /// The first line that it sends; until then it hears nothing.
    name: Option<String>,
    /// How many lines had been told when it last did not keep up.
    heard: u64,
}

/// The options that the room needs.
pub(crate) fn builder() -> Builder {
    Engine::builder()
        .water_marks(HIGH_WATER / 2, HIGH_WATER)
        .read_timeout(MOST_SILENCE)
        .write_timeout(MOST_STUCK)
}

impl FrameHandler for Room {
    type Codec = Utf8Lines;
    type State = Guest;

    fn codec(&self) -> Utf8Lines {
        Lines::new().max_length(LONGEST_LINE).into()
    }

    fn on_open(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        conn.output.write(b"* what is your name?\n");
        Action::Continue
    }

    fn on_frame(&mut self, conn: &mut FramedConn<'_, Self>, line: &str) -> Action {
        let text = match &conn.state.name {
            Some(name) => format!("{name}: {line}\n"),
            None => {
                conn.state.name = Some(line.to_owned());
                self.listeners.insert(conn.id());
                conn.output.write(format!("* welcome, {line}\n").as_bytes());
                format!("* {line} joined\n")
            }
        };
        conn.pause_reading(); // What it sends next waits until this is said.
        let said = ResumeOnDrop(conn.remote());
        self.say(conn, text, Some(said));
        Action::Continue
    }

    fn on_error(&mut self, conn: &mut FramedConn<'_, Self>, error: LineError) -> Action {
        conn.output.write(format!("* {error}\n").as_bytes());
        Action::Close
    }

    fn on_high_water(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        self.listeners.remove(&conn.id());
        conn.state.heard = self.told;
        Action::Continue
    }

    fn on_low_water(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        self.listeners.insert(conn.id());
        let missed = self.told - conn.state.heard;
        if missed > 0 {
            conn.output.write(format!("* you missed {missed} lines\n").as_bytes());
        }
        Action::Continue
    }

    /// It is taken off the list as soon as it is said to close, however long its peer takes to end
    /// its side.
    fn on_closing(&mut self, conn: &mut FramedConn<'_, Self>, reason: &CloseReason) {
        self.listeners.remove(&conn.id());
        if matches!(reason, CloseReason::ReadTimeout | CloseReason::FrameTimeout) {
            conn.output.write(format!("* goodbye: {reason}\n").as_bytes());
        }
        if let Some(name) = &conn.state.name {
            self.say(conn, format!("* {name} left\n"), None);
        }
    }
}

impl Room {
    /// Tells a line to all but the client it is from. `said` is dropped when all reactors have.
    fn say(&mut self, conn: &FramedConn<'_, Self>, line: String, said: Option<ResumeOnDrop>) {
        let (from, line, said) = (conn.id(), Bytes::from(line), Arc::new(said));
        self.tell(conn.neighbours(), from, line.clone());
        let others = (0..conn.reactors().len()).filter(|reactor| *reactor != from.reactor());
        for reactor in others {
            let (line, said) = (line.clone(), Arc::clone(&said));
            // One that has stopped has nobody left to hear it.
            let _ = conn.reactors().run(reactor, move |room, reactor| {
                room.tell(reactor.neighbours(), from, line);
                drop(said);
                ReactorAction::Continue
            });
        }
    }

    /// Tells a line to the clients of this reactor.
    fn tell(&mut self, neighbours: &Neighbours<Framed<Self>>, from: ConnId, line: Bytes) {
        self.told += 1;
        let others = self.listeners.iter().copied().filter(|listener| *listener != from);
        neighbours.write_to_all(others, line);
    }
}

/// Goes on reading from a client when it is dropped.
struct ResumeOnDrop(FramedRemote<Room>);

impl Drop for ResumeOnDrop {
    fn drop(&mut self) {
        // A client that is closing says no more.
        let _ = self.0.run(|_, conn| {
            conn.resume_reading();
            Action::Continue
        });
    }
}
