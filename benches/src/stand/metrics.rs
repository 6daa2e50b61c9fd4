//! The figures of a measurement, their medians, and their ratio to the baseline.

use serde::{Deserialize, Serialize};

/// One `T` for each figure: a number, or the numbers of all rounds. What is "per unit" is per
/// connection where connections are counted, else per message.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics<T> {
    /// CPU time of the server in nanoseconds per unit.
    pub cpu: T,
    /// How much of it was spent in user mode, from 0 to 1.
    pub user_share: T,
    /// Units per second.
    pub throughput: T,
    /// The latency that half of the units did not exceed, in microseconds.
    pub p50: T,
    /// The latency that 99 % did not exceed, in microseconds.
    pub p99: T,
    /// The latency that 99.9 % did not exceed, in microseconds.
    pub p999: T,
    /// Context switches of the server per unit.
    pub context_switches: T,
    /// Bytes of memory by which the server grew per connection.
    pub memory_per_connection: T,
    /// CPU time of the load generator in nanoseconds per unit.
    pub generator_cpu: T,
    /// How busy the generator's threads were, from 0 to 1.
    pub generator_busy: T,
}

impl<T> Metrics<T> {
    /// The same figures, each put through `f`.
    pub fn map<U>(self, mut f: impl FnMut(T) -> U) -> Metrics<U> {
        Metrics {
            cpu: f(self.cpu),
            user_share: f(self.user_share),
            throughput: f(self.throughput),
            p50: f(self.p50),
            p99: f(self.p99),
            p999: f(self.p999),
            context_switches: f(self.context_switches),
            memory_per_connection: f(self.memory_per_connection),
            generator_cpu: f(self.generator_cpu),
            generator_busy: f(self.generator_busy),
        }
    }
}

impl Metrics<Vec<f64>> {
    /// Adds a round.
    pub fn push(&mut self, round: Metrics<f64>) {
        let round = round.map(short);
        self.cpu.push(round.cpu);
        self.user_share.push(round.user_share);
        self.throughput.push(round.throughput);
        self.p50.push(round.p50);
        self.p99.push(round.p99);
        self.p999.push(round.p999);
        self.context_switches.push(round.context_switches);
        self.memory_per_connection.push(round.memory_per_connection);
        self.generator_cpu.push(round.generator_cpu);
        self.generator_busy.push(round.generator_busy);
    }

    /// The median of each figure; `None` without a round.
    #[must_use]
    pub fn medians(&self) -> Option<Metrics<f64>> {
        let measured = !self.cpu.is_empty();
        measured.then(|| self.clone().map(|values| median(&values).unwrap_or_default()))
    }

    /// The median over the rounds of this CPU time to the baseline's in the same round, so that a
    /// slow minute of the machine does not count. `None` if they share no round.
    #[must_use]
    pub fn ratio_to(&self, baseline: &Self) -> Option<f64> {
        median_ratio(&self.cpu, &baseline.cpu).map(short)
    }
}

/// With four decimals: more would be noise, and make a record long.
fn short(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// The middle value, or the mean of the two middle ones.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        length if length % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// The median of the rounds' own ratios, so that what disturbs a whole round does not count. `None`
/// if there are none.
#[must_use]
pub fn median_ratio(of: &[f64], to: &[f64]) -> Option<f64> {
    median(&of.iter().zip(to).map(|(of, to)| of / to).collect::<Vec<_>>())
}

/// The mean of ratios: the one by which all of them could be replaced under multiplication.
pub fn geometric_mean(ratios: &[f64]) -> Option<f64> {
    let logarithms: f64 = ratios.iter().map(|ratio| ratio.ln()).sum();
    (!ratios.is_empty()).then(|| (logarithms / ratios.len() as f64).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(cpu: &[f64]) -> Metrics<Vec<f64>> {
        let mut rounds = Metrics::default();
        for cpu in cpu {
            rounds.push(Metrics { cpu: *cpu, p99: cpu * 2.0, ..Metrics::default() });
        }
        rounds
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn each_figure_has_its_own_median() {
        let medians = rounds(&[5.0, 1.0, 3.0]).medians().unwrap();
        assert_eq!((medians.cpu, medians.p99, medians.p50), (3.0, 6.0, 0.0));
        assert_eq!(rounds(&[]).medians(), None);
    }

    #[test]
    fn the_ratio_is_taken_within_each_round() {
        // The machine is ten times slower in the second round; the medians alone would say 11 / 10.
        let baseline = rounds(&[1.0, 10.0, 1.0, 10.0]);
        let this = rounds(&[2.0, 20.0, 2.0, 20.0]);
        assert_eq!(this.ratio_to(&baseline), Some(2.0));
        assert_eq!(this.ratio_to(&rounds(&[1.0])), Some(2.0));
        assert_eq!(this.ratio_to(&rounds(&[])), None);
    }

    #[test]
    fn the_geometric_mean_treats_a_half_and_a_double_alike() {
        let mean = geometric_mean(&[0.5, 2.0]).unwrap();
        assert!((mean - 1.0).abs() < 1e-12, "{mean}");
        assert_eq!(geometric_mean(&[]), None);
    }
}
