//! When and how requests complete, and what a closed connection answers (F18 of the fault
//! checklist).

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use millstream::{
    Action, Builder, CloseReason, Closed, Conn, Engine, EventHandler, Remote, SocketOptions,
};

use super::{News, Outcomes, Reporter, Rig};
use crate::common::{
    DEADLINE, TestEngine, assert_same, pattern, read_exactly, read_to_end, receive, reset,
};

/// A server that can't push much into the kernel while its client doesn't read.
fn narrow() -> Builder {
    Engine::builder().socket_options(SocketOptions::new().send_buffer(256 * 1024))
}

/// So much that it doesn't fit into the kernel's buffers of a [`narrow`] server and its client.
const CHUNKS: usize = 256;
const CHUNK: usize = 64 * 1024;

/// Writes the chunks, each with a completion. Returns how many had completed when the reactor had
/// seen all and the client had read nothing.
fn write_chunks(remote: &Remote<Reporter>, bytes: &[u8], outcomes: &Outcomes) -> usize {
    let completed = Arc::new(AtomicU64::new(0));
    for (request, chunk) in bytes.chunks(CHUNK).enumerate() {
        let (note, completed) = (outcomes.note(request), Arc::clone(&completed));
        remote.write_then(chunk.to_vec(), move |outcome| {
            completed.fetch_add(1, Ordering::Relaxed);
            note(outcome);
        });
    }
    for _ in 0..4 {
        look(remote, &completed);
    }
    look(remote, &completed)
}

/// Returns how many writes have completed while others wait for the kernel. Each look is in a later
/// turn of the reactor than the one before.
fn look(remote: &Remote<Reporter>, completed: &Arc<AtomicU64>) -> usize {
    let (sender, seen) = channel();
    let completed = Arc::clone(completed);
    let look = move |_: &mut Reporter, conn: &mut Conn<'_, Reporter>| {
        assert!(conn.output.pending() > 0, "the kernel took all: the test shows nothing");
        sender.send(completed.load(Ordering::Relaxed)).expect("the test waits");
        Action::Continue
    };
    remote.run(look).expect("it is open");
    receive(&seen) as usize
}

#[test]
fn a_write_completes_when_its_bytes_were_taken_and_not_before() {
    let rig = Rig::with(narrow());
    let (mut client, remote) = rig.connect();
    let bytes = pattern(CHUNKS * CHUNK, 1);
    let outcomes = Outcomes::new();
    let before = write_chunks(&remote, &bytes, &outcomes);
    assert!(before < CHUNKS, "{before} of {CHUNKS} completed while the client read nothing");
    assert_same(&read_exactly(&mut client, bytes.len()), &bytes);
    assert_eq!(outcomes.of(CHUNKS), [Ok(()); CHUNKS]);
}

#[test]
fn an_empty_write_completes_too() {
    let rig = Rig::new();
    let (_client, remote) = rig.connect();
    let outcomes = Outcomes::new();
    remote.write_then("", outcomes.note(0));
    assert_eq!(outcomes.of(1), [Ok(())]);
}

/// F18 of the fault checklist.
#[test]
fn writes_that_a_reset_overtakes_complete_with_closed_the_earlier_ones_with_ok() {
    let rig = Rig::with(narrow());
    let (client, remote) = rig.connect();
    let outcomes = Outcomes::new();
    let before = write_chunks(&remote, &pattern(CHUNKS * CHUNK, 2), &outcomes);
    reset(client);
    let outcomes = outcomes.of(CHUNKS);
    let taken = outcomes.iter().take_while(|outcome| outcome.is_ok()).count();
    assert!(taken >= before, "{taken} completed well, and {before} had before the reset");
    assert!(taken < CHUNKS, "nobody read, and all completed well");
    assert!(outcomes[taken..].iter().all(|outcome| *outcome == Err(Closed)), "out of order");
    assert!(rig.close_reason().starts_with("failed"));
}

#[test]
fn a_write_behind_a_close_completes_with_closed() {
    let rig = Rig::new();
    let (mut client, remote) = rig.connect();
    let outcomes = Outcomes::new();
    remote.write_then("before", outcomes.note(0));
    remote.close_then(outcomes.note(1));
    remote.write_then("after", outcomes.note(2));
    assert_eq!(read_to_end(&mut client), b"before");
    drop(client);
    assert_eq!(outcomes.of(3), [Ok(()), Ok(()), Err(Closed)]);
}

#[test]
fn a_write_beyond_the_cap_completes_with_closed() {
    let rig = Rig::with(narrow().output_cap(1 << 20));
    let (client, remote) = rig.connect();
    let outcomes = Outcomes::new();
    remote.write_then(vec![0; (1 << 20) + 1], outcomes.note(0));
    assert_eq!(outcomes.of(1), [Err(Closed)]);
    assert_eq!(rig.close_reason(), "output overflow");
    drop(client);
}

#[test]
fn a_close_completes_after_on_close_for_everyone_who_asked() {
    let rig = Rig::new();
    let (mut client, remote) = rig.connect();
    let outcomes = Outcomes::new();
    let closed_before = Arc::new(AtomicBool::new(false));
    let (note, seen, handle) = (outcomes.note(0), Arc::clone(&closed_before), remote.clone());
    remote.close_then(move |outcome| {
        seen.store(!handle.is_open(), Ordering::Relaxed);
        note(outcome);
    });
    (1..10).for_each(|request| remote.close_then(outcomes.note(request)));
    assert_eq!(read_to_end(&mut client), b"");
    drop(client);
    assert_eq!(outcomes.of(10), [Ok(()); 10]);
    assert!(closed_before.load(Ordering::Relaxed), "it completed while the connection was open");
    assert!(matches!(rig.news.try_recv(), Ok(News::Closed(..))), "it completed before on_close");
}

#[test]
fn a_close_completes_with_ok_also_if_the_peer_resets_meanwhile() {
    let rig = Rig::with(narrow());
    let (client, remote) = rig.connect();
    let outcomes = Outcomes::new();
    remote.write(pattern(CHUNKS * CHUNK, 3)).expect("it is open");
    remote.close_then(outcomes.note(0));
    reset(client);
    assert_eq!(outcomes.of(1), [Ok(())]);
}

#[test]
fn completions_run_on_the_reactors_thread_and_once_it_is_closed_on_the_callers() {
    let rig = Rig::new();
    let (client, remote) = rig.connect();
    let (sender, threads) = channel();
    let tell = |sender: &Sender<_>| {
        let sender = sender.clone();
        move |_| sender.send(thread::current().id()).expect("the test waits")
    };
    remote.write_then("x", tell(&sender));
    let of_write = receive(&threads);
    drop(client);
    let News::Closed(_, reactor) = receive(&rig.news) else { panic!("other news than the end's") };
    assert_eq!(of_write, reactor);
    remote.write_then("x", tell(&sender));
    remote.close_then(tell(&sender));
    let at_once: Vec<_> = threads.try_iter().collect();
    assert_eq!(at_once, [thread::current().id(); 2]);
}

// --- closed connections --------------------------------------------------------------------------

/// Asks for everything that a handle offers: each must answer that the connection is closed.
#[track_caller]
fn assert_closed(remote: &Remote<Reporter>) {
    assert!(!remote.is_open());
    assert_eq!(remote.write("x"), Err(Closed));
    assert_eq!(remote.wake(), Err(Closed));
    assert_eq!(remote.close(), Err(Closed));
    assert_eq!(remote.run(|_, _| unreachable!("it is closed")), Err(Closed));
    let outcomes = Outcomes::new();
    remote.write_then("x", outcomes.note(0));
    remote.close_then(outcomes.note(1));
    assert_eq!(outcomes.of(2), [Err(Closed); 2]);
}

/// Lets several threads at a time find the handles' connections closed.
#[track_caller]
fn assert_closed_for_all(remotes: &[Remote<Reporter>]) {
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..100).for_each(|_| remotes.iter().for_each(assert_closed)));
        }
    });
}

/// F18 of the fault checklist: however the connection came to its end.
#[test]
fn every_method_answers_closed_from_any_thread_after_the_close() {
    let rig = Rig::new();
    let mut remotes = Vec::new();
    type End = fn(TcpStream, &Remote<Reporter>);
    let ends: [(&str, End); 3] = [
        ("peer", |client, _| drop(client)),
        ("failed", |client, _| reset(client)),
        ("local", |mut client, remote| {
            remote.close().expect("it is open");
            assert_eq!(read_to_end(&mut client), b"");
        }),
    ];
    for (reason, end) in ends {
        let (client, remote) = rig.connect();
        end(client, &remote);
        let told = rig.close_reason();
        assert!(told.starts_with(reason), "{told} instead of {reason}");
        remotes.push(remote);
    }
    assert_closed_for_all(&remotes);
}

/// F18 of the fault checklist.
#[test]
fn every_method_answers_closed_after_the_engine_stopped_and_is_gone() {
    let rig = Rig::new();
    let (client, remote) = rig.connect();
    rig.engine.stop(Duration::ZERO).expect("the first stop");
    rig.engine.wait().expect("it ends");
    assert_closed_for_all(std::slice::from_ref(&remote));
    drop((client, rig));
    assert_closed(&remote);
}

/// F18 of the fault checklist: the stop races with requests.
#[test]
fn requests_that_a_stop_overtakes_complete_exactly_once() {
    let rig = Rig::new();
    let (mut client, remote) = rig.connect();
    let outcomes = Outcomes::new();
    let (requests, completed) = (AtomicU64::new(0), Arc::new(AtomicU64::new(0)));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let deadline = Instant::now() + DEADLINE;
                while remote.is_open() {
                    assert!(Instant::now() < deadline, "it is open after the engine ended");
                    // Few enough that a busy machine completes them in the moment that a stop has
                    // for it.
                    let asked = requests.load(Ordering::Relaxed);
                    if asked - completed.load(Ordering::Relaxed).min(asked) > 10_000 {
                        thread::yield_now();
                        continue;
                    }
                    let request = requests.fetch_add(1, Ordering::Relaxed) as usize;
                    let (note, completed) = (outcomes.note(request), Arc::clone(&completed));
                    remote.write_then("x", move |outcome| {
                        completed.fetch_add(1, Ordering::Relaxed);
                        note(outcome);
                    });
                }
            });
        }
        assert_eq!(read_exactly(&mut client, 1_000), [b'x'; 1_000]);
        rig.engine.stop(Duration::ZERO).expect("the first stop");
        rig.engine.wait().expect("it ends");
    });
    let requests = requests.into_inner() as usize;
    let taken = outcomes.of(requests).iter().filter(|outcome| outcome.is_ok()).count();
    assert!(taken >= 1_000, "{taken} completed well");
}

/// Asks its own connection for things in `on_close`, with a handle that it made at `on_open` or
/// that it makes only there.
struct LastWords {
    early: bool,
    said: Sender<(bool, Result<(), Closed>)>,
}

impl EventHandler for LastWords {
    type State = ();

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        if self.early {
            drop(conn.remote());
        }
        Action::Continue
    }

    fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        Action::Continue
    }

    fn on_close(&mut self, conn: &mut Conn<'_, Self>, _reason: &CloseReason) {
        let remote = conn.remote();
        let _ = self.said.send((remote.is_open(), remote.wake()));
    }
}

/// F18 of the fault checklist, and what [`EventHandler::on_close`] says of the handles.
#[test]
fn in_on_close_the_connections_handles_answer_closed_also_one_that_is_made_there() {
    for early in [true, false] {
        let (said, heard) = channel();
        let engine = TestEngine::start(Engine::builder().reactors(1), move |_| LastWords {
            early,
            said: said.clone(),
        });
        drop(engine.connect());
        assert_eq!(receive(&heard), (false, Err(Closed)), "made at on_open: {early}");
    }
}
