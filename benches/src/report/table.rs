//! A scenario on the terminal.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

use super::record::{Entry, ScenarioResults};
use super::text::{short, time};
use crate::stand::{Metrics, Scenario};

/// What is above the columns behind the contestants' names.
pub(super) fn headings(contestants: &[Entry], results: &ScenarioResults) -> Vec<String> {
    let unit = results.scenario.unit();
    let own = [
        format!("CPU ns/{unit}"),
        "ratio".into(),
        "user".into(),
        format!("{unit}/s"),
        "p50".into(),
        "p99".into(),
        "p99.9".into(),
        format!("switches/{unit}"),
        "B/connection".into(),
        format!("load ns/{unit}"),
    ];
    let others = references(contestants).map(|index| format!("to {}", contestants[index].name));
    own.into_iter().chain(others).collect()
}

/// The numbers of those that the others are compared with, besides the baseline.
fn references(contestants: &[Entry]) -> impl Iterator<Item = usize> {
    (0..contestants.len()).filter(|&index| contestants[index].reference)
}

/// What is under the [`headings`] for one contestant, if it has figures.
pub(super) fn row(
    contestants: &[Entry],
    results: &ScenarioResults,
    index: usize,
) -> Option<Vec<String>> {
    let outcome = &results.results[index];
    let own = figures(&results.scenario, outcome.medians.as_ref()?, outcome.ratio);
    let others = references(contestants).map(|other| ratio(results.ratio_to(index, other)));
    Some(own.into_iter().chain(others).collect())
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or_else(String::new, |ratio| format!("{ratio:.3}"))
}

/// Its own figures. Where not everything was counted nothing can be told per unit.
pub(super) fn figures(
    scenario: &Scenario,
    medians: &Metrics<f64>,
    to_baseline: Option<f64>,
) -> [String; 10] {
    let each = |text: String| if scenario.counts_all() { text } else { String::new() };
    [
        each(format!("{:.0}", medians.cpu)),
        ratio(to_baseline),
        format!("{:.0} %", medians.user_share * 100.0),
        short(medians.throughput),
        time(medians.p50 * 1e3),
        time(medians.p99 * 1e3),
        time(medians.p999 * 1e3),
        each(format!("{:.3}", medians.context_switches)),
        short(medians.memory_per_connection),
        each(format!("{:.0}", medians.generator_cpu)),
    ]
}

/// A scenario's results as text: a title, and one line for each contestant.
#[must_use]
pub fn table(contestants: &[Entry], results: &ScenarioResults) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    let headings = headings(contestants, results);
    table.set_header(["server".to_owned()].into_iter().chain(headings));
    for index in results.order() {
        let name = contestants[index].name.clone();
        let row = row(contestants, results, index).unwrap_or_else(|| vec!["failed".into()]);
        table.add_row([name].into_iter().chain(row));
    }
    table.column_iter_mut().skip(1).for_each(|column| {
        column.set_cell_alignment(CellAlignment::Right);
    });
    let title = format!("{}: {}", results.scenario.name, results.scenario);
    let notes = results.notes(contestants).into_iter();
    let notes: String = notes.map(|(names, note)| format!("  {note}: {names}\n")).collect();
    let remark = results.remark().map_or_else(String::new, |remark| format!("  {remark}\n"));
    format!("{title}\n{}\n{remark}{notes}", table.trim_fmt())
}
