//! The room: what a client writes goes to all others, on whichever reactor they are.
//!
//! Each reactor keeps a list of its own clients. A line is posted once to each reactor, which hands
//! it to the ones on its list. Memory is bounded, whatever clients do:
//!
//! - A client has one line on its way. The next one is served when all reactors have handed out the
//!   last.
//! - A client that doesn't read misses lines while its output is above the high-water mark, and is
//!   told how many when it has caught up.
//! - A line that is too long, or no text, closes its client; so does one that is not whole after a
//!   minute, by the default of [`Framed`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use millstream::codec::{FrameHandler, Framed, FramedConn, LineError, Lines, Utf8Lines};
use millstream::{
    Action, Builder, Bytes, CloseReason, ConnId, Engine, ReactorAction, Reactors, Remote,
};

/// The longest line in bytes.
pub(crate) const LONGEST_LINE: usize = 1024;
/// A client that has more than this many bytes to read still misses what is said.
pub(crate) const HIGH_WATER: usize = 64 * 1024;

/// A client that says nothing for this long is asked to leave.
const MOST_SILENCE: Duration = Duration::from_secs(60 * 60);
/// A client that takes nothing of its output for this long is cut off.
const MOST_STUCK: Duration = Duration::from_secs(60);

/// A client, as other connections and reactors see it.
type Client = Remote<Framed<Room>>;

/// The handler of a reactor.
#[derive(Default)]
pub(crate) struct Room {
    /// Those of this reactor who have a name.
    clients: HashMap<ConnId, Client>,
}

/// What is known of a client.
#[derive(Default)]
pub(crate) struct Guest {
    /// The first line that it sends; until then it hears nothing.
    name: Option<String>,
    missed: u64,
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
                self.clients.insert(conn.id(), conn.remote());
                conn.output.write(format!("* welcome, {line}\n").as_bytes());
                format!("* {line} joined\n")
            }
        };
        conn.pause_reading(); // What it sends next waits until this is said.
        let said = Arc::new(ResumeOnDrop(conn.remote()));
        say(conn.reactors(), conn.id(), text, Some(&said));
        Action::Continue
    }

    fn on_error(&mut self, conn: &mut FramedConn<'_, Self>, error: LineError) -> Action {
        conn.output.write(format!("* {error}\n").as_bytes());
        Action::Close
    }

    /// It has read what waited for it.
    fn on_low_water(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        let missed = std::mem::take(&mut conn.state.missed);
        if missed > 0 {
            conn.output.write(format!("* you missed {missed} lines\n").as_bytes());
        }
        Action::Continue
    }

    /// It is taken off the list as soon as it is said to close, however long its peer takes to end
    /// its side.
    fn on_closing(&mut self, conn: &mut FramedConn<'_, Self>, reason: &CloseReason) {
        self.clients.remove(&conn.id());
        if matches!(reason, CloseReason::ReadTimeout | CloseReason::FrameTimeout) {
            conn.output.write(format!("* goodbye: {reason}\n").as_bytes());
        }
        if let Some(name) = &conn.state.name {
            say(conn.reactors(), conn.id(), format!("* {name} left\n"), None);
        }
    }
}

impl Room {
    /// Hands a line to the clients of this reactor, but for the one it is from.
    fn tell(&self, from: ConnId, line: &Bytes) {
        for client in self.clients.values().filter(|client| client.id() != from) {
            let line = line.clone();
            // One that is closing is taken off the list by its own `on_closing`.
            let _ = client.run(move |_, conn| {
                if conn.output.pending() > HIGH_WATER {
                    conn.state.missed += 1;
                } else {
                    conn.output.write_bytes(line);
                }
                Action::Continue
            });
        }
    }
}

/// Posts a line to all reactors, the own one included. `said` is dropped when all have handed it
/// out.
fn say(
    reactors: &Reactors<Framed<Room>>,
    from: ConnId,
    line: String,
    said: Option<&Arc<ResumeOnDrop>>,
) {
    let line = Bytes::from(line);
    for reactor in 0..reactors.len() {
        let (line, said) = (line.clone(), said.cloned());
        // One that has stopped has nobody left to hear it.
        let _ = reactors.run(reactor, move |room, _| {
            room.tell(from, &line);
            drop(said);
            ReactorAction::Continue
        });
    }
}

/// Goes on reading from a client when it is dropped.
struct ResumeOnDrop(Client);

impl Drop for ResumeOnDrop {
    fn drop(&mut self) {
        // A client that is closing says no more.
        let _ = self.0.run(|_, conn| {
            conn.resume_reading();
            Action::Continue
        });
    }
}
