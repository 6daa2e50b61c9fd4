//! A scenario on the terminal.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

use super::Metrics;
use super::record::{Entry, ScenarioResults};
use super::text::{short, time};
use crate::stand::Scenario;

/// The figures of a table, in the order of their columns, for units called so.
pub(super) fn headings(unit: &str) -> [String; 10] {
    [
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
    ]
}

/// What is under the [`headings`]. Where not everything was counted nothing can be told per unit.
pub(super) fn figures(
    scenario: &Scenario,
    medians: &Metrics<f64>,
    ratio: Option<f64>,
) -> [String; 10] {
    let each = |text: String| if scenario.counts_all() { text } else { String::new() };
    [
        each(format!("{:.0}", medians.cpu)),
        ratio.map_or_else(String::new, |ratio| format!("{ratio:.3}")),
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
    let headings = headings(results.scenario.unit());
    table.set_header(["server".to_owned()].into_iter().chain(headings));
    for index in results.order() {
        let result = &results.results[index];
        let mut row = vec![contestants[index].name.clone()];
        match &result.medians {
            Some(medians) => row.extend(figures(&results.scenario, medians, result.ratio)),
            None => row.push("failed".into()),
        }
        table.add_row(row);
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
