//! The engine's numbers, in the text format of Prometheus.

use std::fmt::{self, Write};

use millstream::http::{Answered, Exchange, Failure, StatusCode};
use millstream::{CloseReason, ReactorStats, Stats};

use crate::Running;

/// A number of each reactor: its name, its type, what it is, and where it is.
type Metric = (&'static str, &'static str, &'static str, fn(&ReactorStats) -> u64);

const METRICS: [Metric; 6] = [
    ("connections", "gauge", "Open connections.", |reactor| reactor.connections as u64),
    ("accepted_total", "counter", "Connections that were opened.", |reactor| reactor.accepted),
    ("received_bytes_total", "counter", "Bytes that came.", |reactor| reactor.bytes_in),
    ("sent_bytes_total", "counter", "Bytes that were sent.", |reactor| reactor.bytes_out),
    ("stalls_total", "counter", "Callbacks that took too long.", |reactor| reactor.stalls),
    ("panics_total", "counter", "Callbacks that panicked.", |reactor| reactor.panics),
];

/// What serves the path.
pub(crate) fn handler(
    running: Running,
) -> impl FnMut(Exchange<'_>) -> Result<Answered, Failure> + 'static {
    move |exchange| {
        if exchange.path() != "/metrics" {
            return Err(StatusCode::NOT_FOUND.into());
        }
        let engine = running.engine().ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
        let text = text(&engine.stats())?;
        let answer = exchange.respond(StatusCode::OK);
        Ok(answer.field("Content-Type", "text/plain; version=0.0.4")?.body(text.as_bytes()))
    }
}

fn text(stats: &Stats) -> Result<String, fmt::Error> {
    let mut text = String::new();
    for (name, kind, help, of) in METRICS {
        writeln!(text, "# HELP millstream_{name} {help}\n# TYPE millstream_{name} {kind}")?;
        for (index, reactor) in stats.reactors.iter().enumerate() {
            writeln!(text, "millstream_{name}{{reactor=\"{index}\"}} {}", of(reactor))?;
        }
    }
    writeln!(text, "# HELP millstream_closed_total Connections that were closed, and why.")?;
    writeln!(text, "# TYPE millstream_closed_total counter")?;
    for (index, reason) in CloseReason::NAMES.iter().enumerate() {
        let closed: u64 = stats.reactors.iter().map(|reactor| reactor.closed[index]).sum();
        writeln!(text, "millstream_closed_total{{reason=\"{reason}\"}} {closed}")?;
    }
    Ok(text)
}
