//! The inbox: posts per second from one and from several threads, and how many of them wake.
//!
//!     cargo bench -p millstream-benches --bench inbox

use std::hint::black_box;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millstream::internals::inbox::{Inbox, Notify};
use millstream_platform::driver::Wake;
use mio::{Events, Poll, Token, Waker};

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

    /// Takes so many messages, asleep whenever there is none.
    fn take(&mut self, mut count: u64) {
        while count > 0 {
            self.notify.prepare_to_sleep();
            if self.inbox.is_empty() {
                let patience = Some(Duration::from_secs(10));
                self.poll.poll(&mut self.events, patience).expect("poll works");
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

/// Posts from so many threads at once while the reactor takes them, until all are taken.
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

criterion_group!(benches, post, alone, sleep);
criterion_main!(benches);
