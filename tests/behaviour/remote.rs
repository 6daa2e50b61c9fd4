//! What other threads ask of a connection.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millstream::{Action, Closed, Conn, Engine, Remote};

use crate::common::recorder::{On, Recorder, collect, echo};
use crate::common::{DEADLINE, assert_same, pattern};
use crate::stage::Stage;
use crate::world::World;

/// The number of a request, and what its completion said.
type Answer = (usize, Result<(), Closed>);

/// What completions said, in the order they came.
#[derive(Clone, Default)]
struct Answers(Arc<Mutex<Vec<Answer>>>);

impl Answers {
    /// A completion.
    fn to(&self, request: usize) -> impl FnOnce(Result<(), Closed>) + Send + 'static + use<> {
        let answers = self.clone();
        move |answer| {
            answers.0.lock().unwrap_or_else(PoisonError::into_inner).push((request, answer));
        }
    }

    fn all(&self) -> Vec<Answer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn len(&self) -> usize {
        self.all().len()
    }
}

/// The same answer for the requests from 0 on, in their order.
fn each(count: usize, answer: Result<(), Closed>) -> Vec<Answer> {
    (0..count).map(|request| (request, answer)).collect()
}

/// A closure for [`Remote::run`] that writes.
fn write(
    bytes: &'static [u8],
) -> impl FnOnce(&mut Recorder, &mut Conn<'_, Recorder>) -> Action + Send {
    move |_, conn| {
        conn.output.write(bytes);
        Action::Continue
    }
}

pub(crate) fn requests_are_done_in_the_order_they_were_asked<W: World>(seed: u64) {
    let builder = Engine::builder().inbox_budget(2);
    let mut stage = Stage::<W>::start(seed, builder, |on, conn| {
        if on == On::Traffic {
            conn.output.write(b"(woken)");
        }
        on.usual()
    });
    let (mut peer, remote) = stage.open();
    for _ in 0..20 {
        remote.write("one").unwrap();
        remote.run(write(b" two ")).unwrap();
        remote.wake().unwrap();
        remote.write_then(" three", |_| {});
        remote.run(write(b" four.")).unwrap();
    }
    remote.close().unwrap();
    let expected = b"one two (woken) three four.".repeat(20);
    assert_same(&stage.receive_end(&mut peer), &expected);
    peer.end();
    stage.closed_by("local");
}

/// It counts what handles and handler write, from the first question on.
pub(crate) fn a_handle_tells_how_much_waits<W: World>(seed: u64) {
    let bytes = pattern(W::STUCK, seed);
    let mut stage = Stage::<W>::start(seed, Engine::builder(), collect);
    let (mut peer, remote) = stage.open();
    remote.write(bytes.clone()).expect("it is open");
    assert_eq!(remote.pending(), 0, "nobody asked before");
    stage.until("something waits", |_| remote.pending() > 0);
    assert_same(&stage.receive(&mut peer, bytes.len()), &bytes);
    stage.until("nothing waits", |_| remote.pending() == 0);
    // What the handler itself writes counts like that, to the byte.
    let (told, written) = std::sync::mpsc::channel();
    let more = bytes.clone();
    let write_and_tell = move |_: &mut Recorder, conn: &mut Conn<'_, Recorder>| {
        conn.output.write_bytes(more);
        Action::Continue
    };
    remote.run(write_and_tell).expect("it is open");
    stage.until("something waits", |_| remote.pending() > 0);
    stage.pass(Duration::from_millis(50)); // The network has taken what it takes.
    let tell = move |_: &mut Recorder, conn: &mut Conn<'_, Recorder>| {
        _ = told.send(conn.output.pending());
        Action::Continue
    };
    remote.run(tell).expect("it is open");
    let mut waits = None;
    stage.until("it is told", |_| {
        waits = written.try_recv().ok();
        waits.is_some()
    });
    assert_eq!(Some(remote.pending()), waits);
    remote.close().expect("it is open");
    stage.wait_for(On::Closing);
    assert_ne!(remote.pending(), 0, "it is still to be flushed");
    assert_same(&stage.receive_end(&mut peer), &bytes);
    peer.end();
    stage.closed_by("local");
    assert_eq!(remote.pending(), 0);
}

/// Also where a close waits for what is to be flushed.
pub(crate) fn a_handle_closes_at_once<W: World>(seed: u64) {
    let bytes = pattern(W::STUCK, seed);
    let builder = Engine::builder().close_timeout(DEADLINE);
    let mut stage = Stage::<W>::start(seed, builder, collect);
    let (mut idle, remote) = stage.open();
    remote.close_now().expect("it is open");
    assert!(!remote.is_open());
    assert_same(&stage.receive_end_at_once(&mut idle), b"");
    stage.closed_by("local");
    stage.until("it is known", |_| remote.close_now() == Err(Closed));
    for flushes in [false, true] {
        let (mut stuck, remote) = stage.open();
        remote.write(bytes.clone()).expect("it is open");
        if flushes {
            remote.close().expect("it is open");
            stage.wait_for(On::Closing);
        }
        remote.close_now().expect("it is not closed");
        let received = stage.receive_reset(&mut stuck);
        assert!(received.len() < bytes.len(), "something was pending");
        assert_same(&received, &bytes[..received.len()]);
        stage.closed_by("local");
    }
}

pub(crate) fn a_write_completes_when_its_bytes_were_taken_and_not_before<W: World>(seed: u64) {
    const WRITES: usize = 400;
    let bytes = pattern(W::STUCK, seed);
    let mut stage = Stage::<W>::start(seed, Engine::builder(), echo);
    let (mut peer, remote) = stage.open();
    let answers = Answers::default();
    let size = bytes.len().div_ceil(WRITES);
    let chunks: Vec<&[u8]> = bytes.chunks(size).collect();
    for (number, chunk) in chunks.iter().enumerate() {
        remote.write_then(chunk.to_vec(), answers.to(number));
    }
    stage.pass(Duration::from_millis(50));
    assert!(answers.len() < chunks.len(), "the network can't have taken all");
    let heard = answers.clone();
    stage.until("as many writes complete as were taken", |world| {
        let complete = heard.len();
        let taken = world.engine().stats().reactors[0].bytes_out as usize;
        assert!(complete <= taken / size, "one of them too early");
        complete == taken / size || !W::BYTEWISE
    });
    assert_same(&stage.receive(&mut peer, bytes.len()), &bytes);
    let (heard, count) = (answers.clone(), chunks.len());
    stage.until("every write completes", |_| heard.len() == count);
    assert_eq!(answers.all(), each(count, Ok(())));
    remote.write_then("", answers.to(count));
    stage.until("an empty write completes", |_| heard.len() == count + 1);
    assert_eq!(answers.all(), each(count + 1, Ok(())));
}

/// The write itself makes the handler close the connection, which flushes it.
pub(crate) fn a_write_that_makes_the_handler_close_completes_when_it_is_sent<W: World>(seed: u64) {
    let builder = Engine::builder().water_marks(0, 100);
    let mut stage = Stage::<W>::start(seed, builder, |on, _| {
        if on == On::HighWater { Action::Close } else { on.usual() }
    });
    let bytes = pattern(1500, seed);
    let (mut peer, remote) = stage.open();
    let answers = Answers::default();
    remote.write_then(bytes.clone(), answers.to(0));
    assert_same(&stage.receive_end(&mut peer), &bytes);
    assert_eq!(stage.count(On::HighWater), 1);
    peer.end();
    stage.closed_by("local");
    assert_eq!(answers.all(), each(1, Ok(())), "all of it arrived");
}

/// What a callback flushes before it closes the connection at once is sent.
pub(crate) fn a_write_that_was_sent_completes_though_the_connection_closes_at_once<W: World>(
    seed: u64,
) {
    let mut stage = Stage::<W>::start(seed, Engine::builder(), echo);
    let (mut peer, remote) = stage.open();
    let answers = Answers::default();
    let flush_and_close = |_: &mut Recorder, conn: &mut Conn<'_, Recorder>| {
        conn.output.flush();
        conn.close_now();
        Action::Continue
    };
    remote.write_then("last words", answers.to(0));
    remote.run(flush_and_close).expect("it is open");
    let received = stage.receive_any_end(&mut peer);
    stage.closed_by("local");
    let heard = answers.clone();
    stage.until("the write completes", |_| heard.len() == 1);
    // With faults the network may not have taken it.
    if received == b"last words" {
        assert_eq!(answers.all(), each(1, Ok(())), "all of it arrived");
    }
}

pub(crate) fn a_close_completes_after_on_close<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder(), echo);
    let (mut peer, remote) = stage.open();
    let closes = Arc::new(Mutex::new(Vec::new()));
    for _ in 0..2 {
        let (log, closes) = (stage.log.clone(), Arc::clone(&closes));
        remote.close_then(move |answer| {
            closes.lock().unwrap().push((answer, log.count(On::Close), log.count(On::Dropped)));
        });
    }
    assert_same(&stage.receive_end(&mut peer), b"");
    assert!(closes.lock().unwrap().is_empty(), "the peer has not ended its side");
    peer.end();
    stage.closed_by("local");
    stage.until("the closes complete", |_| closes.lock().unwrap().len() == 2);
    assert_eq!(*closes.lock().unwrap(), [(Ok(()), 1, 1); 2]);
}

/// Asks for everything there is, of a connection that is closed.
fn assert_closed(remote: &Remote<Recorder>) {
    let answers = Answers::default();
    assert!(!remote.is_open());
    assert_eq!(remote.write("lost"), Err(Closed));
    assert_eq!(remote.wake(), Err(Closed));
    assert_eq!(remote.close(), Err(Closed));
    assert_eq!(remote.run(write(b"lost")), Err(Closed));
    remote.write_then("lost", answers.to(0));
    remote.close_then(answers.to(1));
    assert_eq!(answers.all(), each(2, Err(Closed)), "at once, and once");
}

/// F18 of the fault checklist.
pub(crate) fn a_closed_connection_answers_every_request_that_it_is_closed<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder(), echo);
    let (mut peer, remote) = stage.open();
    assert!(remote.is_open());
    peer.end();
    stage.receive_end(&mut peer);
    stage.closed_by("peer");
    assert_closed(&remote);
    let (mut successor, _) = stage.open();
    assert_closed(&remote);
    let echoed = stage.exchange(&mut successor, b"undisturbed", 11, false);
    assert_same(&echoed, b"undisturbed");
}

/// F1 of the fault checklist. The requests are made where the connection closes, so that they wait
/// in the inbox until its place belongs to another one.
pub(crate) fn requests_for_a_closed_connection_never_reach_its_successor<W: World>(seed: u64) {
    const REQUESTS: usize = 500;
    let mut stage = Stage::<W>::start(seed, Engine::builder().inbox_budget(1), echo);
    let (_peer, remote) = stage.open();
    let (answers, asked) = (Answers::default(), Answers::default());
    let (to, told, own) = (answers.clone(), asked.to(0), remote.clone());
    let ask_and_close = move |_: &mut Recorder, conn: &mut Conn<'_, Recorder>| {
        let all = (0..REQUESTS).try_for_each(|number| {
            own.write_then("a stranger's", to.to(number));
            own.wake()?;
            own.run(write(b"a stranger's"))
        });
        told(all);
        conn.close_now();
        Action::Continue
    };
    remote.run(ask_and_close).expect("it is open");
    stage.closed_by("local");
    assert_eq!(asked.all(), each(1, Ok(())), "it was open when it was asked");
    let (mut successor, other) = stage.open();
    assert!(other.is_open() && other.id() != remote.id());
    let echoed = stage.exchange(&mut successor, b"mine", 4, false);
    stage.until("every request is answered", |_| answers.len() == REQUESTS);
    assert!(answers.all() == each(REQUESTS, Err(Closed)), "each is answered that it is closed");
    assert_same(&echoed, b"mine");
    successor.end();
    assert_same(&stage.receive_end(&mut successor), b"");
    stage.closed_by("peer");
}

pub(crate) fn requests_that_a_reset_overtakes_complete_as_closed<W: World>(seed: u64) {
    const WRITES: usize = 8;
    let bytes = pattern(W::STUCK, seed);
    let mut stage = Stage::<W>::start(seed, Engine::builder(), collect);
    let (peer, remote) = stage.open();
    let answers = Answers::default();
    for (number, chunk) in bytes.chunks(bytes.len().div_ceil(WRITES)).enumerate() {
        remote.write_then(chunk.to_vec(), answers.to(number));
    }
    stage.pass(Duration::from_millis(10));
    peer.reset();
    stage.closed_by("failed");
    let heard = answers.clone();
    stage.until("every write completes", |_| heard.len() == WRITES);
    let answers = answers.all();
    let done = answers.iter().take_while(|(_, answer)| answer.is_ok()).count();
    assert!(done < WRITES, "the network can't have taken all");
    let mut expected = each(done, Ok(()));
    expected.extend((done..WRITES).map(|number| (number, Err(Closed))));
    assert_eq!(answers, expected);
}

/// F5 and F21 of the fault checklist.
pub(crate) fn a_panic_in_a_closure_closes_and_one_in_a_completion_does_not<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder(), echo);
    let (mut peer, remote) = stage.open();
    remote.write_then("a", |_| panic!("expected: a panic in a completion"));
    remote.write("b").unwrap();
    assert_same(&stage.receive(&mut peer, 2), b"ab");
    let (mut other, other_remote) = stage.open();
    remote.run(|_, _| panic!("expected: a panic in a closure")).unwrap();
    other_remote.write("c").unwrap();
    stage.receive_reset(&mut peer);
    assert_same(&stage.receive(&mut other, 1), b"c");
    stage.closed_by("panicked");
    stage.has_panicked(2);
}

/// A closure that was accepted but can't run any more is dropped; its completion is told, as a
/// write's is.
pub(crate) fn requests_on_their_way_are_told_when_closing_is_decided<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder().close_timeout(DEADLINE), echo);
    let (mut peer, remote) = stage.open();
    let answers = Answers::default();
    let (own, to, ran) = (remote.clone(), answers.clone(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&ran);
    let count = move || {
        let counted = Arc::clone(&counted);
        move |_: &mut Recorder, _: &mut Conn<'_, Recorder>| {
            counted.fetch_add(1, Ordering::Relaxed);
            Action::Continue
        }
    };
    let asked = count.clone();
    let ask_and_close = move |_: &mut Recorder, conn: &mut Conn<'_, Recorder>| {
        own.run_then(asked(), to.to(1));
        own.write_then("late", to.to(2));
        own.run(asked()).expect("it is open");
        conn.close();
        own.run_then(asked(), to.to(0)); // It is closing: told at once.
        Action::Continue
    };
    remote.run_then(count(), answers.to(3));
    remote.run(ask_and_close).expect("it is open");
    assert_same(&stage.receive_end(&mut peer), b"");
    let heard = answers.clone();
    stage.until("each is told, though the peer has not ended", |_| heard.len() == 4);
    let [first, rest @ ..] = &answers.all()[..] else { unreachable!("there are four") };
    assert_eq!(*first, (3, Ok(())), "it ran before");
    assert_eq!(rest, each(3, Err(Closed)));
    assert_eq!(ran.load(Ordering::Relaxed), 1, "one ran");
    // The others are dropped, that without a completion maybe a moment later.
    let kept = Arc::clone(&ran);
    stage.until("the others are dropped", |_| Arc::strong_count(&kept) == 3);
    assert_eq!(stage.count(On::Close), 0);
    peer.end();
    stage.closed_by("local");
}

/// A broker sends to everybody who listens, and waits until each message is sent or will not be.
/// One says goodbye and keeps its socket open.
pub(crate) fn one_that_keeps_its_socket_open_holds_up_no_publisher<W: World>(seed: u64) {
    let builder = Engine::builder().close_timeout(DEADLINE);
    let mut stage = Stage::<W>::start(seed, builder, |on, conn| {
        conn.state.received.extend(conn.input.take_all());
        if conn.state.received == b"goodbye" { Action::Close } else { on.usual() }
    });
    let (mut leaving, left) = stage.open();
    let (mut listening, listener) = stage.open();
    let mut listeners = vec![left, listener];
    stage.send(&mut leaving, b"goodbye");
    let closing = stage.wait_for(On::Closing);
    let begin = stage.world.now();
    for number in 0..20 {
        let answers = Answers::default();
        listeners.retain(Remote::is_open);
        for (place, listener) in listeners.iter().enumerate() {
            listener.write_then(vec![number], answers.to(place));
        }
        let heard = answers.clone();
        stage.until("all have the message", |_| heard.len() == listeners.len());
        assert_eq!(answers.all(), each(1, Ok(())), "one listens");
    }
    assert!(stage.world.now() - begin < DEADLINE / 2, "it took {:?}", stage.world.now() - begin);
    assert_eq!(closing.remote().write("a message"), Err(Closed));
    assert_same(&stage.receive(&mut listening, 20), &(0..20).collect::<Vec<u8>>());
    assert_eq!(stage.count(On::Close), 0, "it still keeps its socket open");
    leaving.end();
    stage.closed_by("local");
    listening.end();
    stage.closed_by("peer");
}
