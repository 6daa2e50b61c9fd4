//! What a process spends while it is under load, as the kernel accounts for it (Linux only).
//!
//! | figure | from |
//! | --- | --- |
//! | CPU time | `/proc/PID/task/*/schedstat`: nanoseconds of each live thread |
//! | its share of user time | `/proc/PID/stat`: ticks, which the kernel samples; good for a percentage |
//! | context switches | `/proc/PID/task/*/status` |
//! | memory | `RssAnon` in `/proc/PID/status`: resident, and of no file |
//!
//! The CPU time of a running thread may be one scheduler tick old, so samples should be seconds
//! apart. What a thread spent that ended between two samples is not in the figures, nor what
//! descendants do that are younger than the first sample.

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
    /// The process, and its descendants if they count.
    processes: Vec<PathBuf>,
    with_descendants: bool,
    /// Before there was any connection.
    memory_before: u64,
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
    /// measuring began.
    pub memory_per_connection: f64,
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

/// What a process spent since it began, and has now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProcessUsage {
    /// CPU time in nanoseconds, of its live threads.
    pub cpu_nanoseconds: u64,
    /// Resident anonymous memory in bytes.
    pub memory: u64,
}

impl ProcessUsage {
    /// That of the process `id`.
    ///
    /// # Errors
    ///
    /// If the process's files in `/proc` cannot be read: there is none, or this is not Linux.
    pub fn of(id: u32) -> io::Result<Self> {
        let Usage { cpu_nanoseconds, memory, .. } = usage(&PathBuf::from(format!("/proc/{id}")))?;
        Ok(Self { cpu_nanoseconds, memory })
    }
}

impl ProcessMeter {
    /// A meter for the process `id`. To be made before the load connects to it.
    ///
    /// # Errors
    ///
    /// If the process's files in `/proc` cannot be read: there is none, or this is not Linux.
    pub fn new(id: u32) -> io::Result<Self> {
        Self::of(id, false)
    }

    /// A meter for the process `id` and all that descend from it, together.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new).
    pub fn with_descendants(id: u32) -> io::Result<Self> {
        Self::of(id, true)
    }

    fn of(id: u32, with_descendants: bool) -> io::Result<Self> {
        let processes = vec![PathBuf::from(format!("/proc/{id}"))];
        let mut meter =
            Self { processes, with_descendants, memory_before: 0, first: None, last: None };
        meter.memory_before = meter.usage()?.memory;
        Ok(meter)
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
            let usage = self.usage()?;
            let sample = Sample { connected, messages, connections_made, usage };
            self.first.get_or_insert(sample);
            self.last = Some(sample);
        }
        Ok(())
    }

    /// What all of the processes spent so far. Until measuring begins new descendants are looked
    /// for.
    fn usage(&mut self) -> io::Result<Usage> {
        if self.with_descendants && self.first.is_none() {
            self.processes.truncate(1);
            self.processes = with_descendants(&self.processes[0])?;
        }
        let mut sum = usage(&self.processes[0])?;
        for descendant in &self.processes[1..] {
            match usage(descendant) {
                Ok(usage) => sum.add(&usage),
                Err(error) if is_of_ended(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sum)
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
            memory_per_connection: (before.memory as f64 - self.memory_before as f64)
                / first.connected.max(1) as f64,
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

impl Usage {
    fn add(&mut self, other: &Self) {
        self.cpu_nanoseconds += other.cpu_nanoseconds;
        self.context_switches += other.context_switches;
        self.user_ticks += other.user_ticks;
        self.system_ticks += other.system_ticks;
        self.memory += other.memory;
    }
}

impl fmt::Display for ProcessFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user_share * 100.0;
        let (cpu, switches) = (self.cpu_per_message, self.context_switches_per_message);
        writeln!(f, "CPU         {cpu:>12.0}   ns each, {user:.0} % of it user")?;
        writeln!(f, "switches    {switches:>12.3}   context switches each")?;
        write!(f, "memory      {:>12.1}   MiB", self.memory as f64 / f64::from(1 << 20))?;
        writeln!(f, ", {:.0} bytes per connection", self.memory_per_connection)
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

/// The folders of `process` and of all that descend from it.
fn with_descendants(process: &Path) -> io::Result<Vec<PathBuf>> {
    let mut others = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        // Not every folder is a process, and a process may end meanwhile.
        let stat = fs::read_to_string(path.join("stat")).unwrap_or_default();
        others.extend(parse_parent(&stat).map(|parent| (path, parent.to_owned())));
    }
    let mut found = vec![process.to_owned()];
    let mut next = 0;
    while let Some(parent) = found.get(next).cloned() {
        let children = others.iter().filter(|(_, of)| parent.ends_with(of));
        found.extend(children.map(|(path, _)| path.clone()));
        next += 1;
    }
    Ok(found)
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

/// The 4th field: the parent's id.
fn parse_parent(line: &str) -> Option<&str> {
    let (_, after_name) = line.rsplit_once(") ")?;
    after_name.split_ascii_whitespace().nth(1)
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
        assert_eq!(parse_parent(line), Some("1"));
        assert_eq!(parse_parent(""), None);
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
        let processes = vec![PathBuf::new()];
        ProcessMeter { processes, with_descendants: false, memory_before: 4_000, first, last }
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
            memory_per_connection: 100.0,
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
        let mut meter = ProcessMeter::new(std::process::id()).unwrap();
        meter.sample(&progress(0)).unwrap();
        meter.sample(&progress(1)).unwrap();
        let figures = meter.figures().unwrap();
        assert!(figures.memory > 0, "{figures}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn threads_may_end_meanwhile() {
        let mut meter = ProcessMeter::new(std::process::id()).unwrap();
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

    #[cfg(target_os = "linux")]
    #[test]
    fn what_descendants_spend_counts() {
        // Its child spends time until it is told to end, by the end of its input.
        let mut shell = std::process::Command::new("bash")
            .args(["-c", "bash -c 'while ! read -t 0; do :; done'; true"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut alone = ProcessMeter::new(shell.id()).unwrap();
        let mut all = ProcessMeter::with_descendants(shell.id()).unwrap();
        let spent = |meter: &mut ProcessMeter| meter.usage().unwrap().cpu_nanoseconds;
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while spent(&mut all) < spent(&mut alone) + 50_000_000 {
            assert!(std::time::Instant::now() < deadline, "the child's time does not count");
            // sleep: another process's time can only be polled.
            thread::sleep(Duration::from_millis(10));
        }
        drop(shell.stdin.take());
        shell.wait().unwrap();
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        assert_eq!(ProcessMeter::new(u32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
