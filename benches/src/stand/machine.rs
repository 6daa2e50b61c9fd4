//! What a measurement was made on.

use std::fs;
use std::thread;

use serde::{Deserialize, Serialize};

use super::versions;

/// The machine and its system, without anything that names it. What could not be told is empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's model.
    pub processor: String,
    /// Cores that may be used.
    pub cores: usize,
    /// Memory in GiB.
    pub memory: f64,
    /// Whether a hypervisor is under it.
    pub virtual_machine: bool,
    /// The operating system's kernel.
    pub kernel: String,
    /// How TCP limits what it sends.
    pub congestion_control: String,
    /// The compiler of the contestants that are in Rust.
    pub rustc: String,
}

impl Machine {
    /// This one, as Linux describes it in `/proc`.
    #[must_use]
    pub fn this() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let processor = read("/proc/cpuinfo");
        let kibibytes = field(&read("/proc/meminfo"), "MemTotal")
            .and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
        Self {
            processor: field(&processor, "model name").unwrap_or_default(),
            cores: thread::available_parallelism().map_or(0, usize::from),
            memory: (kibibytes.unwrap_or_default() / f64::from(1 << 20)).round(),
            virtual_machine: field(&processor, "flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
            congestion_control: read("/proc/sys/net/ipv4/tcp_congestion_control").trim().to_owned(),
            rustc: versions::rustc().unwrap_or_default(),
        }
    }
}

/// The value of the first line `NAME : VALUE`.
fn field(text: &str, name: &str) -> Option<String> {
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_name() {
        let text =
            "processor\t: 0\nmodel name\t: Quick: 3 GHz\nmodel\t\t: 7\nmodel name\t: Other\n";
        assert_eq!(field(text, "model name").as_deref(), Some("Quick: 3 GHz"));
        assert_eq!(field(text, "mode"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_is_described() {
        let machine = Machine::this();
        assert!(machine.cores > 0 && machine.memory > 0.0, "{machine:?}");
        assert!(machine.kernel.len() > "Linux ".len(), "{machine:?}");
    }
}
