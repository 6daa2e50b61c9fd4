//! What a crowd of connections took goes back to the system when it has gone, although other memory
//! that was taken meanwhile stays in use.

#![cfg(target_os = "linux")]

use std::io::Write;

use crate::common::alone::alone;
use crate::common::{TestEngine, eventually};
use millstream::{Action, Conn, Engine, EventHandler};

const CONNECTIONS: usize = 100;
const PIECE: usize = 16 * 1024;
const PIECES: usize = 96;
const MIB: usize = 1024 * 1024;

/// Sends much to each client that asks, and takes a little memory next to each piece that it keeps.
#[derive(Default)]
struct Flood {
    #[expect(clippy::vec_box, reason = "each is to be taken from the allocator by itself")]
    kept: Vec<Box<[u8; 100]>>,
}

impl EventHandler for Flood {
    type State = ();

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.input.take_all();
        for _ in 0..PIECES {
            for part in [7; PIECE].chunks(PIECE / 4) {
                conn.output.write(part);
            }
            self.kept.push(Box::new([7; 100]));
        }
        Action::Continue
    }
}

/// How many bytes of memory the process has.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it is there");
    let kib = line.split_whitespace().nth(1).expect("a number").parse::<usize>();
    kib.expect("a number") * 1024
}

#[test]
fn memory_goes_back_when_a_crowd_has_gone() {
    alone(|| {
        // What stays in the sockets of those that don't read is not the process's.
        let options = millstream::SocketOptions::new().send_buffer(64 * 1024);
        let builder = Engine::builder().reactors(1).memory_budget(None).socket_options(options);
        let engine = TestEngine::start(builder, |_| Flood::default());
        let before = resident();
        for _ in 0..3 {
            let crowd: Vec<_> = (0..CONNECTIONS).map(|_| engine.connect()).collect();
            crowd.iter().for_each(|mut client| client.write_all(b"go").expect("it is read"));
            let held = || engine.stats().memory_held;
            eventually("all of them wait", || held() > CONNECTIONS * MIB / 2);
            eventually("it is there", || resident() > before + CONNECTIONS * MIB / 2);
            drop(crowd);
            eventually("they are gone", || engine.connections() == 0 && held() == 0);
        }
        eventually("the memory is the system's", || resident() < before + 16 * MIB);
    });
}
