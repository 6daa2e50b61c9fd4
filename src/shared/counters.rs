//! What a reactor counts, for an operator to read from another thread.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::base::CloseReason;

/// Turn times are recorded up to this; longer ones count as this.
const LONGEST_TURN: Duration = Duration::from_secs(3600);

/// One reactor's numbers since the engine started, or where the name says so, at this moment.
#[doc(alias("metrics", "monitoring"))]
#[derive(Clone)]
#[non_exhaustive]
pub struct ReactorStats {
    /// Connections at this moment, those on their way from the acceptor and those that are being
    /// made included.
    pub connections: usize,
    /// Connections opened, those included that the engine made or adopted.
    pub accepted: u64,
    /// Connections closed, by reason, in the order of [`CloseReason::NAMES`].
    pub closed: [u64; CloseReason::NAMES.len()],
    /// Handshakes of TLS, or another layer, that succeeded. Those that did not are counted in
    /// [`closed`](Self::closed).
    pub handshakes: u64,
    /// Handshakes that succeeded and went on with an earlier session.
    pub handshakes_resumed: u64,
    /// Handshakes that were not over in time.
    pub handshakes_timed_out: u64,
    /// How often a handshake was put off to a later turn, because there were more than
    /// [`Builder::handshake_budget`](crate::Builder::handshake_budget).
    pub handshakes_put_off: u64,
    /// Bytes received, those of datagrams included. With TLS, what is on the network counts.
    pub bytes_in: u64,
    /// Bytes that were received from connections that were closing, and dropped.
    pub bytes_dropped: u64,
    /// Bytes that the operating system took, those of datagrams included. With TLS, what is on the
    /// network counts.
    pub bytes_out: u64,
    /// How often bytes were delivered to a handler. One delivery can hold many of a protocol's
    /// messages, or a part of one.
    pub messages_in: u64,
    /// How often the operating system took bytes; large writes and the flush after a callback count
    /// separately.
    pub messages_out: u64,
    /// How often another thread had to wake the reactor.
    pub wakeups: u64,
    /// Turns of the loop.
    pub turns: u64,
    /// How long turns took, without the waiting, in nanoseconds. A turn that ends just while the
    /// numbers are read may be missing.
    pub turn_time: Histogram<u64>,
    /// Requests of other threads that wait at this moment.
    pub inbox_depth: usize,
    /// Attempts to connect that came to a connection.
    pub connected: u64,
    /// Attempts to connect that did not, for whatever reason, the engine's stop included.
    pub connect_failures: u64,
    /// Attempts to connect that are under way at this moment, or wait to begin.
    pub attempts: usize,
    /// Sockets at this moment: those of connections, of attempts, and the listening ones of this
    /// reactor.
    pub sockets: usize,
    /// Timers that are armed at this moment.
    pub timers: usize,
    /// Input rings that are leased at this moment.
    pub rings_leased: usize,
    /// Output queues that are leased at this moment.
    pub output_queues_leased: usize,
    /// How many bytes of memory unread input and unsent output hold at this moment.
    pub memory_held: usize,
    /// Input rings that had to be plain memory because mapping failed.
    pub ring_fallbacks: u64,
    /// Callbacks that ran, or were blocked, for longer than the stall threshold.
    pub stalls: u64,
    /// Callbacks that took longer than the stall threshold because other threads had the processor:
    /// the machine has too few cores for what runs on it. Linux tells them apart; elsewhere they
    /// are stalls.
    pub preemptions: u64,
    /// Panics caught in callbacks and completions.
    pub panics: u64,
    /// Sockets for datagrams that are open at this moment.
    pub datagram_sockets: usize,
    /// Datagrams received.
    pub datagrams_in: u64,
    /// Datagrams that the operating system took.
    pub datagrams_out: u64,
    /// Datagrams that were not sent: there was no room, or the operating system refused.
    pub datagrams_dropped: u64,
    /// Datagrams received without their end.
    pub datagrams_truncated: u64,
    /// Errors of sending and receiving datagrams.
    pub datagram_errors: u64,
}

/// Every number, the turn times by their percentiles.
impl fmt::Debug for ReactorStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let turn_time = |quantile| Duration::from_nanos(self.turn_time.value_at_quantile(quantile));
        f.debug_struct("ReactorStats")
            .field("connections", &self.connections)
            .field("accepted", &self.accepted)
            .field("closed", &self.closed)
            .field("handshakes", &self.handshakes)
            .field("handshakes_resumed", &self.handshakes_resumed)
            .field("handshakes_timed_out", &self.handshakes_timed_out)
            .field("handshakes_put_off", &self.handshakes_put_off)
            .field("bytes_in", &self.bytes_in)
            .field("bytes_dropped", &self.bytes_dropped)
            .field("bytes_out", &self.bytes_out)
            .field("messages_in", &self.messages_in)
            .field("messages_out", &self.messages_out)
            .field("wakeups", &self.wakeups)
            .field("turns", &self.turns)
            .field("turn_time_p50", &turn_time(0.5))
            .field("turn_time_p99", &turn_time(0.99))
            .field("turn_time_max", &turn_time(1.0))
            .field("inbox_depth", &self.inbox_depth)
            .field("connected", &self.connected)
            .field("connect_failures", &self.connect_failures)
            .field("attempts", &self.attempts)
            .field("sockets", &self.sockets)
            .field("timers", &self.timers)
            .field("rings_leased", &self.rings_leased)
            .field("output_queues_leased", &self.output_queues_leased)
            .field("memory_held", &self.memory_held)
            .field("ring_fallbacks", &self.ring_fallbacks)
            .field("stalls", &self.stalls)
            .field("preemptions", &self.preemptions)
            .field("panics", &self.panics)
            .field("datagram_sockets", &self.datagram_sockets)
            .field("datagrams_in", &self.datagrams_in)
            .field("datagrams_out", &self.datagrams_out)
            .field("datagrams_dropped", &self.datagrams_dropped)
            .field("datagrams_truncated", &self.datagrams_truncated)
            .field("datagram_errors", &self.datagram_errors)
            .finish()
    }
}

/// The counters, written by the reactor alone and read by anyone.
pub(crate) struct Counters {
    /// Written by the acceptor, too, which counts a connection in before it hands it over.
    pub(crate) connections: AtomicUsize,
    pub(crate) accepted: Count,
    pub(crate) closed: [Count; CloseReason::NAMES.len()],
    pub(crate) handshakes: Count,
    pub(crate) handshakes_resumed: Count,
    pub(crate) handshakes_timed_out: Count,
    pub(crate) handshakes_put_off: Count,
    pub(crate) bytes_in: Count,
    pub(crate) bytes_dropped: Count,
    pub(crate) bytes_out: Count,
    pub(crate) messages_in: Count,
    pub(crate) messages_out: Count,
    pub(crate) turns: Count,
    pub(crate) connected: Count,
    pub(crate) connect_failures: Count,
    pub(crate) attempts: Count,
    pub(crate) sockets: Count,
    pub(crate) timers: Count,
    /// Those that belong to no connection, but for one.
    pub(crate) own_timers: Count,
    pub(crate) rings_leased: Count,
    pub(crate) output_queues_leased: Count,
    pub(crate) memory_held: Count,
    pub(crate) ring_fallbacks: Count,
    pub(crate) stalls: Count,
    pub(crate) preemptions: Count,
    pub(crate) panics: Count,
    pub(crate) datagram_sockets: Count,
    pub(crate) datagrams_in: Count,
    pub(crate) datagrams_out: Count,
    pub(crate) datagrams_dropped: Count,
    pub(crate) datagrams_truncated: Count,
    pub(crate) datagram_errors: Count,
    turn_time: Mutex<Histogram<u64>>,
}

/// A number with one writer: adding needs no locked instruction.
#[derive(Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, amount: u64) {
        self.set(self.get().wrapping_add(amount));
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Default for Counters {
    fn default() -> Self {
        let longest = LONGEST_TURN.as_nanos() as u64;
        let turn_time = Histogram::new_with_max(longest, 2).expect("two digits up to an hour fit");
        Counters {
            connections: AtomicUsize::new(0),
            accepted: Count::default(),
            closed: Default::default(),
            handshakes: Count::default(),
            handshakes_resumed: Count::default(),
            handshakes_timed_out: Count::default(),
            handshakes_put_off: Count::default(),
            bytes_in: Count::default(),
            bytes_dropped: Count::default(),
            bytes_out: Count::default(),
            messages_in: Count::default(),
            messages_out: Count::default(),
            turns: Count::default(),
            connected: Count::default(),
            connect_failures: Count::default(),
            attempts: Count::default(),
            sockets: Count::default(),
            timers: Count::default(),
            own_timers: Count::default(),
            rings_leased: Count::default(),
            output_queues_leased: Count::default(),
            memory_held: Count::default(),
            ring_fallbacks: Count::default(),
            stalls: Count::default(),
            preemptions: Count::default(),
            panics: Count::default(),
            datagram_sockets: Count::default(),
            datagrams_in: Count::default(),
            datagrams_out: Count::default(),
            datagrams_dropped: Count::default(),
            datagrams_truncated: Count::default(),
            datagram_errors: Count::default(),
            turn_time: Mutex::new(turn_time),
        }
    }
}

impl Counters {
    /// Bytes are delivered to a handler.
    pub(crate) fn count_received(&self, bytes: usize) {
        self.bytes_in.add(bytes as u64);
        self.messages_in.add(1);
    }

    pub(crate) fn note_turn(&self, time: Duration) {
        self.turns.add(1);
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        // Reading the numbers must not make the reactor wait.
        if let Ok(mut turn_time) = self.turn_time.try_lock() {
            turn_time.saturating_record(nanoseconds);
        }
    }

    pub(crate) fn snapshot(&self, inbox_depth: usize, wakeups: u64) -> ReactorStats {
        ReactorStats {
            connections: self.connections.load(Ordering::Relaxed),
            accepted: self.accepted.get(),
            closed: std::array::from_fn(|reason| self.closed[reason].get()),
            handshakes: self.handshakes.get(),
            handshakes_resumed: self.handshakes_resumed.get(),
            handshakes_timed_out: self.handshakes_timed_out.get(),
            handshakes_put_off: self.handshakes_put_off.get(),
            bytes_in: self.bytes_in.get(),
            bytes_dropped: self.bytes_dropped.get(),
            bytes_out: self.bytes_out.get(),
            messages_in: self.messages_in.get(),
            messages_out: self.messages_out.get(),
            wakeups,
            turns: self.turns.get(),
            turn_time: self.turn_time.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            inbox_depth,
            connected: self.connected.get(),
            connect_failures: self.connect_failures.get(),
            attempts: self.attempts.get() as usize,
            sockets: self.sockets.get() as usize,
            timers: (self.timers.get() + self.own_timers.get()) as usize,
            rings_leased: self.rings_leased.get() as usize,
            output_queues_leased: self.output_queues_leased.get() as usize,
            memory_held: self.memory_held.get() as usize,
            ring_fallbacks: self.ring_fallbacks.get(),
            stalls: self.stalls.get(),
            preemptions: self.preemptions.get(),
            panics: self.panics.get(),
            datagram_sockets: self.datagram_sockets.get() as usize,
            datagrams_in: self.datagrams_in.get(),
            datagrams_out: self.datagrams_out.get(),
            datagrams_dropped: self.datagrams_dropped.get(),
            datagrams_truncated: self.datagrams_truncated.get(),
            datagram_errors: self.datagram_errors.get(),
        }
    }
}
