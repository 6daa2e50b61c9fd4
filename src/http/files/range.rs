//! Which part of a file a request asks for (RFC 9110, section 14).

use std::ops::Range;

/// What a field Range asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it: the field is not one, or has several ranges.
    Whole,
    Part(Range<u64>),
    /// What is behind its end.
    Nothing,
}

impl Extent {
    /// What this field wants of as many bytes.
    ///
    /// Several ranges are answered with the whole, as section 14.2 leaves it to a server: so nobody
    /// makes it send the same bytes over and over, or thousands of heads for parts.
    pub(super) fn of(field: &[u8], length: u64) -> Self {
        Self::parse(field, length).unwrap_or(Extent::Whole)
    }

    fn parse(field: &[u8], length: u64) -> Option<Self> {
        let (unit, set) = std::str::from_utf8(field).ok()?.split_once('=')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (first, last) = set.trim_matches([' ', '\t']).split_once('-')?;
        if first.is_empty() {
            let suffix = number(last)?;
            return match suffix {
                0 => Some(Extent::Nothing),
                // There is no Content-Range of nothing.
                _ if length == 0 => Some(Extent::Whole),
                _ => Some(Extent::Part(length.saturating_sub(suffix)..length)),
            };
        }
        let first = number(first)?;
        let end = if last.is_empty() { length } else { number(last)?.saturating_add(1) };
        if !last.is_empty() && end <= first {
            return None;
        }
        match first < length {
            true => Some(Extent::Part(first..end.min(length))),
            false => Some(Extent::Nothing),
        }
    }
}

/// A number of digits, however many; those beyond all lengths are one of them.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_a_part_or_nothing_or_ignored() {
        let part = |from, to| Extent::Part(from..to);
        for (field, wanted) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=0-9", part(0, 10)),
            ("bytes=0-", part(0, 10)),
            ("Bytes=3-4", part(3, 5)),
            ("bytes= 3-4 ", part(3, 5)),
            ("bytes=9-", part(9, 10)),
            ("bytes=5-99999999999999999999999999", part(5, 10)),
            ("bytes=5-18446744073709551615", part(5, 10)),
            ("bytes=-3", part(7, 10)),
            ("bytes=-10", part(0, 10)),
            ("bytes=-99999999999999999999999999", part(0, 10)),
            ("bytes=10-", Extent::Nothing),
            ("bytes=10-10", Extent::Nothing),
            ("bytes=99999999999999999999999999-", Extent::Nothing),
            ("bytes=-0", Extent::Nothing),
            ("bytes=5-4", Extent::Whole),
            ("bytes=0-1,3-4", Extent::Whole),
            ("bytes=0-1,", Extent::Whole),
            ("bytes=", Extent::Whole),
            ("bytes=-", Extent::Whole),
            ("bytes=+1-2", Extent::Whole),
            ("bytes=1 -2", Extent::Whole),
            ("bytes=a-b", Extent::Whole),
            ("bytes 0-1", Extent::Whole),
            ("bytes =0-1", Extent::Whole),
            ("items=0-1", Extent::Whole),
            ("", Extent::Whole),
            ("\u{e9}=0-1", Extent::Whole),
        ] {
            assert_eq!(Extent::of(field.as_bytes(), 10), wanted, "{field}");
        }
        for (field, wanted) in [
            ("bytes=0-", Extent::Nothing),
            ("bytes=-1", Extent::Whole),
            ("bytes=-0", Extent::Nothing),
        ] {
            assert_eq!(Extent::of(field.as_bytes(), 0), wanted, "{field}, of nothing");
        }
        assert_eq!(Extent::of(b"bytes=1-2\xff", 10), Extent::Whole);
        let last = u64::MAX - 1;
        assert_eq!(Extent::of(format!("bytes={last}-").as_bytes(), u64::MAX), part(last, u64::MAX));
    }
}
