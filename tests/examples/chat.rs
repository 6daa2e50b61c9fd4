//! The room of the example `chat`: its memory is bounded, whatever its guests do.

#[path = "../../examples/chat/room.rs"]
mod room;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::thread;

use crate::common::{TestEngine, eventually};
use millstream::SocketOptions;
use millstream::codec::Framed;
use room::{HIGH_WATER, LONGEST_LINE, Room};

/// How many lines are said, of the greatest length: 16 MiB, more than the kernel keeps for who
/// doesn't read.
const LINES: usize = 16 * 1024;

fn join(engine: &TestEngine, name: &str) -> BufReader<TcpStream> {
    let mut guest = BufReader::new(engine.connect());
    assert_eq!(next_line(&mut guest), "* what is your name?");
    writeln!(guest.get_mut(), "{name}").expect("the server reads");
    assert_eq!(next_line(&mut guest), format!("* welcome, {name}"));
    guest
}

#[track_caller]
fn next_line(guest: &mut impl BufRead) -> String {
    let mut line = String::new();
    guest.read_line(&mut line).expect("it is text");
    line.trim_end().to_owned()
}

/// A guest who doesn't read misses lines, and is told how many, and so is the other one if it reads
/// too slowly, on the same reactor and on another one. Meanwhile little waits for the one, and no
/// queue of requests grows, although the speaker doesn't wait for anything.
#[test]
fn a_guest_who_does_not_read_misses_lines_and_takes_no_memory() {
    for reactors in [1, 2] {
        let builder = room::builder()
            .reactors(reactors)
            .socket_options(SocketOptions::new().send_buffer(HIGH_WATER));
        let engine = TestEngine::start(builder, |_| Framed::new(Room::default()));
        let mut speaker = join(&engine, "speaker");
        let mut sleeper = join(&engine, "sleeper");
        assert_eq!(next_line(&mut speaker), "* sleeper joined");
        let mut listener = join(&engine, "listener");
        assert_eq!(next_line(&mut speaker), "* listener joined");
        assert_eq!(next_line(&mut sleeper), "* listener joined");
        let text = "x".repeat(LONGEST_LINE - "speaker: ".len());
        let said = format!("speaker: {text}");
        thread::scope(|scope| {
            let mut mouth = speaker.get_ref();
            let line = format!("{text}\n");
            scope.spawn(move || {
                (0..LINES).for_each(|_| mouth.write_all(line.as_bytes()).expect("it is taken"));
            });
            listen(&mut listener, &said, || {
                let depths = engine.stats().reactors.into_iter().map(|reactor| reactor.inbox_depth);
                let deepest = depths.max().expect("there are reactors");
                assert!(deepest < 20, "{deepest} requests wait");
            });
        });
        let missed = listen(&mut sleeper, &said, || {});
        assert!(missed > 0, "what it had not read was kept");
        drop((speaker, sleeper, listener));
        eventually("all have left", || engine.connections() == 0);
    }
}

/// Reads until the guest has heard each line, or been told that it missed it; returns how many it
/// missed.
fn listen(guest: &mut impl BufRead, said: &str, mut meanwhile: impl FnMut()) -> usize {
    let (mut heard, mut missed) = (0, 0);
    while heard + missed < LINES {
        meanwhile();
        let line = next_line(guest);
        if line == said {
            heard += 1;
        } else {
            let count =
                line.strip_prefix("* you missed ").and_then(|rest| rest.strip_suffix(" lines"));
            let count = count.and_then(|count| count.parse::<usize>().ok());
            missed += count.unwrap_or_else(|| panic!("{line}"));
        }
    }
    assert_eq!(heard + missed, LINES);
    missed
}
