//! What a process spends while it is under load, as the kernel accounts for it (Linux only).
//!
//! | figure | from |
//! | --- | --- |
//! | CPU time | `/proc/PID/task/*/schedstat`: nanoseconds of each live thread |
//! | its share of user time | `/proc/PID/stat`: ticks, which the kernel samples; good for a percentage |
//! | context switches | `/proc/PID/task/*/status` |
//! | memory | `RssAnon` in `/proc/PID/status`: resident, and of no file |
//!
//! The CPU time of a running thread may be one scheduler tick old, so samples should be seconds apart.
//! What a thread spent that ended between two samples is not in the figures.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

use crate::load::Progress;

/// Follows what a process spends through the measured part of a load: that of the server, or, with
/// its own id, that of the generator.
#[derive(Debug)]
pub struct ProcessMeter {
    process: PathBuf,
    /// Before there was any connection.
    memory_before: Option<u64>,
    first: Option<Sample>,
    last: Option<Sample>,
}

/// What a process spent. A unit of work is a message, in [`Mode::Churn`](crate::load::Mode) a
/// connection. `Display` makes a small table of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ProcessFigures {
    /// CPU time in nanoseconds per unit of work.
    pub cpu_per_message: f64,
    /// How much of the CPU time was spent in user mode, from 0 to 1.
    pub user_share: f64,
    /// Context switches per unit of work, whether the process waited or was made to.
    pub context_switches_per_message: f64,
    /// Resident anonymous memory in bytes, at the end of measuring.
    pub memory: u64,
    /// How many bytes of memory the connections of the load added, per connection, by the time
    /// measuring began. Unknown if the process could not be read before they were opened.
    pub memory_per_connection: Option<f64>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    connected: usize,
    messages: u64,
    connections_made: u64,
    usage: Usage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Usage {
    cpu_nanoseconds: u64,
    context_switches: u64,
    user_ticks: u64,
    system_ticks: u64,
    memory: u64,
}

impl ProcessMeter {
    /// A meter for the process `id`. To be made before the load connects to it.
    #[must_use]
    pub fn new(id: u32) -> Self {
        let process = PathBuf::from(format!("/proc/{id}"));
        // If it fails now, so will the samples, and say so.
        let memory_before = memory(&process).ok();
        Self { process, memory_before, first: None, last: None }
    }

    /// Takes a sample, if the load is measuring by now. To be called with each progress: the first
    /// and the last sample count.
    ///
    /// # Errors
    ///
    /// If the process's files in `/proc` cannot be read: it ended, or this is not Linux.
    pub fn sample(&mut self, progress: &Progress) -> io::Result<()> {
        if progress.measuring {
            let Progress { connected, messages, connections_made, .. } = *progress;
            let usage = usage(&self.process)?;
            let sample = Sample { connected, messages, connections_made, usage };
            self.first.get_or_insert(sample);
            self.last = Some(sample);
        }
        Ok(())
    }

    /// What was spent between the first and the last sample; nothing if no work was done between.
    #[must_use]
    pub fn figures(&self) -> Option<ProcessFigures> {
        let (first, last) = (self.first?, self.last?);
        let work = last.work_since(&first)? as f64;
        let (before, after) = (first.usage, last.usage);
        let difference = |of: fn(&Usage) -> u64| of(&after).saturating_sub(of(&before)) as f64;
        let user = difference(|usage| usage.user_ticks);
        let ticks = user + difference(|usage| usage.system_ticks);
        Some(ProcessFigures {
            cpu_per_message: difference(|usage| usage.cpu_nanoseconds) / work,
            user_share: user / ticks.max(1.0),
            context_switches_per_message: difference(|usage| usage.context_switches) / work,
            memory: after.memory,
            memory_per_connection: self.memory_before.map(|memory_before| {
                (before.memory as f64 - memory_before as f64) / first.connected.max(1) as f64
            }),
        })
    }
}

impl Sample {
    /// The units of work since `earlier`: connections, if any were made, or else messages.
    fn work_since(&self, earlier: &Self) -> Option<u64> {
        [
            self.connections_made.checked_sub(earlier.connections_made),
            self.messages.checked_sub(earlier.messages),
        ]
        .into_iter()
        .flatten()
        .find(|work| *work > 0)
    }
}

impl fmt::Display for ProcessFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user_share * 100.0;
        let (cpu, switches) = (self.cpu_per_message, self.context_switches_per_message);
        writeln!(f, "CPU         {cpu:>12.0}   ns each, {user:.0} % of it user")?;
        writeln!(f, "switches    {switches:>12.3}   context switches each")?;
        write!(f, "memory      {:>12.1}   MiB", self.memory as f64 / f64::from(1 << 20))?;
        if let Some(memory) = self.memory_per_connection {
            write!(f, ", {memory:.0} bytes per connection")?;
        }
        writeln!(f)
    }
}

/// Lets this process have as many files open as the system permits it: each connection is one.
///
/// # Errors
///
/// If the system refuses.
pub fn raise_open_files() -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

fn usage(process: &Path) -> io::Result<Usage> {
    let stat = fs::read_to_string(process.join("stat"))?;
    let (user_ticks, system_ticks) = parse_stat(&stat).ok_or_else(malformed)?;
    let (mut cpu_nanoseconds, mut context_switches) = (0, 0);
    for thread in fs::read_dir(process.join("task"))? {
        match thread_usage(&thread?.path()) {
            Ok((nanoseconds, switches)) => {
                cpu_nanoseconds += nanoseconds;
                context_switches += switches;
            }
            Err(error) if is_of_ended(&error) => {}
            Err(error) => return Err(error),
        }
    }
    let memory = memory(process)?;
    Ok(Usage { cpu_nanoseconds, context_switches, user_ticks, system_ticks, memory })
}

/// Whether a thread ended since the folder was read, or its file was opened.
fn is_of_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

/// CPU time in nanoseconds, and context switches.
fn thread_usage(thread: &Path) -> io::Result<(u64, u64)> {
    let schedstat = fs::read_to_string(thread.join("schedstat"))?;
    let status = fs::read_to_string(thread.join("status"))?;
    let switches = |name| parse_status(&status, name).ok_or_else(malformed);
    Ok((
        parse_schedstat(&schedstat).ok_or_else(malformed)?,
        switches("voluntary_ctxt_switches")? + switches("nonvoluntary_ctxt_switches")?,
    ))
}

fn memory(process: &Path) -> io::Result<u64> {
    let status = fs::read_to_string(process.join("status"))?;
    Ok(parse_status(&status, "RssAnon").ok_or_else(malformed)? * 1024)
}

/// The first number: nanoseconds on a CPU.
fn parse_schedstat(line: &str) -> Option<u64> {
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// The 14th and 15th field: user and system time in ticks. The second is the program's name in
/// parentheses, which may itself have spaces and parentheses.
fn parse_stat(line: &str) -> Option<(u64, u64)> {
    let (_, after_name) = line.rsplit_once(") ")?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// The number on the line `name`.
fn parse_status(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(key, _)| *key == name)?;
    value.split_ascii_whitespace().next()?.parse().ok()
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "unexpected format of a file in /proc")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn stat_is_parsed_behind_any_name() {
        let line = "7 (a) b (c) S 1 7 7 0 -1 4194560 90 0 0 0 123 456 0 0 20 0 1 0 8 9 10";
        assert_eq!(parse_stat(line), Some((123, 456)));
        assert_eq!(parse_stat("7 (a"), None);
    }

    #[test]
    fn schedstat_begins_with_the_time() {
        assert_eq!(parse_schedstat("724561 12 1\n"), Some(724_561));
        assert_eq!(parse_schedstat(""), None);
    }

    #[test]
    fn status_is_searched_for_the_whole_name() {
        let text =
            "RssAnon:\t     148 kB\nnonvoluntary_ctxt_switches:\t9\nvoluntary_ctxt_switches:\t7\n";
        assert_eq!(parse_status(text, "RssAnon"), Some(148));
        assert_eq!(parse_status(text, "voluntary_ctxt_switches"), Some(7));
        assert_eq!(parse_status(text, "Rss"), None);
    }

    fn meter(first: Sample, last: Sample) -> ProcessMeter {
        let (first, last) = (Some(first), Some(last));
        ProcessMeter { process: PathBuf::new(), memory_before: Some(4_000), first, last }
    }

    const FIRST: Sample = Sample {
        connected: 10,
        messages: 1_000,
        connections_made: 0,
        usage: Usage {
            cpu_nanoseconds: 50_000,
            context_switches: 100,
            user_ticks: 2,
            system_ticks: 3,
            memory: 5_000,
        },
    };

    #[test]
    fn a_message_costs_the_difference() {
        let usage = Usage {
            cpu_nanoseconds: 1_050_000,
            context_switches: 150,
            user_ticks: 3,
            system_ticks: 6,
            memory: 6_000,
        };
        let figures = meter(FIRST, Sample { messages: 1_200, usage, ..FIRST }).figures();
        let expected = ProcessFigures {
            cpu_per_message: 5_000.0,
            user_share: 0.25,
            context_switches_per_message: 0.25,
            memory: 6_000,
            memory_per_connection: Some(100.0),
        };
        assert_eq!(figures, Some(expected));
        assert_eq!(meter(FIRST, FIRST).figures(), None);
    }

    #[test]
    fn where_connections_are_made_they_are_what_costs() {
        let usage = Usage { cpu_nanoseconds: 60_000, ..FIRST.usage };
        let last = Sample { messages: 9_000, connections_made: 10, usage, ..FIRST };
        assert_eq!(meter(FIRST, last).figures().unwrap().cpu_per_message, 1_000.0);
    }

    fn progress(messages: u64) -> Progress {
        let (elapsed, total) = (Duration::ZERO, Duration::ZERO);
        Progress { connected: 1, elapsed, total, messages, connections_made: 0, measuring: true }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_figures() {
        let mut meter = ProcessMeter::new(std::process::id());
        meter.sample(&progress(0)).unwrap();
        meter.sample(&progress(1)).unwrap();
        let figures = meter.figures().unwrap();
        assert!(figures.memory > 0 && figures.memory_per_connection.is_some(), "{figures}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn threads_may_end_meanwhile() {
        let mut meter = ProcessMeter::new(std::process::id());
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    thread::spawn(|| {}).join().unwrap();
                }
            });
            let samples: io::Result<()> = (0..1_000).try_for_each(|n| meter.sample(&progress(n)));
            done.store(true, Ordering::Relaxed);
            samples.unwrap();
        });
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        let mut meter = ProcessMeter::new(u32::MAX);
        assert_eq!(meter.memory_before, None);
        meter.sample(&progress(1)).unwrap_err();
        assert_eq!(meter.figures(), None);
    }
}
