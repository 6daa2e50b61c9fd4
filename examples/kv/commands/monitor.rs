//! MONITOR: who shows the commands of all clients.

use std::fmt::Write as _;

use millstream::codec::FramedConn;
use millstream::codec::resp::Arguments;
use millstream::{Action, Bytes};

use super::{Call, Failure, Outcome};
use crate::server::Server;
use crate::shards::{Copied, Gather};
use crate::store::Millis;

/// A line has about this many bytes of what a command was, at most.
const MOST_SHOWN: usize = 16 * 1024;

pub fn monitor(
    server: &mut Server,
    conn: &mut FramedConn<'_, Server>,
    _: Arguments<'_>,
) -> Result<Action, Failure> {
    let first = !std::mem::replace(&mut conn.state.is_monitor, true);
    conn.state.client.iter().for_each(|client| client.is_monitor.set(true));
    let change = if first { b"1" } else { b"0" };
    if first {
        server.subscribers.add_monitor(conn.id());
    }
    let told = told(server, change);
    server.ask_everywhere(conn, note, &told, Gather::One);
    Ok(Action::Continue)
}

/// Shows a connection nothing any more.
pub fn leave(server: &mut Server, conn: &mut FramedConn<'_, Server>) {
    if std::mem::take(&mut conn.state.is_monitor) {
        conn.state.client.iter().for_each(|client| client.is_monitor.set(false));
        server.subscribers.remove_monitor(conn.id());
        let told = told(server, b"-1");
        server.tell_everywhere(conn, note, &told);
    }
}

/// What all reactors are told: that this one has one more who wants to see commands, or one less.
fn told(server: &Server, change: &[u8]) -> Copied {
    Copied::of(&[server.shards.own().to_string().as_bytes(), change])
}

/// Notes on which reactor how many want to see commands.
fn note(server: &mut Server, mut call: Call<'_, '_>) -> Outcome {
    let reactor = usize::try_from(call.next_integer()?).unwrap_or(0);
    let change = call.next_integer()?;
    server.monitors.change(reactor, change);
    server.note_alert();
    call.replies.ok();
    Ok(())
}

/// On which reactors somebody wants to see commands.
#[derive(Default)]
pub struct Monitors {
    counts: Vec<i64>,
}

impl Monitors {
    fn change(&mut self, reactor: usize, change: i64) {
        self.counts.resize(self.counts.len().max(reactor + 1), 0);
        self.counts[reactor] += change;
    }

    pub fn any(&self) -> bool {
        self.counts.iter().any(|count| *count > 0)
    }

    pub fn reactors(&self) -> impl Iterator<Item = usize> {
        self.counts.iter().enumerate().filter(|(_, count)| **count > 0).map(|(reactor, _)| reactor)
    }
}

/// The line that shows a command, or only its name if the others are secret.
pub fn line(now: Millis, address: &str, arguments: Arguments<'_>, hides: bool) -> Bytes {
    let mut line = format!("+{}.{:03}000 [0 {address}]", now / 1000, now % 1000);
    for (index, argument) in arguments.enumerate() {
        let argument = if hides && index > 0 { b"(redacted)" } else { argument };
        let room = MOST_SHOWN.saturating_sub(line.len());
        if room == 0 {
            line.push_str(" ...");
            break;
        }
        line.push_str(" \"");
        argument.iter().take(room).for_each(|byte| write_escaped(*byte, &mut line));
        line.push_str(if argument.len() > room { "..." } else { "\"" });
    }
    line.push_str("\r\n");
    line.into()
}

/// Writes a byte as it is between quotes in C.
fn write_escaped(byte: u8, line: &mut String) {
    match byte {
        b'\x07' => line.push_str("\\a"),
        b'\x08' => line.push_str("\\b"),
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => line.push_str(&byte.escape_ascii().to_string()),
        b' '..=b'~' => line.push(byte.into()),
        _ => drop(write!(line, "\\x{byte:02x}")),
    }
}
