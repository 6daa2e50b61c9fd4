//! Numbers as RESP writes them.

use super::CRLF;

/// The most characters that a number has: a sign and 19 digits.
const MOST_DIGITS: usize = 20;

/// Reads a decimal integer the way Redis does: an optional minus sign and digits, without a leading
/// zero, a plus sign or space. `None`: it is something else, or doesn't fit.
///
/// ```
/// use millstream::codec::resp::parse_integer;
///
/// assert_eq!(parse_integer(b"-12"), Some(-12));
/// assert_eq!(parse_integer(b"012"), None);
/// assert_eq!(parse_integer(b"9223372036854775808"), None);
/// ```
#[inline]
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if text.len() <= MOST_DIGITS => {}
        _ => return None,
    }
    let mut number = 0_u64;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(digit.into())?;
    }
    if negative { 0_i64.checked_sub_unsigned(number) } else { number.try_into().ok() }
}

/// The length and the size of the head `$LENGTH CRLF`, if it has the short form of most of them,
/// one or two digits, and something is behind it.
#[inline(always)]
pub(super) fn short_head(bytes: &[u8], kind: u8) -> Option<(usize, usize)> {
    let &[first, a, b, c, d] = bytes.first_chunk()?;
    let (tens, ones) = (a.wrapping_sub(b'0'), b.wrapping_sub(b'0'));
    if first != kind || tens > 9 {
        None
    } else if [b, c] == *b"\r\n" {
        Some((tens.into(), 4))
    } else if tens > 0 && ones <= 9 && [c, d] == *b"\r\n" {
        Some((usize::from(tens) * 10 + usize::from(ones), 5))
    } else {
        None
    }
}

/// The text of a line that begins in front of `bytes`, up to its CRLF. `searched` bytes of it are
/// known to have no end; if it has none, that is noted there. A CR that no LF follows is part of
/// the text.
#[inline]
pub(super) fn line<'a>(bytes: &'a [u8], searched: &mut usize) -> Option<&'a [u8]> {
    let from = (*searched).min(bytes.len());
    match memchr::memmem::find(&bytes[from..], CRLF) {
        Some(at) => {
            *searched = 0;
            Some(&bytes[..from + at])
        }
        None => {
            // The last byte may be half of the ending.
            *searched = bytes.len().saturating_sub(1);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers() {
        for number in [0, 1, -1, 10, -99, i64::MAX, i64::MIN, i64::MAX - 1, i64::MIN + 1] {
            assert_eq!(parse_integer(number.to_string().as_bytes()), Some(number));
        }
        let bad = "|-|-0|00|01|+1| 1|1 |1a|--1|9223372036854775808|-9223372036854775809|\
                   18446744073709551616|99999999999999999999|100000000000000000000";
        for text in bad.split('|') {
            assert_eq!(parse_integer(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn a_line_is_searched_once() {
        let mut searched = 0;
        assert_eq!(line(b"abc\r", &mut searched), None);
        assert_eq!(searched, 3);
        assert_eq!(line(b"abc\r\n", &mut searched), Some(&b"abc"[..]));
        assert_eq!(searched, 0);
    }

    #[test]
    fn short_heads_are_those_of_the_long_form() {
        assert_eq!(short_head(b"$7\r\n.", b'$'), Some((7, 4)));
        assert_eq!(short_head(b"*42\r\n", b'*'), Some((42, 5)));
        for other in [&b"$07\r\n"[..], b"$-1\r\n", b"$7\r", b"$7\r\n", b"$123\r\n", b"*7\r\n."] {
            assert_eq!(short_head(other, b'$'), None);
        }
    }
}
