//! What one seed draws: the engine's configuration, and how the handler and the peers behave.

use std::time::Duration;

use fastrand::Rng;
use millstream::{Builder, Engine, InputOverflow};

use crate::common::wire::Wire;

/// The largest payload of a peer's frame.
pub(crate) const LARGEST_FRAME: usize = 1200;

pub(crate) struct Plan {
    /// What all connections stand behind.
    pub(crate) wire: Wire,
    pub(crate) peers: usize,
    pub(crate) reactors: usize,
    /// How late a reactor may be, if there are several.
    pub(crate) lag: Duration,
    /// How many attempts to connect the engine may make.
    pub(crate) targets: usize,
    /// How likely one of them connects before a turn, and then another one.
    pub(crate) connects: f64,
    pub(crate) low: usize,
    pub(crate) high: usize,
    pub(crate) pauses_at_high: bool,
    pub(crate) output_cap: usize,
    pub(crate) input_cap: usize,
    pub(crate) overflow: InputOverflow,
    pub(crate) receive_buffer: usize,
    pub(crate) max_connections: Option<usize>,
    pub(crate) idle: Duration,
    pub(crate) read: Option<Duration>,
    pub(crate) write: Option<Duration>,
    pub(crate) close: Duration,
    pub(crate) patience: Duration,
    pub(crate) tick: Option<Duration>,
    pub(crate) mirrored: bool,
    pub(crate) inbox_budget: usize,
    pub(crate) read_budget: usize,
    pub(crate) accept_budget: usize,
    pub(crate) handshake_budget: usize,
    /// How likely a connection is relayed as it opens.
    pub(crate) relays: f64,
    /// How likely a callback does something besides replying.
    pub(crate) mischief: f64,
    /// How likely something is asked from outside before a turn, up to ten things at once. It is
    /// less than the engine does in a turn.
    pub(crate) outside: f64,
    /// The turn before which the engine is stopped, if not before by a callback.
    pub(crate) stop_at: Option<u64>,
    /// Whether a stop leaves connections to end by themselves.
    pub(crate) gentle_stop: bool,
}

impl Plan {
    pub(crate) fn draw(wire: Wire, rng: &mut Rng) -> Self {
        let high = rng.usize(0..6000);
        let low = rng.usize(0..=high);
        Plan {
            wire,
            peers: if rng.u8(0..4) == 0 { rng.usize(10..25) } else { rng.usize(1..=6) },
            reactors: if rng.u8(0..3) == 0 { rng.usize(2..=4) } else { 1 },
            lag: maybe(rng, 0.5, |rng| millis(rng, 1..10)).unwrap_or_default(),
            targets: rng.usize(0..=4),
            connects: 0.05 + rng.f64() * 0.9,
            low,
            high,
            pauses_at_high: rng.f64() < 0.7,
            output_cap: high + rng.usize(1..100_000),
            input_cap: rng.usize(300..8000),
            overflow: if rng.bool() { InputOverflow::Close } else { InputOverflow::Pause },
            receive_buffer: rng.usize(1..3000),
            max_connections: maybe(rng, 0.2, |rng| rng.usize(1..=4)),
            idle: millis(rng, 200..2000),
            read: maybe(rng, 0.2, |rng| millis(rng, 30..1000)),
            write: maybe(rng, 0.2, |rng| millis(rng, 30..1000)),
            close: millis(rng, 0..1000),
            patience: millis(rng, 0..500),
            tick: maybe(rng, 0.2, |rng| millis(rng, 1..300)),
            mirrored: rng.f64() < 0.2,
            inbox_budget: rng.usize(1..=6),
            read_budget: rng.usize(1..5000),
            accept_budget: rng.usize(1..=3),
            relays: maybe(rng, 0.4, Rng::f64).unwrap_or(0.0),
            mischief: rng.f64() * 0.3,
            outside: rng.f64() * 0.15,
            stop_at: maybe(rng, 0.3, |rng| rng.u64(1..400)),
            gentle_stop: rng.bool(),
            handshake_budget: if wire == Wire::Tls { rng.usize(1..=3) } else { 1 },
        }
    }

    /// How many bytes may be unread.
    pub(crate) fn most_unread(&self) -> usize {
        // TLS opens whole records.
        let at_once = if self.wire == Wire::Tls { 16 * 1024 } else { 0 };
        self.input_cap + self.receive_buffer.max(at_once)
    }

    /// How late something may be.
    pub(crate) fn lateness(&self) -> Duration {
        if self.reactors > 1 { self.lag } else { Duration::ZERO }
    }

    pub(crate) fn builder(&self) -> Builder {
        let mut builder = Engine::builder()
            .reactors(self.reactors)
            .water_marks(self.low, self.high)
            .pause_reading_at_high_water(self.pauses_at_high)
            .output_cap(self.output_cap)
            .input_cap(self.input_cap, self.overflow)
            .receive_buffer(self.receive_buffer)
            .idle_timeout(self.idle)
            .close_timeout(self.close)
            .stop_timeout(self.patience)
            .mirrored_rings(self.mirrored)
            .inbox_budget(self.inbox_budget)
            .read_budget(self.read_budget)
            .accept_budget(self.accept_budget)
            .handshake_budget(self.handshake_budget);
        builder = self.wire.build(builder);
        if let Some(most) = self.max_connections {
            builder = builder.max_connections(most);
        }
        if let Some(timeout) = self.read {
            builder = builder.read_timeout(timeout);
        }
        if let Some(timeout) = self.write {
            builder = builder.write_timeout(timeout);
        }
        if let Some(interval) = self.tick {
            builder = builder.tick(interval);
        }
        builder
    }
}

fn maybe<T>(rng: &mut Rng, chance: f64, draw: impl FnOnce(&mut Rng) -> T) -> Option<T> {
    (rng.f64() < chance).then(|| draw(rng))
}

fn millis(rng: &mut Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rng.u64(range))
}
