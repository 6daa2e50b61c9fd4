//! What `cargo bench --bench echo` and `--bench rpc` measure with: scenarios, contestants, and a
//! stand that puts one on the other.
//!
//! Where things are: `scenario` the loads; `contestant` the servers, and `build` how they come to
//! be; `server` a running one; `measure` one measurement, `metrics` its figures; `plan` how long
//! all of them take; `cores` where they run; `machine` and `versions` what is written down with the
//! figures; `keep` where a record goes that is kept.

mod build;
mod contestant;
mod cores;
mod keep;
mod machine;
mod measure;
mod metrics;
mod plan;
mod scenario;
mod server;
mod versions;

pub use build::{BuildError, Folders, build};
pub use contestant::{Contestant, KNOWN, KNOWN_RPC, Known, Library, Program, Protocol, Role};
pub use cores::Cores;
pub use keep::{KeepError, keep, unused, write_record};
pub use machine::Machine;
pub use measure::{MeasureError, Stand};
pub use metrics::{Metrics, geometric_mean, median, median_ratio};
pub use plan::{Plan, TimeLeft};
pub use scenario::{FULL, QUICK, RPC, Scenario, ScenarioError, Traffic};
pub use server::{Server, StartError, end_on_signals, last_line};
