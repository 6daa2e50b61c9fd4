//! The drawings: a row for each contestant, and panels side by side, one for each kind of figure.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::palette::{
    BACKGROUND, BAND, BASELINE, FAILED, GRID, MILLSTREAM, MUTED, PEER, Shade, TEXT, style_sheet,
};
use super::record::{Outcome, Record, ScenarioResults};
use super::text::{short, time, without_zeros};
use crate::stand::Role;

/// Why there is no drawing.
pub type ChartError = DrawingAreaErrorKind<std::io::Error>;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b, X> = ChartContext<'b, SVGBackend<'a>, Cartesian2d<X, RangedCoordf64>>;

// In pixels.
const WIDTH: u32 = 1_120;
const OVERVIEW_WIDTH: u32 = 820;
const ROW: u32 = 22;
const CAPTION: u32 = 28;
const AXIS: u32 = 26;
const NAMES: u32 = 130;
const FONT: u32 = 13;

/// From this many connections on, memory per connection is more than chance.
const MANY: usize = 1_000;

/// A row: whose it is.
struct Row<'a> {
    name: &'a str,
    role: Role,
}

/// A bar, and what is written at its end; and dots next to it.
struct Bar {
    value: f64,
    label: String,
    dots: Vec<f64>,
}

/// What a panel shows.
enum Panel {
    Cpu,
    Throughput,
    Latency,
    Memory,
}

/// One scenario, in as many panels as have something to tell.
pub(super) fn scenario(record: &Record, results: &ScenarioResults) -> Result<String, ChartError> {
    let order = results.order();
    let rows: Vec<Row<'_>> = order.iter().map(|&index| row(record, index)).collect();
    let outcomes: Vec<&Outcome> = order.iter().map(|&index| &results.results[index]).collect();
    let many = results.scenario.all_connections() >= MANY;
    let cpu = results.scenario.counts_all().then_some(Panel::Cpu).into_iter();
    let panels =
        cpu.chain([Panel::Throughput, Panel::Latency]).chain(many.then_some(Panel::Memory));
    let panels: Vec<Panel> = panels.collect();
    draw(WIDTH, rows.len(), |area| {
        let (names, area) = area.split_horizontally(NAMES);
        draw_names(&names, &rows)?;
        for (panel, area) in panels.iter().zip(area.split_evenly((1, panels.len()))) {
            draw_panel(panel, &area, record, results, &rows, &outcomes)?;
        }
        Ok(())
    })
}

fn draw_panel(
    panel: &Panel,
    area: &Area<'_>,
    record: &Record,
    results: &ScenarioResults,
    rows: &[Row<'_>],
    outcomes: &[&Outcome],
) -> Result<(), ChartError> {
    let unit = results.scenario.unit();
    let bars = |bar: fn(&Outcome) -> Option<Bar>| -> Vec<Option<Bar>> {
        outcomes.iter().map(|outcome| bar(outcome)).collect()
    };
    match panel {
        Panel::Cpu => {
            let caption = format!("CPU time per {unit}, {} = 1", baseline(record));
            draw_bars(area, &caption, rows, &bars(cpu), Some(1.0))
        }
        Panel::Throughput => {
            let line = results.rate.map_or("", |_| " (line: as sent)");
            draw_bars(area, &format!("{unit}/s{line}"), rows, &bars(throughput), results.rate)
        }
        Panel::Latency => draw_latencies(area, rows, outcomes),
        Panel::Memory => draw_bars(area, "bytes per connection", rows, &bars(memory), None),
    }
}

/// All scenarios: each contestant's CPU time relative to the baseline's, as its own file.
///
/// # Errors
///
/// If it cannot be drawn.
pub fn overview(record: &Record) -> Result<String, ChartError> {
    let ranking = record.ranking();
    let rows: Vec<Row<'_>> = ranking.iter().map(|(index, _)| row(record, *index)).collect();
    let bars = ranking.iter().map(|(index, mean)| {
        let (dots, all) = (record.ratios(*index), record.comparable());
        let label = match dots.len() {
            whole if whole == all => format!("{mean:.2}"),
            part => format!("{mean:.2}  ({part} of {all})"),
        };
        Some(Bar { value: *mean, label, dots })
    });
    let bars: Vec<Option<Bar>> = bars.collect();
    let caption = format!(
        "CPU time per message, hand-written echo on {} = 1; less is better. \
         Bar: geometric mean, dots: scenarios",
        baseline(record)
    );
    let svg = draw(OVERVIEW_WIDTH, rows.len(), |area| {
        let (names, area) = area.split_horizontally(NAMES);
        draw_names(&names, &rows)?;
        draw_bars(&area, &caption, &rows, &bars, Some(1.0))
    })?;
    let (tag, rest) = svg.split_once('>').unwrap_or((&svg, ""));
    Ok(format!("{tag}>\n<style>{}</style>{rest}", style_sheet()))
}

fn baseline(record: &Record) -> &str {
    record.baseline().map_or("", |index| &record.contestants[index].name)
}

fn row(record: &Record, index: usize) -> Row<'_> {
    let entry = &record.contestants[index];
    Row { name: &entry.name, role: entry.role }
}

fn cpu(outcome: &Outcome) -> Option<Bar> {
    let ratio = outcome.ratio?;
    let cpu = outcome.medians.as_ref()?.cpu;
    Some(Bar { value: ratio, label: format!("{ratio:.2}  ({})", time(cpu)), dots: Vec::new() })
}

fn throughput(outcome: &Outcome) -> Option<Bar> {
    let value = outcome.medians.as_ref()?.throughput;
    Some(Bar { value, label: short(value), dots: Vec::new() })
}

fn memory(outcome: &Outcome) -> Option<Bar> {
    let value = outcome.medians.as_ref()?.memory_per_connection.max(0.0);
    Some(Bar { value, label: short(value), dots: Vec::new() })
}

/// An image with room for the rows, a caption above them and an axis below.
fn draw(
    width: u32,
    rows: usize,
    content: impl FnOnce(&Area<'_>) -> Result<(), ChartError>,
) -> Result<String, ChartError> {
    let height = CAPTION + rows as u32 * ROW + AXIS;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
        area.fill(&BACKGROUND.color())?;
        content(&area)?;
        area.present()?;
    }
    Ok(svg)
}

fn draw_names(area: &Area<'_>, rows: &[Row<'_>]) -> Result<(), ChartError> {
    let right = NAMES as i32 - 8;
    for (index, row) in rows.iter().enumerate() {
        let top = (CAPTION + index as u32 * ROW) as i32;
        if row.role == Role::Millstream {
            let corners = [(0, top), (NAMES as i32, top + ROW as i32)];
            area.draw(&Rectangle::new(corners, BAND.color().filled()))?;
        }
        let (shade, weight) = match row.role {
            Role::Millstream => (MILLSTREAM, FontStyle::Bold),
            Role::Baseline => (TEXT, FontStyle::Bold),
            Role::Peer => (TEXT, FontStyle::Normal),
        };
        let font = ("sans-serif", FONT, weight).into_font().color(&shade.color());
        let style = font.pos(Pos::new(HPos::Right, VPos::Center));
        area.draw(&Text::new(row.name, (right, top + ROW as i32 / 2), style))?;
    }
    Ok(())
}

/// Bars from zero, with what `reference` marks as a line. A missing one failed.
fn draw_bars(
    area: &Area<'_>,
    caption: &str,
    rows: &[Row<'_>],
    bars: &[Option<Bar>],
    reference: Option<f64>,
) -> Result<(), ChartError> {
    let present = bars.iter().flatten();
    let highest = present.flat_map(|bar| bar.dots.iter().copied().chain([bar.value]));
    let highest = highest.chain(reference).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    // The rest is for what is written at the end of the longest.
    let mut chart = frame(area, caption, rows, 0.0..highest * 1.4, short)?;
    for (index, (row, bar)) in rows.iter().zip(bars).enumerate() {
        let (top, middle) = (index as f64, index as f64 + 0.5);
        let Some(bar) = bar else {
            draw_label(&chart, "failed".into(), (0.0, middle), &FAILED)?;
            continue;
        };
        let corners = [(0.0, top + 0.15), (bar.value, top + 0.85)];
        chart.draw_series([Rectangle::new(corners, shade(row.role).color().filled())])?;
        let dots =
            bar.dots.iter().map(|value| Circle::new((*value, middle), 2, TEXT.color().filled()));
        chart.draw_series(dots)?;
        // Right of what is drawn, the reference's line included.
        let end = bar.dots.iter().copied().chain(reference).fold(bar.value, f64::max);
        draw_label(&chart, bar.label.clone(), (end, middle), &TEXT)?;
    }
    let line = |value| PathElement::new([(value, 0.0), (value, rows.len() as f64)], MUTED.color());
    chart.draw_series(reference.map(line))?;
    Ok(())
}

/// Three marks on a line for each, on a logarithmic scale.
fn draw_latencies(
    area: &Area<'_>,
    rows: &[Row<'_>],
    outcomes: &[&Outcome],
) -> Result<(), ChartError> {
    let medians = || outcomes.iter().filter_map(|outcome| outcome.medians.as_ref());
    let lowest = medians().map(|medians| medians.p50).fold(f64::INFINITY, f64::min);
    let highest = medians().map(|medians| medians.p999).fold(1.0, f64::max);
    let range = decade(lowest.min(highest)).0..decade(highest).1;
    let caption = "latency: ● p50  ▲ p99  ○ p99.9";
    let start = range.start;
    let mut chart = frame(area, caption, rows, range.log_scale(), |value| time(value * 1e3))?;
    for (index, (row, outcome)) in rows.iter().zip(outcomes).enumerate() {
        let middle = index as f64 + 0.5;
        let Some(medians) = &outcome.medians else {
            draw_label(&chart, "failed".into(), (start, middle), &FAILED)?;
            continue;
        };
        let color = shade(row.role).color();
        let at = |value: f64| (value.max(start), middle);
        let ends = [at(medians.p50), at(medians.p999)];
        chart.draw_series([PathElement::new(ends, color.stroke_width(2))])?;
        chart.draw_series([Circle::new(at(medians.p50), 4, color.filled())])?;
        chart.draw_series([TriangleMarker::new(at(medians.p99), 5, color.filled())])?;
        let hollow = [BACKGROUND.color().filled(), color.stroke_width(2)];
        chart.draw_series(hollow.map(|style| Circle::new(at(medians.p999), 4, style)))?;
    }
    Ok(())
}

/// The powers of ten around a value.
fn decade(value: f64) -> (f64, f64) {
    let exponent = value.max(0.1).log10();
    (10f64.powf(exponent.floor()), 10f64.powf((exponent + 1e-9).ceil()))
}

/// Caption, axis, grid and the row of millstream; from the top, row `n` is at `n` to `n + 1`.
fn frame<'a, 'b, X>(
    area: &'b Area<'a>,
    caption: &str,
    rows: &[Row<'_>],
    x: X,
    x_label: impl Fn(f64) -> String,
) -> Result<Chart<'a, 'b, X::CoordDescType>, ChartError>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let font = |shade: &Shade| ("sans-serif", FONT).into_font().color(&shade.color());
    area.draw(&Text::new(caption.to_owned(), (2, 8), font(&MUTED)))?;
    let mut chart = ChartBuilder::on(area)
        .margin_top(CAPTION)
        .margin_right(40)
        .x_label_area_size(AXIS)
        .build_cartesian_2d(x, rows.len() as f64..0.0)?;
    let Range { start, end } = chart.x_range();
    let bands = rows.iter().enumerate().filter(|(_, row)| row.role == Role::Millstream);
    let bands = bands.map(|(index, _)| [(start, index as f64), (end, index as f64 + 1.0)]);
    chart.draw_series(bands.map(|corners| Rectangle::new(corners, BAND.color().filled())))?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_labels(5)
        .x_label_formatter(&|value| without_zeros(&x_label(*value)))
        .x_label_style(font(&MUTED))
        .axis_style(GRID.color())
        .bold_line_style(GRID.color())
        .light_line_style(TRANSPARENT)
        .draw()?;
    Ok(chart)
}

/// Text that starts right of a point.
fn draw_label<X: Ranged<ValueType = f64>>(
    chart: &Chart<'_, '_, X>,
    text: String,
    point: (f64, f64),
    shade: &Shade,
) -> Result<(), ChartError> {
    let font = ("sans-serif", FONT).into_font().color(&shade.color());
    let style = font.pos(Pos::new(HPos::Left, VPos::Center));
    chart.plotting_area().draw(&(EmptyElement::at(point) + Text::new(text, (6, 0), style)))
}

fn shade(role: Role) -> &'static Shade {
    match role {
        Role::Millstream => &MILLSTREAM,
        Role::Baseline => &BASELINE,
        Role::Peer => &PEER,
    }
}
