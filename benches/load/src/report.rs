//! What a load found out.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize, Serializer};

use super::tally::{Tally, histogram};
use super::{Load, Mode, Tls};

/// What was measured, the warm-up excluded. `Display` makes a small table of it.
#[derive(Clone, Debug)]
pub struct Report {
    /// Messages echoed completely.
    pub messages: u64,
    /// Payload bytes of these messages, counted in one direction.
    pub bytes: u64,
    /// How long was measured: the duration, and what it took to drain.
    pub elapsed: Duration,
    /// Messages not echoed by the end of the drain: sent, or, in [`Mode::Open`], due but never
    /// sent.
    pub errors: u64,
    /// Connections of the crowd that the server closed.
    pub dropped: u64,
    /// Handshakes of the crowd that the server answered, warm-up included.
    pub shaken: u64,
    /// Connections completed, in [`Mode::Churn`].
    pub connections_made: u64,
    /// How many of those shook hands in full although [`Tls::Resumed`] was asked for.
    pub not_resumed: u64,
    /// Latencies in nanoseconds: of messages, from offering them to the kernel, or, in
    /// [`Mode::Open`], from when they were due, to having read the last byte; in [`Mode::Churn`] of
    /// connections, from connecting to having read the last byte.
    pub histogram: Histogram<u64>,
}

impl Report {
    pub(super) fn from_tallies(tallies: &[Tally], load: &Load) -> Self {
        let (mut messages, mut connections) = (histogram(), histogram());
        for tally in tallies {
            let same_bounds = "all histograms have the same bounds";
            messages.add(&tally.messages).expect(same_bounds);
            connections.add(&tally.connections).expect(same_bounds);
        }
        let resumed = tallies.iter().map(|tally| tally.resumed).sum::<u64>();
        Self {
            messages: messages.len(),
            bytes: messages.len() * load.message_size as u64,
            elapsed: tallies.iter().map(|tally| tally.elapsed).max().unwrap_or_default(),
            errors: tallies.iter().map(|tally| tally.in_flight + tally.unsent).sum(),
            dropped: tallies.iter().map(|tally| tally.dropped).sum(),
            shaken: tallies.iter().map(|tally| tally.shaken).sum(),
            connections_made: connections.len(),
            not_resumed: if load.tls == Tls::Resumed { connections.len() - resumed } else { 0 },
            histogram: if load.mode == Mode::Churn { connections } else { messages },
        }
    }

    /// What the server failed to do, if it did: not everything was echoed, or nothing at all.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let (full, all) = (self.not_resumed, self.connections_made);
        if full > all / 10 {
            return Some(format!("{full} of {all} sessions were not resumed"));
        }
        match (self.errors, self.histogram.is_empty()) {
            (0, false) => None,
            (0, true) => Some("nothing was echoed while measuring".into()),
            (errors, _) => Some(format!("{errors} messages were not echoed in time")),
        }
    }

    /// Messages echoed per second.
    #[must_use]
    pub fn messages_per_second(&self) -> f64 {
        per_second(self.messages, self.elapsed)
    }

    /// Payload in one direction, in 10⁶ bytes per second.
    #[must_use]
    pub fn megabytes_per_second(&self) -> f64 {
        per_second(self.bytes, self.elapsed) / 1e6
    }

    /// Connections completed per second.
    #[must_use]
    pub fn connections_per_second(&self) -> f64 {
        per_second(self.connections_made, self.elapsed)
    }

    /// The latency that half of the messages (in [`Mode::Churn`]: connections) did not exceed; like
    /// the others nothing if there were none.
    #[must_use]
    pub fn p50(&self) -> Option<Duration> {
        self.quantile(0.5)
    }

    /// The latency that 90 % of the messages did not exceed.
    #[must_use]
    pub fn p90(&self) -> Option<Duration> {
        self.quantile(0.9)
    }

    /// The latency that 99 % of the messages did not exceed.
    #[must_use]
    pub fn p99(&self) -> Option<Duration> {
        self.quantile(0.99)
    }

    /// The latency that 99.9 % of the messages did not exceed.
    #[must_use]
    pub fn p999(&self) -> Option<Duration> {
        self.quantile(0.999)
    }

    /// The longest latency.
    #[must_use]
    pub fn max(&self) -> Option<Duration> {
        self.sampled(self.histogram.max())
    }

    fn latencies(&self) -> [(&'static str, Option<Duration>); 5] {
        [
            ("p50", self.p50()),
            ("p90", self.p90()),
            ("p99", self.p99()),
            ("p99.9", self.p999()),
            ("max", self.max()),
        ]
    }

    fn quantile(&self, quantile: f64) -> Option<Duration> {
        self.sampled(self.histogram.value_at_quantile(quantile))
    }

    /// A latency in nanoseconds, if there was any.
    fn sampled(&self, nanoseconds: u64) -> Option<Duration> {
        (!self.histogram.is_empty()).then(|| Duration::from_nanos(nanoseconds))
    }
}

fn per_second(count: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() { 0.0 } else { count as f64 / elapsed.as_secs_f64() }
}

/// What `Display` shows of a [`Report`], under the names of its fields and methods.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figures {
    /// Messages echoed completely.
    pub messages: u64,
    /// Payload bytes of these messages, counted in one direction.
    pub bytes: u64,
    /// How long was measured, in seconds.
    pub elapsed: f64,
    /// Messages not echoed by the end of the drain.
    pub errors: u64,
    /// Connections of the crowd that the server closed.
    pub dropped: u64,
    /// Connections completed, where they come and go.
    pub connections_made: u64,
    /// Messages echoed per second.
    pub messages_per_second: f64,
    /// Payload in one direction, in 10⁶ bytes per second.
    pub megabytes_per_second: f64,
    /// Connections completed per second.
    pub connections_per_second: f64,
    /// Latencies in nanoseconds, by `p50` and so on; of nothing, null.
    pub latency_ns: BTreeMap<String, Option<u64>>,
}

impl Figures {
    /// The latency of that name, such as `p99.9`; zero if there is none.
    #[must_use]
    pub fn latency(&self, name: &str) -> Duration {
        Duration::from_nanos(self.latency_ns.get(name).copied().flatten().unwrap_or_default())
    }
}

impl Report {
    /// The same in numbers.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let nanoseconds = |latency: Duration| latency.as_nanos() as u64;
        let latencies = self.latencies().into_iter();
        Figures {
            messages: self.messages,
            bytes: self.bytes,
            elapsed: self.elapsed.as_secs_f64(),
            errors: self.errors,
            dropped: self.dropped,
            connections_made: self.connections_made,
            messages_per_second: self.messages_per_second(),
            megabytes_per_second: self.megabytes_per_second(),
            connections_per_second: self.connections_per_second(),
            latency_ns: latencies
                .map(|(name, latency)| (name.to_owned(), latency.map(nanoseconds)))
                .collect(),
        }
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.figures().serialize(serializer)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64();
        writeln!(f, "messages    {:>12}   in {seconds:.2} s", self.messages)?;
        writeln!(f, "rate        {:>12.0}   messages/s", self.messages_per_second())?;
        writeln!(f, "payload     {:>12.1}   MB/s each way", self.megabytes_per_second())?;
        if self.connections_made > 0 {
            let rate = self.connections_per_second();
            writeln!(f, "connections {:>12}   made, {rate:.0} a second", self.connections_made)?;
        }
        writeln!(f, "errors      {:>12}   messages not echoed", self.errors)?;
        if self.dropped > 0 {
            writeln!(f, "dropped     {:>12}   connections of the crowd", self.dropped)?;
        }
        if self.shaken > 0 {
            writeln!(f, "handshakes  {:>12}   answered besides", self.shaken)?;
        }
        let of = if self.connections_made > 0 { "for a connection" } else { "for a message" };
        for (name, latency) in self.latencies() {
            match latency.map(|latency| latency.as_secs_f64() * 1e6) {
                Some(microseconds) => writeln!(f, "{name:<12}{microseconds:>12.1}   µs {of}")?,
                None => writeln!(f, "{name:<12}{:>12}", "-")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(latencies: impl IntoIterator<Item = u64>, in_flight: u64, elapsed: u64) -> Tally {
        let mut tally = Tally::new();
        for latency in latencies {
            tally.record(latency);
        }
        tally.in_flight = in_flight;
        tally.elapsed = Duration::from_secs(elapsed);
        tally
    }

    fn load(message_size: usize) -> Load {
        Load { message_size, ..Load::new(([127, 0, 0, 1], 7).into()) }
    }

    #[test]
    fn threads_add_up() {
        let tallies = [tally((1..=500).map(|n| n * 1_000), 0, 2), tally([1_000_000; 500], 3, 1)];
        let report = Report::from_tallies(&tallies, &load(64));
        assert_eq!((report.messages, report.bytes, report.errors), (1_000, 64_000, 3));
        assert_eq!(report.elapsed, Duration::from_secs(2));
        assert_eq!(report.messages_per_second(), 500.0);
        assert_eq!(report.megabytes_per_second(), 0.032);
        assert_near(report.p50(), 500_000);
        assert_near(report.p90(), 1_000_000);
        assert_near(report.max(), 1_000_000);
    }

    #[test]
    fn nothing_measured_is_a_report_too() {
        let report = Report::from_tallies(&[], &load(64));
        assert_eq!(report.messages_per_second(), 0.0);
        assert_eq!((report.p99(), report.max()), (None, None));
        let line = |name: &str| format!("{name:<12}{:>12}\n", "-");
        assert!(report.to_string().ends_with(&(line("p99.9") + &line("max"))), "{report}");
        assert!(report.failure().is_some_and(|failure| failure.contains("nothing")));
    }

    #[test]
    fn sessions_that_are_not_resumed_are_a_failure() {
        let mut all = Tally::new();
        (0..20).for_each(|number| all.record_connection(1_000, number >= 3));
        let resumed = Load { tls: Tls::Resumed, mode: Mode::Churn, ..load(64) };
        let report = Report::from_tallies(&[all], &resumed);
        assert_eq!(report.failure().unwrap(), "3 of 20 sessions were not resumed");
    }

    #[test]
    fn a_latency_beyond_the_bounds_is_counted_as_the_longest() {
        let report = Report::from_tallies(&[tally([u64::MAX], 0, 1)], &load(1));
        assert_eq!(report.messages, 1);
    }

    /// The histogram keeps three digits.
    fn assert_near(latency: Option<Duration>, nanoseconds: u64) {
        let off = latency.unwrap().as_nanos().abs_diff(u128::from(nanoseconds));
        assert!(off * 1_000 <= u128::from(nanoseconds), "{latency:?} is not {nanoseconds} ns");
    }
}
