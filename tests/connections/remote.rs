//! [`Remote`], the handle that crosses threads: what one thread asks is done in its order, no
//! wake-up is lost, and a closure that panics costs its connection alone.
//!
//! Covers F4 and F5 of the fault checklist; its parts cover F1 and F18.

mod completions;
mod strangers;

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{
    DEADLINE, TestEngine, eventually, read_exactly, read_to_end, read_to_reset, receive,
    silence_expected_panics,
};
use millstream::{
    Action, Builder, CloseReason, Closed, Conn, Engine, EventHandler, Reactor, ReactorAction,
    Remote, Stopped,
};

// --- the rig -------------------------------------------------------------------------------------

/// What the handler tells of its callbacks.
enum News {
    Opened(Remote<Reporter>),
    /// What was unread when `on_traffic` began.
    Traffic(Vec<u8>),
    /// The reason, and the thread that told it.
    Closed(String, thread::ThreadId),
}

/// Tells of its callbacks, and echoes lines. What is not a whole line stays unread; a wake that
/// finds nothing unread writes `!`.
struct Reporter {
    news: Sender<News>,
    /// Counted by closures.
    runs: u32,
}

impl Reporter {
    fn tell(&self, news: News) {
        let _ = self.news.send(news); // The test may have seen enough.
    }
}

impl EventHandler for Reporter {
    /// Counted by closures.
    type State = u32;

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.tell(News::Opened(conn.remote()));
        Action::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.tell(News::Traffic(conn.input.peek().to_vec()));
        if conn.input.is_empty() {
            conn.output.write(b"!");
        }
        while let Some(line) = conn.input.take_through(b"\n") {
            conn.output.write(line);
        }
        Action::Continue
    }

    fn on_close(&mut self, _conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        self.tell(News::Closed(reason.to_string(), thread::current().id()));
    }
}

struct Rig {
    news: Receiver<News>,
    engine: TestEngine,
}

impl Rig {
    fn new() -> Self {
        Self::with(Engine::builder())
    }

    /// An engine with one reactor, so that news comes in the order of events.
    fn with(builder: Builder) -> Self {
        let (sender, news) = channel();
        let factory = move |_| Reporter { news: sender.clone(), runs: 0 };
        Rig { news, engine: TestEngine::start(builder.reactors(1), factory) }
    }

    /// Connects; returns the client and the handle of the server's connection.
    fn connect(&self) -> (TcpStream, Remote<Reporter>) {
        let client = self.engine.connect();
        match receive(&self.news) {
            News::Opened(remote) => (client, remote),
            _ => panic!("other news than a new connection's"),
        }
    }

    fn traffic(&self) -> Vec<u8> {
        match receive(&self.news) {
            News::Traffic(unread) => unread,
            _ => panic!("other news than of traffic"),
        }
    }

    /// Skips news of traffic.
    fn close_reason(&self) -> String {
        loop {
            match receive(&self.news) {
                News::Closed(reason, _) => return reason,
                News::Traffic(_) => {}
                News::Opened(_) => panic!("a connection that nobody made"),
            }
        }
    }
}

/// What became of requests whose completions were handed out. Each holds the channel open until it
/// has run or was dropped, so the channel's end shows that none is left.
struct Outcomes {
    sender: Sender<(usize, Result<(), Closed>)>,
    /// The lock lets threads share the whole to make completions.
    receiver: Mutex<Receiver<(usize, Result<(), Closed>)>>,
}

impl Outcomes {
    fn new() -> Self {
        let (sender, receiver) = channel();
        Outcomes { sender, receiver: Mutex::new(receiver) }
    }

    /// The completion of a request.
    fn note(&self, request: usize) -> impl FnOnce(Result<(), Closed>) + Send + 'static + use<> {
        let sender = self.sender.clone();
        move |outcome| {
            let _ = sender.send((request, outcome)); // The test may have failed.
        }
    }

    /// Waits until no completion is left, and returns what they said, in the order of requests.
    /// Each of `0..requests` must have been completed exactly once.
    #[track_caller]
    fn of(self, requests: usize) -> Vec<Result<(), Closed>> {
        drop(self.sender);
        let receiver = self.receiver.into_inner().expect("nobody panics with it");
        let deadline = Instant::now() + DEADLINE;
        let left = || deadline.saturating_duration_since(Instant::now());
        let mut outcomes = Vec::new();
        while let Ok(outcome) = receiver.recv_timeout(left()) {
            outcomes.push(outcome);
        }
        assert!(!left().is_zero(), "completions neither ran nor were dropped");
        outcomes.sort_by_key(|(request, _)| *request);
        let completed: Vec<usize> = outcomes.iter().map(|(request, _)| *request).collect();
        let expected: Vec<usize> = (0..requests).collect();
        assert!(completed == expected, "{} completions of {requests}", completed.len());
        outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }
}

// --- order ---------------------------------------------------------------------------------------

#[test]
fn what_each_of_many_threads_writes_arrives_completely_and_in_its_order() {
    const THREADS: u32 = 8;
    const RECORDS: u32 = 10_000;
    let rig = Rig::new();
    let (mut client, remote) = rig.connect();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let remote = remote.clone();
            scope.spawn(move || (0..RECORDS).for_each(|number| send(&remote, thread, number)));
        }
        let mut next = [0; THREADS as usize];
        for _ in 0..THREADS * RECORDS {
            let (thread, number) = split(&read_exactly(&mut client, 8));
            assert_eq!(number, next[thread as usize], "the order of thread {thread}");
            next[thread as usize] += 1;
        }
        assert_eq!(next, [RECORDS; THREADS as usize]);
    });
}

/// Sends a record by each of the ways to write in turn.
fn send(remote: &Remote<Reporter>, thread: u32, number: u32) {
    let mut record = thread.to_le_bytes().to_vec();
    record.extend(number.to_le_bytes());
    match number % 3 {
        0 => remote.write(record).expect("it is open"),
        1 => remote.write_then(record, |outcome| assert_eq!(outcome, Ok(()))),
        _ => {
            let write = move |_: &mut Reporter, conn: &mut Conn<'_, Reporter>| {
                conn.output.write(&record);
                Action::Continue
            };
            remote.run(write).expect("it is open");
        }
    }
}

fn split(record: &[u8]) -> (u32, u32) {
    let part = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
    (part(&record[..4]), part(&record[4..]))
}

#[test]
fn requests_of_all_kinds_are_done_in_the_order_they_were_asked() {
    let rig = Rig::new();
    for _ in 0..200 {
        let (mut client, remote) = rig.connect();
        remote.write("write ").expect("it is open");
        remote
            .run(|_, conn| {
                conn.output.write(b"run ");
                Action::Continue
            })
            .expect("it is open");
        remote.wake().expect("it is open");
        remote.write_then(" then", |outcome| assert_eq!(outcome, Ok(())));
        remote.close().expect("it is open");
        let _ = remote.write("too late"); // Whether it is closed by now is not said.
        assert_eq!(read_to_end(&mut client), b"write run ! then");
        drop(client);
        assert_eq!(rig.close_reason(), "local");
    }
}

#[test]
fn one_threads_requests_to_several_connections_are_done_in_the_order_they_were_asked() {
    let rig = Rig::new();
    let connections = [rig.connect(), rig.connect(), rig.connect()];
    let order = Arc::new(Mutex::new(Vec::new()));
    for number in 0..3_000 {
        let order = Arc::clone(&order);
        let note = move |_: &mut Reporter, _: &mut Conn<'_, Reporter>| {
            order.lock().expect("nobody panics with it").push(number);
            Action::Continue
        };
        connections[number % 3].1.run(note).expect("it is open");
    }
    eventually("all have run", || order.lock().expect("nobody panics with it").len() == 3_000);
    let order = order.lock().expect("nobody panics with it");
    assert!(order.is_sorted(), "out of order");
}

/// Though the reactor takes one in a turn, and the engine stops.
#[test]
fn closures_that_a_reactor_has_accepted_run_though_the_engine_stops() {
    const CLOSURES: u64 = 500;
    let rig = Rig::with(Engine::builder().inbox_budget(1));
    let reactors = rig.engine.reactors::<Reporter>().expect("it is the engine's handler");
    let (own, ran) = (reactors.clone(), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&ran);
    let ask_and_stop = move |_: &mut Reporter, _: &mut Reactor<'_, Reporter>| {
        for _ in 0..CLOSURES {
            let counted = Arc::clone(&counted);
            let count = move |_: &mut Reporter, _: &mut Reactor<'_, Reporter>| {
                counted.fetch_add(1, Ordering::Relaxed);
                ReactorAction::Continue
            };
            own.run(0, count).expect("it runs");
        }
        ReactorAction::Shutdown
    };
    reactors.run(0, ask_and_stop).expect("it runs");
    rig.engine.wait().expect("it ends");
    assert_eq!(ran.load(Ordering::Relaxed), CLOSURES);
}

// --- what the requests do ------------------------------------------------------------------------

#[test]
fn a_wake_calls_on_traffic_with_what_is_unread() {
    let rig = Rig::new();
    let (mut client, remote) = rig.connect();
    client.write_all(b"half a li").expect("the server reads");
    assert_eq!(rig.traffic(), b"half a li");
    for _ in 0..3 {
        remote.wake().expect("it is open");
        assert_eq!(rig.traffic(), b"half a li");
    }
    client.write_all(b"ne\n").expect("the server reads");
    assert_eq!(rig.traffic(), b"half a line\n");
    assert_eq!(read_exactly(&mut client, 12), b"half a line\n");
    remote.wake().expect("it is open");
    assert_eq!(rig.traffic(), b"");
}

#[test]
fn a_closure_reaches_handler_state_and_connection_and_its_action_is_obeyed() {
    let rig = Rig::new();
    let (mut first, remote) = rig.connect();
    let (_second, other) = rig.connect();
    let (sender, seen) = channel();
    for (remote, last) in [(&remote, false), (&other, false), (&remote, true)] {
        let (id, sender) = (remote.id(), sender.clone());
        let closure = move |handler: &mut Reporter, conn: &mut Conn<'_, Reporter>| {
            handler.runs += 1;
            *conn.state += 1;
            sender.send((handler.runs, *conn.state, conn.id() == id)).expect("the test waits");
            if last { Action::Close } else { Action::Continue }
        };
        remote.run(closure).expect("it is open");
    }
    let seen = [receive(&seen), receive(&seen), receive(&seen)];
    assert_eq!(seen, [(1, 1, true), (2, 1, true), (3, 2, true)], "handler, state, own id");
    assert_eq!(read_to_end(&mut first), b"");
    drop(first);
    assert_eq!(rig.close_reason(), "local");
}

#[test]
fn is_open_until_on_close() {
    let rig = Rig::new();
    let (client, remote) = rig.connect();
    let clone = remote.clone();
    assert!(remote.is_open() && clone.is_open());
    drop(client);
    assert_eq!(rig.close_reason(), "peer");
    assert!(!remote.is_open() && !clone.is_open());
}

// --- wake-ups ------------------------------------------------------------------------------------

/// Lets threads go on together: when all of them have arrived in a round, each gets a message.
struct Gate {
    opened: Sender<Remote<Gate>>,
    arrived: usize,
    threads: Vec<Sender<()>>,
}

impl Gate {
    fn arrive(&mut self) {
        self.arrived += 1;
        if self.arrived.is_multiple_of(self.threads.len()) {
            for thread in &self.threads {
                let _ = thread.send(()); // The test may have failed.
            }
        }
    }
}

impl EventHandler for Gate {
    type State = ();

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.opened.send(conn.remote()).expect("the test waits");
        Action::Continue
    }

    fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        Action::Continue
    }
}

/// F4 of the fault checklist. In each round every thread posts once, and nobody goes on before all
/// posts were served; so nobody's next post makes up for a wake-up that was lost, and the reactor
/// falls asleep between rounds.
#[test]
fn no_wake_up_is_lost_while_the_reactor_falls_asleep() {
    const THREADS: usize = 3;
    let (gates, mut waits) = (0..THREADS).map(|_| channel()).collect::<(Vec<_>, Vec<_>)>();
    let (opened, handles) = channel();
    let factory = move |_| Gate { opened: opened.clone(), arrived: 0, threads: gates.clone() };
    let engine = TestEngine::start(Engine::builder().reactors(1), factory);
    let _client = engine.connect();
    let remote = receive(&handles);
    let rounds = AtomicU64::new(0);
    // The first thread decides when it is over, and all end in the same round.
    let (start, end) = (Instant::now(), AtomicU64::new(u64::MAX));
    thread::scope(|scope| {
        for (thread, wait) in waits.drain(..).enumerate() {
            let (remote, rounds, end) = (&remote, &rounds, &end);
            scope.spawn(move || {
                for round in 0.. {
                    if thread == 0 {
                        rounds.store(round, Ordering::Relaxed);
                        if start.elapsed() > Duration::from_secs(3) {
                            end.store(round, Ordering::Relaxed);
                        }
                    }
                    let arrive = |gate: &mut Gate, _: &mut Conn<'_, Gate>| {
                        gate.arrive();
                        Action::Continue
                    };
                    remote.run(arrive).expect("it is open");
                    receive(&wait);
                    if end.load(Ordering::Relaxed) <= round {
                        return;
                    }
                }
            });
        }
    });
    let rounds = rounds.into_inner();
    assert!(rounds > 100, "the reactor has to fall asleep often: {rounds} times");
    let (sender, served) = channel();
    remote.write_then("", move |_| sender.send(()).expect("the test waits"));
    receive(&served);
}

#[test]
fn a_busy_reactor_is_not_woken_by_each_request() {
    const THREADS: usize = 4;
    const POSTS: usize = 5_000;
    let rig = Rig::new();
    let (_client, remote) = rig.connect();
    let wakeups = || rig.engine.stats().reactors[0].wakeups;
    let before = wakeups();
    let (busy, is_busy) = channel();
    let (release, released) = channel::<()>();
    remote
        .run(move |_, _| {
            busy.send(()).expect("the test waits");
            let _ = released.recv_timeout(DEADLINE);
            Action::Continue
        })
        .expect("it is open");
    receive(&is_busy);
    let outcomes = Outcomes::new();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (remote, outcomes) = (&remote, &outcomes);
            scope.spawn(move || {
                for number in 0..POSTS {
                    remote.write_then("", outcomes.note(thread * POSTS + number));
                }
            });
        }
    });
    assert!(rig.engine.stats().reactors[0].inbox_depth >= THREADS * POSTS);
    drop(release);
    assert!(outcomes.of(THREADS * POSTS).iter().all(Result::is_ok));
    let woken = wakeups() - before;
    assert!(woken < 10, "{woken} wake-ups for {} requests", THREADS * POSTS);
}

// --- panics --------------------------------------------------------------------------------------

/// F5 of the fault checklist.
#[test]
fn requests_behind_a_closure_that_panics_are_served() {
    silence_expected_panics();
    let rig = Rig::new();
    let [(mut victim, panics), (mut other, remote), (mut third, closes)] =
        [rig.connect(), rig.connect(), rig.connect()];
    let outcomes = Outcomes::new();
    panics.run(|_, _| panic!("expected: in a closure")).expect("it is open");
    panics.write_then("never", outcomes.note(0));
    remote.write_then("still ", outcomes.note(1));
    remote
        .run(|_, conn| {
            conn.output.write(b"served");
            Action::Continue
        })
        .expect("it is open");
    closes.close_then(outcomes.note(2));
    assert_eq!(read_exactly(&mut other, 12), b"still served");
    assert_eq!(read_to_reset(&mut victim), b"");
    assert_eq!(rig.close_reason(), "panicked");
    assert_eq!(read_to_end(&mut third), b"");
    drop(third);
    assert_eq!(outcomes.of(3), [Err(Closed), Ok(()), Ok(())]);
    let stats = &rig.engine.stats().reactors[0];
    let panicked = CloseReason::NAMES.iter().position(|name| *name == "panicked");
    assert_eq!((stats.panics, stats.closed[panicked.expect("a reason")]), (1, 1));
}

/// F5 of the fault checklist, with all threads panicking at a time.
#[test]
fn closures_of_many_threads_that_panic_close_only_their_own_connections() {
    silence_expected_panics();
    const THREADS: usize = 8;
    let rig = Rig::new();
    let (mut witness, remote) = rig.connect();
    let victims: Vec<_> = (0..THREADS).map(|_| rig.connect()).collect();
    let together = Barrier::new(THREADS);
    thread::scope(|scope| {
        for (mut client, victim) in victims {
            let (remote, together) = (&remote, &together);
            scope.spawn(move || {
                together.wait();
                victim.run(|_, _| panic!("expected: in a closure")).expect("it is open");
                remote.write("x").expect("it is open");
                read_to_reset(&mut client);
            });
        }
    });
    assert_eq!(read_exactly(&mut witness, THREADS), [b'x'; THREADS]);
    assert_eq!(rig.engine.stats().reactors[0].panics, THREADS as u64);
    eventually("only the witness is left", || rig.engine.connections() == 1);
}

// --- reactors ------------------------------------------------------------------------------------

/// What each reactor keeps is its own; a closure goes there, and its reply comes back by
/// [`Remote`].
#[test]
fn another_reactor_is_reached_by_a_closure_that_runs_there() {
    const REACTORS: usize = 3;
    struct Shard(usize, u32);
    impl EventHandler for Shard {
        type State = ();
        fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
            for &reactor in conn.input.take_all() {
                let asker = conn.remote();
                let reactor = usize::from(reactor);
                let visit = move |shard: &mut Shard, there: &mut Reactor<'_, Shard>| {
                    assert_eq!((shard.0, there.index()), (reactor, reactor));
                    shard.1 += 1;
                    let _ = asker.write(vec![reactor as u8, shard.1 as u8]);
                    ReactorAction::Continue
                };
                assert_eq!(conn.reactors().len(), REACTORS);
                conn.reactors().run(reactor, visit).expect("the engine runs");
            }
            Action::Continue
        }
    }
    let builder = Engine::builder().reactors(REACTORS);
    let engine = TestEngine::start(builder, |index| Shard(index, 0));
    for visit in 1..=4 {
        let mut client = engine.connect();
        client.write_all(&[0, 1, 2]).expect("the server reads");
        let mut replies = read_exactly(&mut client, 2 * REACTORS);
        let mut replies: Vec<&mut [u8]> = replies.chunks_mut(2).collect();
        replies.sort();
        assert_eq!(replies, [[0, visit], [1, visit], [2, visit]]);
    }
}

#[test]
fn a_closure_for_a_reactor_ends_in_one_way() {
    silence_expected_panics();
    let (told, news) = channel();
    let rig = Rig::new();
    let (_client, remote) = rig.connect();
    let reactors = {
        let (give, take) = channel();
        let hand_out = move |_: &mut Reporter, conn: &mut Conn<'_, Reporter>| {
            let _ = give.send(conn.reactors().clone());
            Action::Continue
        };
        remote.run(hand_out).expect("it is open");
        receive(&take)
    };
    let panics = |_: &mut Reporter, _: &mut Reactor<'_, Reporter>| -> ReactorAction {
        panic!("expected: a closure")
    };
    reactors.run(0, panics).expect("the engine runs");
    for number in 0..100 {
        let told = told.clone();
        let tell = move |_: &mut Reporter, _: &mut Reactor<'_, Reporter>| {
            let _ = told.send(number);
            ReactorAction::Continue
        };
        reactors.run(0, tell).expect("the engine runs");
        assert_eq!(receive(&news), number, "out of order, or the panic ended the reactor");
    }
    assert_eq!(rig.engine.stats().reactors[0].panics, 1);
    let shut_down = |_: &mut Reporter, _: &mut Reactor<'_, Reporter>| ReactorAction::Shutdown;
    reactors.run(0, shut_down).expect("the engine runs");
    rig.engine.wait().expect("it ends well");
    let late = |_: &mut Reporter, _: &mut Reactor<'_, Reporter>| -> ReactorAction {
        unreachable!("it has ended")
    };
    assert_eq!(reactors.run(0, late), Err(Stopped));
}
