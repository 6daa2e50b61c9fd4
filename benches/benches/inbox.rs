//! The inbox: posts per second from one and from several threads, how many of them wake, and a
//! round trip to a sleeping reactor compared with one over nothing but two eventfds.
//!
//!     cargo bench -p millstream-benches --bench inbox

use std::hint::black_box;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millstream::internals::inbox::{Inbox, Notify};
use millstream::{Action, Conn, Engine, EventHandler, Remote};
use millstream_platform::driver::Wake;
use mio::{Events, Poll, Token, Waker};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

const PATIENCE: Duration = Duration::from_secs(10);

/// As large as a command to a connection.
type Message = [u64; 6];

struct PollWaker(Waker);

impl Wake for PollWaker {
    fn wake(&self) {
        self.0.wake().expect("the waker is open");
    }
}

/// A reactor without connections.
struct Reactor {
    poll: Poll,
    events: Events,
    notify: Arc<Notify>,
    inbox: Arc<Inbox<Message>>,
}

impl Reactor {
    fn new() -> Self {
        let poll = Poll::new().expect("there are descriptors left");
        let waker = Waker::new(poll.registry(), Token(0)).expect("there are descriptors left");
        let notify = Arc::new(Notify::new(Arc::new(PollWaker(waker))));
        let inbox = Arc::new(Inbox::new(notify.clone()));
        Self { poll, events: Events::with_capacity(8), notify, inbox }
    }

    /// Takes this many messages, asleep whenever there is none.
    fn take(&mut self, mut count: u64) {
        while count > 0 {
            self.notify.prepare_to_sleep();
            if self.inbox.is_empty() {
                self.poll.poll(&mut self.events, Some(PATIENCE)).expect("poll works");
                assert!(!self.events.is_empty(), "lost wake-up");
            }
            self.notify.awake();
            while let Some(message) = self.inbox.pop() {
                black_box(message);
                count -= 1;
            }
        }
    }
}

/// Posts from this many threads at once while the reactor takes them, until all are taken.
fn contend(reactor: &mut Reactor, posters: u64, posts: u64) -> Duration {
    let each = posts.div_ceil(posters);
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..posters {
            let inbox = Arc::clone(&reactor.inbox);
            scope.spawn(move || {
                for number in 0..each {
                    assert!(inbox.post([number; 6]).is_ok());
                }
            });
        }
        reactor.take(each * posters);
    });
    start.elapsed()
}

#[allow(clippy::print_stdout, reason = "criterion has no place for a count")]
fn post(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("inbox/post");
    group.throughput(Throughput::Elements(1));
    for posters in [1, 4] {
        let mut reactor = Reactor::new();
        let mut posted = 0;
        group.bench_function(format!("{posters} posters"), |bencher| {
            bencher.iter_custom(|posts| {
                posted += posts;
                contend(&mut reactor, posters, posts)
            });
        });
        println!("{posters} posters: {} wakes for {posted} posts", reactor.notify.wakes());
    }
}

/// A post and its taking on one thread: what both cost when nobody contends.
fn alone(criterion: &mut Criterion) {
    let reactor = Reactor::new();
    criterion.bench_function("inbox/post+pop/alone", |bencher| {
        bencher.iter(|| {
            assert!(reactor.inbox.post(black_box([1; 6])).is_ok());
            reactor.inbox.pop()
        });
    });
}

/// What is done around a wait.
fn sleep(criterion: &mut Criterion) {
    let reactor = Reactor::new();
    criterion.bench_function("inbox/prepare to sleep+awake", |bencher| {
        bencher.iter(|| {
            reactor.notify.prepare_to_sleep();
            black_box(reactor.inbox.is_empty());
            reactor.notify.awake();
        });
    });
}

/// An eventfd that one thread rings and another one waits for.
struct Bell(OwnedFd);

impl Bell {
    const RING: u64 = 1;
    /// Tells the other thread to end.
    const END: u64 = 2;

    fn new() -> Arc<Self> {
        Arc::new(Bell(eventfd(0, EventfdFlags::CLOEXEC).expect("there are descriptors left")))
    }

    fn say(&self, what: u64) {
        rustix::io::write(&self.0, &what.to_ne_bytes()).expect("the counter is not full");
    }

    /// Blocks until something was said.
    fn hear(&self) -> u64 {
        let mut said = [0; 8];
        rustix::io::read(&self.0, &mut said).expect("the bell is open");
        u64::from_ne_bytes(said)
    }

    /// As [`hear`](Self::hear), but not for ever.
    fn wait(&self) {
        let patience = Timespec::try_from(PATIENCE).expect("it is short");
        let ready = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&patience));
        assert_eq!(ready, Ok(1), "lost wake-up");
        self.hear();
    }
}

/// Ends what runs in another thread, also when the benchmark panics.
struct Ending<F: Fn()>(F);

impl<F: Fn()> Drop for Ending<F> {
    fn drop(&mut self) {
        self.0();
    }
}

/// Rings back when it is woken.
struct RingBack {
    back: Arc<Bell>,
    opened: Sender<Remote<Self>>,
}

impl EventHandler for RingBack {
    type State = ();

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        // It fails only if the benchmark is over.
        let _ = self.opened.send(conn.remote());
        Action::Continue
    }

    fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        self.back.say(Bell::RING);
        Action::Continue
    }
}

/// From this thread to a sleeping one and back: through an inbox to a reactor, and over a bare
/// eventfd. The way back is the same.
fn round_trip(criterion: &mut Criterion) {
    let back = Bell::new();
    through_reactor(criterion, &back);
    over_eventfd(criterion, &back);
}

fn through_reactor(criterion: &mut Criterion, back: &Arc<Bell>) {
    let (opened, remotes) = channel();
    let ring_back = Arc::clone(back);
    let handler = move |_| RingBack { back: ring_back.clone(), opened: opened.clone() };
    let builder = Engine::builder().listen("127.0.0.1:0").reactors(1);
    let engine = builder.start(handler).expect("an engine starts");
    let _ending = Ending(|| engine.stop(Duration::ZERO).expect("nobody else stops it"));
    let _peer = TcpStream::connect(engine.local_addrs()[0]).expect("the engine listens");
    let remote = remotes.recv_timeout(PATIENCE).expect("the connection opens");
    criterion.bench_function("inbox/round_trip/reactor", |bencher| {
        bencher.iter(|| {
            remote.wake().expect("the connection is open");
            back.wait();
        });
    });
}

fn over_eventfd(criterion: &mut Criterion, back: &Bell) {
    let bell = Bell::new();
    thread::scope(|scope| {
        let _ending = Ending(|| bell.say(Bell::END));
        scope.spawn(|| {
            while bell.hear() == Bell::RING {
                back.say(Bell::RING);
            }
        });
        criterion.bench_function("inbox/round_trip/eventfd", |bencher| {
            bencher.iter(|| {
                bell.say(Bell::RING);
                back.wait();
            });
        });
    });
}

criterion_group!(benches, post, alone, sleep, round_trip);
criterion_main!(benches);
