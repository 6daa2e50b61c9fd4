//! The medians, as a table.

use std::fmt::Write;

use super::Measurement;
use super::options::Candidate;

/// One line per server: `measurements` has one list per candidate, with one entry per round.
pub(super) fn render(candidates: &[Candidate], measurements: &[Vec<Measurement>]) -> String {
    let width = candidates.iter().map(|candidate| candidate.name.len()).max().unwrap_or(0).max(6);
    let mut table = format!(
        "{:<width$}  {:>9}  {:>6}  {:>6}  {:>10}  {:>9}  {:>9}  {:>9}\n",
        "server", "ns/msg", "ratio", "user", "msg/s", "p50 µs", "p99 µs", "load ns"
    );
    for (candidate, rounds) in candidates.iter().zip(measurements) {
        let median_of = |value: fn(&Measurement) -> f64| median(rounds.iter().map(value));
        let base = measurements[0].iter();
        let ratios = rounds.iter().zip(base).map(|(this, base)| cost(this) / cost(base));
        let _ = writeln!(
            table,
            "{:<width$}  {:>9.0}  {:>6.3}  {:>4.0} %  {:>10.0}  {:>9.1}  {:>9.1}  {:>9.0}",
            candidate.name,
            median_of(cost),
            median(ratios),
            median_of(|round| round.server.user_share * 100.0),
            median_of(|round| round.report.messages_per_second()),
            median_of(|round| round.report.p50().as_secs_f64() * 1e6),
            median_of(|round| round.report.p99().as_secs_f64() * 1e6),
            median_of(|round| round.generator.cpu_per_message),
        );
    }
    table
}

fn cost(round: &Measurement) -> f64 {
    round.server.cpu_per_message
}

/// The middle value, or the mean of the two middle ones; zero of none.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match (values.len(), values.len() / 2) {
        (0, _) => 0.0,
        (length, middle) if length % 2 == 1 => values[middle],
        (_, middle) => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([].into_iter()), 0.0);
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
    }
}
