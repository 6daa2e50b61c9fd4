//! Floating-point numbers as Redis reads and writes them.

use millstream::codec::resp::{Protocol, Replies};

use super::Failure;

/// This many digits tell all numbers apart.
const DIGITS: usize = 17;

/// Reads a number, which may be infinite.
pub fn parse_float(text: &[u8]) -> Option<f64> {
    let number: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    // Infinity is a word, and not what is too large.
    let fits = number.is_finite() || text.iter().any(|byte| matches!(byte, b'n' | b'N'));
    (fits && !number.is_nan()).then_some(number)
}

pub fn next_float<'c>(arguments: &mut impl Iterator<Item = &'c [u8]>) -> Result<f64, Failure> {
    let text = arguments.next().ok_or(Failure::Syntax)?;
    parse_float(text).ok_or(Failure::NotAFloat)
}

/// Writes a number: a bulk string in version 2 of the protocol.
pub fn write_float(number: f64, replies: &mut Replies<'_, '_>) {
    let text = float_text(number);
    match replies.protocol() {
        Protocol::Resp2 => replies.bulk(text.as_bytes()),
        Protocol::Resp3 => replies.encoded(format!(",{text}\r\n").as_bytes()),
    }
}

/// What `%.17g` makes of a number in C.
pub fn float_text(number: f64) -> String {
    let scientific = format!("{number:.*e}", DIGITS - 1);
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse() {
        Ok(exponent @ -4..17_i32) => {
            let decimals = (DIGITS as i32 - 1 - exponent) as usize;
            shortened(&format!("{number:.decimals$}")).to_owned()
        }
        Ok(exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{}e{sign}{:02}", shortened(digits), exponent.unsigned_abs())
        }
        Err(_) => scientific,
    }
}

/// Without the zeros behind the point.
fn shortened(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_c_does() {
        for (number, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (0.1, "0.10000000000000001"),
            (1e16, "10000000000000000"),
            (1e17, "1e+17"),
            (123_456_789_012_345_680.0, "1.2345678901234568e+17"),
            (1e-4, "0.0001"),
            (1e-5, "1.0000000000000001e-05"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(float_text(number), text);
        }
    }

    #[test]
    fn numbers_are_read_as_redis_does() {
        for (text, number) in [("1", 1.0), ("-inf", f64::NEG_INFINITY), ("1e3", 1e3), (".5", 0.5)] {
            assert_eq!(parse_float(text.as_bytes()), Some(number), "{text}");
        }
        for text in ["", " 1", "1 ", "nan", "1e999", "x", "1x"] {
            assert_eq!(parse_float(text.as_bytes()), None, "{text}");
        }
    }
}
