//! What a process spends per message, as the kernel accounts for it (Linux only).
//!
//! Time comes from `/proc/PID/task/*/schedstat`: nanoseconds on a CPU of each live thread, to be
//! summed (`/proc/PID/schedstat` has only the first thread's). A running thread's figure may be one
//! scheduler tick old, so samples should be seconds apart. How it divides into user and system time
//! comes from `/proc/PID/stat`, which the kernel estimates by sampling: good for a percentage.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::load::Progress;

/// Follows the CPU time of a process through the measured part of a load.
#[derive(Debug)]
pub struct CpuMeter {
    process: PathBuf,
    first: Option<Sample>,
    last: Option<Sample>,
}

/// What a message cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CpuPerMessage {
    /// CPU time in nanoseconds.
    pub nanoseconds: f64,
    /// How much of it was spent in user mode, from 0 to 1.
    pub user_share: f64,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    messages: u64,
    cpu: CpuTime,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct CpuTime {
    nanoseconds: u64,
    user_ticks: u64,
    system_ticks: u64,
}

impl CpuMeter {
    /// A meter for the process `id`.
    #[must_use]
    pub fn new(id: u32) -> Self {
        Self { process: format!("/proc/{id}").into(), first: None, last: None }
    }

    /// Takes a sample, if the load is measuring by now. To be called with each progress: the first
    /// and the last sample count.
    ///
    /// # Errors
    ///
    /// If the process's files in `/proc` cannot be read: it ended, or this is not Linux.
    pub fn sample(&mut self, progress: &Progress) -> io::Result<()> {
        if progress.measuring {
            let sample = Sample { messages: progress.messages, cpu: self.cpu_time()? };
            self.first.get_or_insert(sample);
            self.last = Some(sample);
        }
        Ok(())
    }

    /// What a message cost between the first and the last sample; nothing if there was none between.
    #[must_use]
    pub fn per_message(&self) -> Option<CpuPerMessage> {
        per_message(self.first?, self.last?)
    }

    fn cpu_time(&self) -> io::Result<CpuTime> {
        let (user_ticks, system_ticks) =
            parse_stat(&fs::read_to_string(self.process.join("stat"))?).ok_or_else(malformed)?;
        Ok(CpuTime { nanoseconds: self.nanoseconds()?, user_ticks, system_ticks })
    }

    fn nanoseconds(&self) -> io::Result<u64> {
        let mut sum = 0;
        for thread in fs::read_dir(self.process.join("task"))? {
            match fs::read_to_string(thread?.path().join("schedstat")) {
                Ok(line) => sum += parse_schedstat(&line).ok_or_else(malformed)?,
                // The thread ended since the folder was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sum)
    }
}

fn per_message(first: Sample, last: Sample) -> Option<CpuPerMessage> {
    let messages = last.messages.checked_sub(first.messages).filter(|messages| *messages > 0)?;
    let nanoseconds = last.cpu.nanoseconds.saturating_sub(first.cpu.nanoseconds);
    let user = last.cpu.user_ticks.saturating_sub(first.cpu.user_ticks);
    let system = last.cpu.system_ticks.saturating_sub(first.cpu.system_ticks);
    Some(CpuPerMessage {
        nanoseconds: nanoseconds as f64 / messages as f64,
        user_share: user as f64 / (user + system).max(1) as f64,
    })
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

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "unexpected format of a file in /proc")
}

#[cfg(test)]
mod tests {
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
    fn a_message_costs_the_difference() {
        let sample = |messages, nanoseconds, user_ticks, system_ticks| Sample {
            messages,
            cpu: CpuTime { nanoseconds, user_ticks, system_ticks },
        };
        let first = sample(1_000, 50_000, 2, 3);
        let cost = per_message(first, sample(1_200, 1_050_000, 3, 6));
        assert_eq!(cost, Some(CpuPerMessage { nanoseconds: 5_000.0, user_share: 0.25 }));
        assert_eq!(per_message(first, first), None);
    }
}
