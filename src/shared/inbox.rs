//! The way into a reactor from other threads: many post, one takes.
//!
//! # Waking
//!
//! Ending the reactor's wait costs a system call, so a poster does it only if the reactor sleeps,
//! and of several posters only one. The two sides meet in this order:
//!
//! | a poster | the reactor, before it waits |
//! | --- | --- |
//! | pushes its message | sets `sleeping` |
//! | fence | fence |
//! | looks at `sleeping`; the one that turns it off wakes | looks into its inboxes; blocks if all are empty |
//!
//! Each side writes one place and then reads the other's, and at least one of them must see what
//! the other wrote: otherwise the reactor would sleep on a message. No acquire and release pair
//! promises that, since both allow a read to overtake the thread's earlier write to another place.
//! Sequentially consistent fences do: one of the two is the first, and what was written before it
//! is seen by what is read after the other one. Closing meets posting in the same way.
//!
//! `sleeping` guards no data, so its own accesses are relaxed: messages travel through the queue,
//! which orders them itself. All its writes are swaps, where the reactor could do with plain
//! stores, because loom forgets that no store comes between the two halves of a poster's swap: it
//! takes the swap that ended the last sleep for one that may come after the next sleep began.

#![allow(unreachable_pub, reason = "the feature `internals` shows this module to the benchmarks")]

use std::sync::Arc;

use millstream_platform::driver::Wake;

use super::sync::{AtomicBool, AtomicUsize, Ordering, Queue, fence};
use crate::unwind::drop_caught;

/// Whether a reactor sleeps, and how to wake it. All inboxes of one reactor share one.
///
/// The reactor's protocol: [`prepare_to_sleep`](Self::prepare_to_sleep), then look whether all
/// inboxes are empty, and only if they are, block in the wait that the waker ends. In either case
/// then [`awake`](Self::awake).
pub struct Notify {
    sleeping: AtomicBool,
    wakes: AtomicUsize,
    waker: Arc<dyn Wake>,
}

impl Notify {
    /// The notifier of a reactor that is awake and whose wait `waker` ends.
    pub fn new(waker: Arc<dyn Wake>) -> Self {
        Self { sleeping: AtomicBool::new(false), wakes: AtomicUsize::new(0), waker }
    }

    /// Announces that the reactor will block if its inboxes are empty. From here on a post wakes,
    /// one at most. Only the reactor's thread calls it.
    pub fn prepare_to_sleep(&self) {
        self.sleeping.swap(true, Ordering::Relaxed);
        // Before the reactor looks into its inboxes: see the module.
        fence(Ordering::SeqCst);
    }

    /// Ends what [`prepare_to_sleep`](Self::prepare_to_sleep) began. A wake that a poster has
    /// already decided on may still come and ends the next wait early, which does no harm. Only the
    /// reactor's thread calls it.
    pub fn awake(&self) {
        self.sleeping.swap(false, Ordering::Relaxed);
    }

    /// How often a poster woke the reactor. The count wraps.
    pub fn wakes(&self) -> usize {
        self.wakes.load(Ordering::Relaxed)
    }

    /// Wakes the reactor if it sleeps and nobody else did. The caller pushed something and has a
    /// sequentially consistent fence behind that.
    fn wake_sleeper(&self) {
        // The load keeps the line shared among posters while the reactor is awake.
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed) {
            self.wakes.fetch_add(1, Ordering::Relaxed);
            self.waker.wake();
        }
    }
}

/// A queue of messages for one reactor. What one thread posts is taken in the order of posting.
///
/// # Closing
///
/// A message ends in exactly one of three ways: the owner [pops](Self::pop) it, its poster gets it
/// back as an error, or, when the post raced with [`close`](Self::close), a poster drops it.
/// Nothing stays behind in a closed queue, so a message that must be completed completes in its
/// `Drop` at the latest, promptly, on the owner's or a poster's thread.
///
/// That holds because the owner closes and then drains, while a poster pushes and then looks for
/// the closing: at least one of the two sees the other (see the [module](self)). The poster that
/// does makes sure that the queue is empty, so it may drop others' messages with its own, and may
/// find that the owner has popped its own already.
pub struct Inbox<M> {
    queue: Queue<M>,
    closed: AtomicBool,
    notify: Arc<Notify>,
}

impl<M> Inbox<M> {
    /// An open, empty inbox of the reactor that `notify` wakes.
    pub fn new(notify: Arc<Notify>) -> Self {
        Self { queue: Queue::new(), closed: AtomicBool::new(false), notify }
    }

    /// Appends a message and makes sure that the reactor takes it soon. Any thread may call it; it
    /// does not block. `Ok` does not mean that the reactor lives to take it: see closing, above.
    ///
    /// # Errors
    /// The inbox is closed; the message comes back.
    pub fn post(&self, message: M) -> Result<(), M> {
        if self.closed.load(Ordering::Acquire) {
            return Err(message);
        }
        self.queue.push(message);
        // Before the looks at `closed` and at `sleeping`: see the module.
        fence(Ordering::SeqCst);
        if self.closed.load(Ordering::Relaxed) {
            while let Some(message) = self.queue.pop() {
                // What it owns is its poster's, and so would be a panic in dropping it.
                let _ = drop_caught(message);
            }
        } else {
            self.notify.wake_sleeper();
        }
        Ok(())
    }

    /// Takes the oldest message. Only the reactor's thread calls it.
    pub fn pop(&self) -> Option<M> {
        self.queue.pop()
    }

    /// How many messages wait; a snapshot.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether no message waits; a snapshot, but see [`Notify`] for what it tells before sleeping.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Lets no more messages in. The owner must [`pop`](Self::pop) afterwards until nothing is
    /// left.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        // Before the owner drains: see the module.
        fence(Ordering::SeqCst);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::sync::{Condvar, Mutex};
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    /// No wait of a test is longer.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// A wait that spins, so that falling asleep, the moment that matters, comes round as often as
    /// possible.
    #[derive(Default)]
    struct Bell(AtomicBool);

    impl Wake for Bell {
        fn wake(&self) {
            self.0.store(true, Ordering::Release);
        }
    }

    impl Bell {
        /// Waits for a wake; `false` if none came.
        fn wait(&self) -> bool {
            spin_until(|| self.0.swap(false, Ordering::Acquire))
        }
    }

    /// Waits until `done`; `false` if that takes too long.
    fn spin_until(mut done: impl FnMut() -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        for round in 0_u32.. {
            if done() {
                return true;
            }
            if round % 64 == 63 {
                thread::yield_now();
                if Instant::now() > deadline {
                    break;
                }
            }
        }
        false
    }

    fn inbox<M>() -> (Arc<Bell>, Arc<Notify>, Inbox<M>) {
        let bell = Arc::new(Bell::default());
        let notify = Arc::new(Notify::new(bell.clone()));
        (bell, notify.clone(), Inbox::new(notify))
    }

    /// What a reactor does between two turns. Returns whether it slept.
    fn sleep_if_empty<M>(bell: &Bell, notify: &Notify, inbox: &Inbox<M>) -> bool {
        notify.prepare_to_sleep();
        let sleeps = inbox.is_empty();
        let woken = !sleeps || bell.wait();
        notify.awake();
        assert!(woken, "lost wake-up: {} messages wait", inbox.len());
        sleeps
    }

    #[test]
    fn an_awake_reactor_is_not_woken() {
        let (_, notify, inbox) = inbox();
        assert_eq!(inbox.post(1), Ok(()));
        notify.prepare_to_sleep();
        notify.awake();
        assert_eq!(inbox.post(2), Ok(()));
        assert_eq!(notify.wakes(), 0);
        assert_eq!(
            (inbox.len(), inbox.pop(), inbox.pop(), inbox.pop()),
            (2, Some(1), Some(2), None)
        );
    }

    #[test]
    fn a_sleeping_reactor_is_woken_once_through_whichever_inbox() {
        let (bell, notify, first) = inbox();
        let second = Inbox::new(notify.clone());
        notify.prepare_to_sleep();
        assert_eq!(second.post('a'), Ok(()));
        assert_eq!(first.post('b'), Ok(()));
        assert!(bell.wait());
        notify.awake();
        assert_eq!(notify.wakes(), 1);
    }

    #[test]
    fn a_closed_inbox_hands_messages_back() {
        let (_, _, inbox) = inbox();
        assert_eq!(inbox.post("before"), Ok(()));
        inbox.close();
        assert_eq!(inbox.post("after"), Err("after"));
        assert_eq!((inbox.pop(), inbox.pop()), (Some("before"), None));
    }

    /// F4 of the fault checklist. In a round every poster posts one message, and the next round
    /// begins when all are taken: just when the reactor falls asleep, and nobody's later post makes
    /// up for a wake-up that was lost. One poster makes the most rounds, several contend.
    #[test]
    fn f4_no_wake_up_is_lost() {
        for posters in [1, 3] {
            let sleeps = post_in_rounds(posters, Duration::from_secs(1));
            // How often depends on what else the machine does; usually some 100,000 times.
            assert!(sleeps > 0, "the reactor has to sleep for the test to mean something");
        }
    }

    /// Returns how often the reactor slept.
    fn post_in_rounds(posters: u64, span: Duration) -> u64 {
        let (bell, notify, inbox) = inbox();
        let (taken, ended) = (AtomicU64::new(0), AtomicBool::new(false));
        let post = || {
            for round in 0.. {
                assert_eq!(inbox.post(round), Ok(()));
                let all_taken = || taken.load(Ordering::Acquire) >= posters * (round + 1);
                if !spin_until(all_taken) || ended.load(Ordering::Relaxed) {
                    break;
                }
            }
        };
        // Pauses of no fixed length, so that posts come at any moment of falling asleep.
        let mut rng = fastrand::Rng::with_seed(posters);
        let mut pause = || {
            for step in 0..rng.u32(..64) {
                std::hint::black_box(step);
            }
        };
        let (start, mut count, mut sleeps) = (Instant::now(), 0, 0);
        thread::scope(|scope| {
            (0..posters).for_each(|_| drop(scope.spawn(post)));
            while !ended.load(Ordering::Relaxed) {
                pause();
                sleeps += u64::from(sleep_if_empty(&bell, &notify, &inbox));
                while let Some(round) = inbox.pop() {
                    assert_eq!(round, count / posters, "out of order");
                    count += 1;
                    let last = count % posters == 0 && start.elapsed() > span;
                    ended.store(last, Ordering::Relaxed);
                    taken.store(count, Ordering::Release);
                }
            }
        });
        sleeps
    }

    /// The same with posters that flood, and a reactor that really blocks.
    #[test]
    fn f4_a_flood_is_taken_completely_and_in_order() {
        const POSTERS: usize = 4;
        const MESSAGES: u64 = 100_000;
        #[derive(Default)]
        struct Block(Mutex<bool>, Condvar);
        impl Wake for Block {
            fn wake(&self) {
                *self.0.lock().expect("no panic with the lock") = true;
                self.1.notify_one();
            }
        }
        let block = Arc::new(Block::default());
        let notify = Arc::new(Notify::new(block.clone()));
        let inbox = Inbox::new(notify.clone());
        let mut taken = [0; POSTERS];
        thread::scope(|scope| {
            for poster in 0..POSTERS {
                let inbox = &inbox;
                scope.spawn(move || {
                    for number in 0..MESSAGES {
                        assert!(inbox.post((poster, number)).is_ok());
                    }
                });
            }
            while taken.iter().sum::<u64>() < POSTERS as u64 * MESSAGES {
                notify.prepare_to_sleep();
                if inbox.is_empty() {
                    let rung = block.0.lock().expect("no panic with the lock");
                    let wait = block.1.wait_timeout_while(rung, PATIENCE, |rung| !*rung);
                    let (mut rung, result) = wait.expect("no panic with the lock");
                    assert!(!result.timed_out(), "lost wake-up");
                    *rung = false;
                }
                notify.awake();
                while let Some((poster, number)) = inbox.pop() {
                    assert_eq!(number, taken[poster], "out of order");
                    taken[poster] += 1;
                }
            }
        });
        assert!(inbox.is_empty());
    }

    /// Counts the messages that ended, however they did.
    struct Counted<'a>(&'a AtomicU64);

    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn closing_leaves_no_message_behind() {
        for round in 0..1_000 {
            let ended = AtomicU64::new(0);
            let posted = AtomicU64::new(0);
            let (_, _, inbox) = inbox();
            thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        // An end, lest they flood a machine that is slow to close.
                        for _ in 0..500 {
                            posted.fetch_add(1, Ordering::Relaxed);
                            if inbox.post(Counted(&ended)).is_err() {
                                break;
                            }
                        }
                    });
                }
                assert!(spin_until(|| inbox.len() >= round % 50), "nobody posts");
                inbox.close();
                while inbox.pop().is_some() {}
            });
            assert_eq!(inbox.len(), 0, "left behind in round {round}");
            let [ended, posted] = [&ended, &posted].map(|count| count.load(Ordering::Relaxed));
            assert_eq!(ended, posted, "not every message ended once in round {round}");
        }
    }
}

/// Run with `RUSTFLAGS="--cfg loom" cargo test --release --lib loom_tests`.
#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::{Condvar, Mutex};
    use loom::thread;

    use super::*;

    /// A wait without a deadline: loom reports a wake-up that is lost as a deadlock.
    struct Bell {
        rung: Mutex<usize>,
        changed: Condvar,
    }

    impl Wake for Bell {
        fn wake(&self) {
            *self.rung.lock().unwrap() += 1;
            self.changed.notify_one();
        }
    }

    impl Bell {
        /// Waits for a wake, and returns how many came together.
        fn wait(&self) -> usize {
            let mut rung = self.rung.lock().unwrap();
            while *rung == 0 {
                rung = self.changed.wait(rung).unwrap();
            }
            std::mem::take(&mut *rung)
        }
    }

    fn inbox<M>() -> (Arc<Bell>, Arc<Notify>, Arc<Inbox<M>>) {
        let bell = Arc::new(Bell { rung: Mutex::new(0), changed: Condvar::new() });
        let notify = Arc::new(Notify::new(bell.clone()));
        (bell, notify.clone(), Arc::new(Inbox::new(notify)))
    }

    fn check(preemptions: usize, test: impl Fn() + Send + Sync + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(preemptions);
        model.check(test);
    }

    /// Two posters, one message each, and a reactor that sleeps whenever it finds nothing. It would
    /// sleep for ever if a wake-up were lost.
    #[test]
    fn no_wake_up_is_lost_and_each_sleep_has_one_at_most() {
        check(3, || {
            let (bell, notify, inbox) = inbox();
            let posters = [0, 1].map(|number| {
                let inbox = inbox.clone();
                thread::spawn(move || assert_eq!(inbox.post(number), Ok(())))
            });
            let (mut taken, mut sleeps) = (0, 0);
            while taken < 2 {
                notify.prepare_to_sleep();
                sleeps += 1;
                if inbox.is_empty() {
                    bell.wait();
                }
                notify.awake();
                while inbox.pop().is_some() {
                    taken += 1;
                }
            }
            posters.into_iter().for_each(|poster| poster.join().unwrap());
            assert!(notify.wakes() <= sleeps, "{} wakes, {sleeps} sleeps", notify.wakes());
        });
    }

    /// The reactor prepares to sleep once; both posts may come at any moment around that.
    #[test]
    fn one_sleep_is_ended_by_one_poster() {
        check(3, || {
            let (bell, notify, inbox) = inbox();
            let posters = [0, 1].map(|number| {
                let inbox = inbox.clone();
                thread::spawn(move || assert_eq!(inbox.post(number), Ok(())))
            });
            notify.prepare_to_sleep();
            if inbox.is_empty() {
                assert_eq!(bell.wait(), 1);
            }
            posters.into_iter().for_each(|poster| poster.join().unwrap());
            assert!(notify.wakes() <= 1);
        });
    }

    #[test]
    fn one_poster_s_messages_come_in_order() {
        check(3, || {
            let (bell, notify, inbox) = inbox();
            let posters = [0, 1].map(|poster| {
                let inbox = inbox.clone();
                thread::spawn(move || {
                    assert_eq!(inbox.post((poster, 0)), Ok(()));
                    assert_eq!(inbox.post((poster, 1)), Ok(()));
                })
            });
            let mut taken = [0; 2];
            while taken != [2; 2] {
                notify.prepare_to_sleep();
                if inbox.is_empty() {
                    bell.wait();
                }
                notify.awake();
                while let Some((poster, number)) = inbox.pop() {
                    assert_eq!(number, taken[poster]);
                    taken[poster] += 1;
                }
            }
            posters.into_iter().for_each(|poster| poster.join().unwrap());
        });
    }

    /// Counts the messages that ended, however they did.
    struct Counted(Arc<AtomicUsize>);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The owner is gone when the posters end: only what it, or they, took out counts.
    #[test]
    fn closing_leaves_no_message_behind() {
        check(4, || {
            let (_, _, inbox) = inbox();
            let ended = Arc::new(AtomicUsize::new(0));
            let posters = [0, 1].map(|_| {
                let (inbox, message) = (inbox.clone(), Counted(ended.clone()));
                thread::spawn(move || drop(inbox.post(message)))
            });
            inbox.close();
            while inbox.pop().is_some() {}
            posters.into_iter().for_each(|poster| poster.join().unwrap());
            assert!(inbox.is_empty(), "left behind");
            assert_eq!(ended.load(Ordering::Relaxed), 2, "every message ends exactly once");
        });
    }
}
