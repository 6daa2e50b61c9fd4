//! One line that says how far a run is.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often a line is written to anything but a terminal.
const LOG_INTERVAL: Duration = Duration::from_secs(2);

/// A progress line on stderr: rewritten in place on a terminal, else a plain line now and then.
#[derive(Debug)]
pub struct ProgressLine {
    terminal: bool,
    next: Instant,
}

impl ProgressLine {
    /// A line that shows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), next: Instant::now() }
    }

    /// Takes the line away, for whatever is written next.
    pub fn clear(&mut self) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }

    /// Shows `text`. What cannot be written is dropped: progress is a courtesy.
    pub fn show(&mut self, text: &str) {
        let mut stderr = std::io::stderr();
        if self.terminal {
            // Carriage return, and "erase to the end of the line" after the text.
            let _ = write!(stderr, "\r{text}\x1b[K").and_then(|()| stderr.flush());
        } else if Instant::now() >= self.next {
            self.next = Instant::now() + LOG_INTERVAL;
            let _ = writeln!(stderr, "{text}");
        }
    }
}

impl Default for ProgressLine {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.clear();
    }
}
