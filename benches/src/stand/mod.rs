//! What `cargo bench --bench echo`, `--bench rpc` and `--bench tls` measure with: scenarios,
//! contestants, and a stand that puts one on the other.
//!
//! Where things are: `scenario` the loads; `contestant` the servers, and `build` how they come to
//! be; `server` a running one; `measure` one measurement, `metrics` its figures; `plan` how long
//! all of them take; `cores` where they run; `machine` and `versions` what is written down with the
//! figures; `keep` where a record goes that is kept; `identity` the certificate of servers with
//! TLS.

mod build;
mod contestant;
mod cores;
#[cfg(feature = "tls")]
mod identity;
mod keep;
mod machine;
mod measure;
mod metrics;
mod plan;
mod scenario;
mod server;
mod versions;

pub use build::{BuildError, Folders, build};
pub use contestant::{
    CERTIFICATE, Contestant, KEY, KNOWN, KNOWN_HTTP, KNOWN_RPC, KNOWN_TLS, Known, Library, Program,
    Protocol, Role,
};
pub use cores::Cores;
#[cfg(feature = "tls")]
pub use identity::make_identity;
pub use keep::{KeepError, keep, unused, write_record};
pub use machine::Machine;
pub use measure::{MeasureError, Stand};
pub use metrics::{Metrics, geometric_mean, median, median_ratio};
pub use plan::{Plan, TimeLeft};
pub use scenario::{FULL, QUICK, RPC, Scenario, ScenarioError, TLS, Traffic};
pub use server::{Server, StartError, end_on_signals, last_line};
