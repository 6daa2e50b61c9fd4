//! Which codings a client accepts (RFC 9110, section 12.5.3).

use super::encoder::Coding;
use crate::http::fields::Fields;

/// What the fields Accept-Encoding of a request say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    /// What the client prefers to none.
    pub(super) coding: Coding,
    /// It does not take a content without a coding.
    pub(super) is_needed: bool,
}

impl Accepted {
    /// `None` if the client does not prefer a coding.
    pub(super) fn of(fields: Fields<'_>) -> Option<Self> {
        let weights = Weights::of(fields);
        let weight = |coding: Coding| weights.of_coding(coding);
        let coding = match weight(Coding::Deflate) > weight(Coding::Gzip) {
            true => Coding::Deflate,
            false => Coding::Gzip,
        };
        let is_preferred = weight(coding) > 0 && Some(weight(coding)) >= weights.identity;
        let is_needed = weights.identity.or(weights.others) == Some(0);
        is_preferred.then_some(Accepted { coding, is_needed })
    }
}

/// In thousandths, as far as they are said.
#[derive(Default)]
struct Weights {
    gzip: Option<u16>,
    deflate: Option<u16>,
    identity: Option<u16>,
    others: Option<u16>,
}

impl Weights {
    fn of(fields: Fields<'_>) -> Self {
        let mut weights = Weights::default();
        let values = fields.get_all("Accept-Encoding");
        for element in values.flat_map(|value| value.split(|byte| *byte == b',')) {
            let Some((name, weight)) = weighted(element) else { continue };
            let place = match name.to_ascii_lowercase().as_slice() {
                b"gzip" | b"x-gzip" => &mut weights.gzip,
                b"deflate" => &mut weights.deflate,
                b"identity" => &mut weights.identity,
                b"*" => &mut weights.others,
                _ => continue,
            };
            place.get_or_insert(weight);
        }
        weights
    }

    fn of_coding(&self, coding: Coding) -> u16 {
        let said = match coding {
            Coding::Gzip => self.gzip,
            Coding::Deflate => self.deflate,
        };
        said.or(self.others).unwrap_or(0)
    }
}

/// An element of the list; `None` if it is not one.
fn weighted(element: &[u8]) -> Option<(&[u8], u16)> {
    let mut parts = element.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let name = parts.next()?;
    let weight = match parts.next() {
        None => 1000,
        Some(parameter) => {
            let value = parameter.strip_prefix(b"q=").or_else(|| parameter.strip_prefix(b"Q="))?;
            thousandths(value)?
        }
    };
    Some((name, weight))
}

/// A weight (RFC 9110, section 12.4.2).
fn thousandths(value: &[u8]) -> Option<u16> {
    let (whole, digits) = match value {
        [whole] => (whole, &[][..]),
        [whole, b'.', digits @ ..] => (whole, digits),
        _ => return None,
    };
    if digits.len() > 3 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |at: usize| digits.get(at).map_or(0, |digit| u16::from(digit - b'0'));
    let part = digit(0) * 100 + digit(1) * 10 + digit(2);
    match whole {
        b'0' => Some(part),
        b'1' if part == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_gets_what_it_prefers() {
        let (gzip, deflate) = (Some((Coding::Gzip, false)), Some((Coding::Deflate, false)));
        for (value, accepted) in [
            ("", None),
            ("gzip", gzip),
            ("GZip", gzip),
            ("x-gzip", gzip),
            ("deflate", deflate),
            ("gzip, deflate, br", gzip),
            ("deflate, gzip", gzip),
            ("br;q=1.0, gzip;q=0.8, *;q=0.1", gzip),
            ("gzip;q=0.5, deflate;q=0.501", deflate),
            ("gzip;q=0", None),
            ("gzip;q=0.000", None),
            ("gzip;q=0, *", deflate),
            ("gzip;q=0.001", gzip),
            ("*", gzip),
            ("*;q=0", None),
            ("br", None),
            ("identity", None),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.5", gzip),
            ("identity;q=0", None),
            ("gzip, identity;q=0", Some((Coding::Gzip, true))),
            ("gzip, *;q=0", Some((Coding::Gzip, true))),
            ("gzip, *;q=0, identity", gzip),
            ("gzip ; q=0.2", gzip),
            ("gzip;q=2", None),
            ("gzip;q=1.001", None),
            ("gzip;q=0.1234", None),
            ("gzip;q=", None),
            ("gzip;q=-1", None),
            ("gzip;level=9", None),
            ("gzip;q=0, gzip", None),
            (",,gzip,,", gzip),
        ] {
            let line = format!("Accept-Encoding: {value}\r\n");
            let got = Accepted::of(Fields::from_valid(line.as_bytes()));
            let got = got.map(|accepted| (accepted.coding, accepted.is_needed));
            assert_eq!(got, accepted, "{value}");
        }
        assert_eq!(Accepted::of(Fields::from_valid(b"")), None, "it says nothing");
        let lines = Fields::from_valid(b"Accept-Encoding: br\r\naccept-encoding: gzip\r\n");
        assert!(Accepted::of(lines).is_some());
    }
}
