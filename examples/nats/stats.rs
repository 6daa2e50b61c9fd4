//! What is counted.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::protocol::Message;

/// The counts of a reactor, which only its own thread changes.
#[derive(Default)]
#[repr(align(128))] // No two reactors share a line of the cache.
pub struct Stats {
    pub connections: Count,
    pub connections_ended: Count,
    pub subscriptions: Count,
    pub subscriptions_ended: Count,
    pub messages_in: Count,
    pub bytes_in: Count,
    pub messages_out: Count,
    pub bytes_out: Count,
    pub slow_consumers: Count,
}

#[derive(Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds to it, on the one thread that does.
    pub fn add(&self, count: u64) {
        self.0.store(self.get() + count, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Stats {
    /// Counts messages that each of this many subscribers gets.
    pub fn count_out<'m>(
        &self,
        subscribers: usize,
        messages: impl IntoIterator<Item = &'m Message<'m>>,
    ) {
        let (mut count, mut bytes) = (0, 0);
        for message in messages {
            count += 1;
            bytes += message.size;
        }
        self.messages_out.add((subscribers * count) as u64);
        self.bytes_out.add((subscribers * bytes) as u64);
    }
}

/// The counts of all reactors together.
pub struct Total<'a>(pub &'a [Stats]);

impl fmt::Display for Total<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = |count: fn(&Stats) -> &Count| -> u64 {
            self.0.iter().map(|stats| count(stats).get()).sum()
        };
        let connections = sum(|stats| &stats.connections);
        let open = connections.saturating_sub(sum(|stats| &stats.connections_ended));
        let subscriptions = sum(|stats| &stats.subscriptions);
        let subscriptions = subscriptions.saturating_sub(sum(|stats| &stats.subscriptions_ended));
        write!(
            f,
            "connections: {open} of {connections}, subscriptions: {subscriptions}, \
             in: {} messages of {} bytes, out: {} messages of {} bytes, slow consumers: {}",
            sum(|stats| &stats.messages_in),
            sum(|stats| &stats.bytes_in),
            sum(|stats| &stats.messages_out),
            sum(|stats| &stats.bytes_out),
            sum(|stats| &stats.slow_consumers),
        )
    }
}
