//! A handle never reaches the connection that has its place now (F1 of the fault checklist, at the
//! level of the API).

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use millstream::{Action, Conn, Engine, EventHandler, Remote};

use crate::common::TestEngine;
use crate::common::seeds::for_each_seed;

/// Knows each connection by a number that is in its state and is not used again.
struct Numbered {
    shelf: Arc<Shelf>,
}

/// Handles to hammer on, with their connections' numbers: the youngest ones, open or closed.
#[derive(Default)]
struct Shelf {
    next: AtomicU64,
    handles: Mutex<Vec<(u64, Remote<Numbered>)>>,
    /// Closures that ran for another connection than the handle's.
    strangers: AtomicU64,
    /// Requests to open connections, and refusals of closed ones.
    served: AtomicU64,
    refused: AtomicU64,
}

const ON_THE_SHELF: usize = 8;

impl EventHandler for Numbered {
    type State = u64;

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        *conn.state = self.shelf.next.fetch_add(1, Ordering::Relaxed);
        conn.output.write(&conn.state.to_le_bytes());
        let mut handles = self.shelf.handles.lock().expect("nobody panics with it");
        if handles.len() == ON_THE_SHELF {
            handles.remove(0);
        }
        handles.push((*conn.state, conn.remote()));
        Action::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.input.take_all();
        conn.output.write(&conn.state.to_le_bytes());
        Action::Continue
    }
}

impl Shelf {
    /// Asks a connection from the shelf for something, and now and then closes it.
    fn hammer(self: &Arc<Self>, random: &mut fastrand::Rng) {
        let chosen = {
            let handles = self.handles.lock().expect("nobody panics with it");
            handles.get(random.usize(..ON_THE_SHELF)).cloned()
        };
        let Some((number, remote)) = chosen else { return thread::yield_now() };
        let asked = match random.u32(..100) {
            0 => remote.close(),
            1..40 => remote.write(number.to_le_bytes().to_vec()),
            40..60 => remote.wake(),
            _ => {
                let shelf = Arc::clone(self);
                remote.run(move |_, conn| {
                    let stranger = *conn.state != number;
                    shelf.strangers.fetch_add(u64::from(stranger), Ordering::Relaxed);
                    Action::Continue
                })
            }
        };
        let count = if asked.is_ok() { &self.served } else { &self.refused };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Reads a few numbers from a connection: all must be its own. The server may close it meanwhile.
fn read_numbers(client: &mut TcpStream) {
    let mut own = None;
    let mut number = [0; 8];
    for _ in 0..6 {
        match client.read_exact(&mut number) {
            Ok(()) => assert_eq!(*own.get_or_insert(number), number, "a stranger's bytes"),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// F1 of the fault checklist, at the level of the API: connections come and go in the same few
/// places while threads keep asking through handles of those that were there before.
#[test]
fn a_stale_handle_never_reaches_the_connection_that_has_its_place_now() {
    for_each_seed(1, hammer_on_places_that_are_used_again);
}

fn hammer_on_places_that_are_used_again(seed: u64) {
    const CONNECTIONS: usize = 3_000;
    let shelf = Arc::new(Shelf::default());
    let of_handlers = Arc::clone(&shelf);
    let factory = move |_| Numbered { shelf: Arc::clone(&of_handlers) };
    let engine = TestEngine::start(Engine::builder().reactors(1), factory);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for thread in 0..3 {
            let (shelf, done) = (&shelf, &done);
            let mut random = fastrand::Rng::with_seed(seed + thread);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    shelf.hammer(&mut random);
                }
            });
        }
        let _done = OnDrop(&done);
        for _ in 0..CONNECTIONS {
            read_numbers(&mut engine.connect());
        }
    });
    let [served, refused, strangers] = [&shelf.served, &shelf.refused, &shelf.strangers]
        .map(|counter| counter.load(Ordering::Relaxed));
    assert_eq!(strangers, 0, "closures ran for a stranger");
    assert!(served > 1_000 && refused > 1_000, "too little asked: {served} and {refused}");
    shelf.handles.lock().expect("nobody panics with it").clear();
}

/// Sets a flag, also when the test fails, so that its threads end.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
