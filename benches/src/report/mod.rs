//! What a benchmark found out, and how it is shown: on the terminal, and as a page with charts.
//!
//! Where things are: `record` all of a run, as it is kept; `table` a
//! scenario on the terminal; `chart` drawings; `palette` their colours, in light and dark; `page`
//! everything for a browser; `text` numbers as people read them.

mod chart;
mod page;
mod palette;
mod record;
mod table;
mod text;

#[cfg(test)]
mod tests;

pub use chart::{ChartError, overview};
pub use page::page;
pub use record::{Entry, Outcome, Record, ScenarioResults, Setup, Subject, Unavailable};
pub use table::table;
pub use text::{command_line, waiting_time};

pub use crate::stand::{Metrics, median};
