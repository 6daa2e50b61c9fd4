//! Numbers as people read them, and what must not be read.

use std::path::Path;
use std::time::Duration;

/// Three digits, and a letter for the power of a thousand: `1.23 k`, `45.6 M`.
pub(super) fn short(value: f64) -> String {
    let mut value = value;
    let mut unit = "";
    for larger in [" k", " M", " G"] {
        if value.abs() < 999.5 {
            break;
        }
        (value, unit) = (value / 1000.0, larger);
    }
    format!("{}{unit}", three_digits(value))
}

/// Three digits, but all of those before the point.
pub(super) fn three_digits(value: f64) -> String {
    let decimals = match value.abs() {
        ..0.000_5 | 99.95.. => 0,
        ..9.995 => 2,
        _ => 1,
    };
    format!("{value:.decimals$}")
}

/// Nanoseconds with the unit that suits them.
pub(super) fn time(nanoseconds: f64) -> String {
    let (value, unit) = match nanoseconds {
        ..999.5 => (nanoseconds, "ns"),
        ..999.5e3 => (nanoseconds / 1e3, "µs"),
        ..999.5e6 => (nanoseconds / 1e6, "ms"),
        _ => (nanoseconds / 1e9, "s"),
    };
    format!("{} {unit}", three_digits(value))
}

/// A number without the zeros at the end of its decimals.
pub(super) fn without_zeros(text: &str) -> String {
    let (number, unit) = text.split_once(' ').unwrap_or((text, ""));
    let number = match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    };
    format!("{number} {unit}").trim_end().to_owned()
}

/// A time that people wait.
#[must_use]
pub fn waiting_time(time: Duration) -> String {
    match (time.as_secs() / 60, time.as_secs() % 60) {
        (0, seconds) => format!("{seconds} s"),
        (minutes @ ..10, seconds) => format!("{minutes} min {seconds} s"),
        (minutes, _) => format!("{minutes} min"),
    }
}

/// The words of a command in a line. Of absolute paths only the last part stays: where things are
/// on one machine is nobody else's business.
#[must_use]
pub fn command_line(words: impl IntoIterator<Item = String>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| without_folders(&word)).collect();
    words.join(" ")
}

fn without_folders(word: &str) -> String {
    let parts = word.split(' ').map(|part| {
        let (before, path) = part.split_once('=').map_or(("", part), |(name, path)| (name, path));
        let equals = if before.is_empty() { "" } else { "=" };
        match Path::new(path).file_name() {
            Some(last) if path.starts_with('/') => {
                format!("{before}{equals}{}", last.to_string_lossy())
            }
            _ => part.to_owned(),
        }
    });
    let text = parts.collect::<Vec<_>>().join(" ");
    if text.contains(' ') { format!("'{text}'") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_told_in_minutes_and_seconds() {
        let cases = [(59, "59 s"), (125, "2 min 5 s"), (3_725, "62 min")];
        for (seconds, text) in cases {
            assert_eq!(waiting_time(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn a_command_line_has_no_folders_of_this_machine() {
        let words = ["bench", "--output=/var/tmp/x", "mine=/opt/my/server -p {port}", "a/b", "/"];
        assert_eq!(
            command_line(words.map(str::to_owned)),
            "bench --output=x 'mine=server -p {port}' a/b /"
        );
    }

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0.0, "0"),
            (0.25, "0.25"),
            (9.999, "10.0"),
            (123.4, "123"),
            (999.7, "1.00 k"),
            (4_567_890.0, "4.57 M"),
        ];
        for (value, text) in cases {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn times_have_a_unit() {
        let cases =
            [(999.0, "999 ns"), (12_340.0, "12.3 µs"), (1.234e6, "1.23 ms"), (2.5e9, "2.50 s")];
        for (value, text) in cases {
            assert_eq!(time(value), text);
        }
    }

    #[test]
    fn zeros_go_only_behind_the_point() {
        let cases = [("10.0 µs", "10 µs"), ("1.50 k", "1.5 k"), ("100", "100"), ("0", "0")];
        for (text, trimmed) in cases {
            assert_eq!(without_zeros(text), trimmed);
        }
    }
}
