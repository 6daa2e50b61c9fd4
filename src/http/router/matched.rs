//! What a router found for a path.

use std::borrow::Cow;

use matchit::Params;
use percent_encoding::percent_decode_str;

use super::Route;
use crate::http::server::Failure;
use crate::http::status::StatusCode;

/// The route that a path came to, with its parameters as they came.
pub(in crate::http) struct Matched<'e> {
    route: &'e Route,
    params: Params<'e, 'e>,
}

impl<'e> Matched<'e> {
    pub(super) fn new(route: &'e Route, params: Params<'e, 'e>) -> Self {
        Matched { route, params }
    }

    /// Fails with 400 if a parameter can't be decoded.
    #[inline]
    pub(super) fn check(&self) -> Result<(), Failure> {
        match self.params.iter().all(|(_, value)| decode(value).is_some()) {
            true => Ok(()),
            false => Err(StatusCode::BAD_REQUEST.into()),
        }
    }

    pub(in crate::http) fn param(&self, name: &str) -> Option<Cow<'e, str>> {
        self.params.get(name).and_then(decode)
    }

    pub(in crate::http) fn raw_param(&self, name: &str) -> Option<&'e str> {
        self.params.get(name)
    }

    /// The names and values of all parameters, decoded.
    #[cfg(feature = "http-json")]
    pub(in crate::http) fn params(&self) -> impl Iterator<Item = (&'e str, Cow<'e, str>)> {
        self.params.iter().map(|(name, value)| (name, decode(value).unwrap_or_default()))
    }

    pub(in crate::http) fn pattern(&self) -> &'e str {
        &self.route.pattern
    }

    pub(in crate::http) fn allowed(&self) -> &'e str {
        &self.route.allowed
    }
}

/// Decodes percent signs; `None` unless two digits follow each and all of it is UTF-8.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    let mut rest = text;
    while let Some((_, behind)) = rest.split_once('%') {
        let [high, low, ..] = behind.as_bytes() else { return None };
        if !high.is_ascii_hexdigit() || !low.is_ascii_hexdigit() {
            return None;
        }
        rest = behind;
    }
    percent_decode_str(text).decode_utf8().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_encoded_is_decoded_and_once() {
        for (text, decoded) in [
            ("", Some("")),
            ("a-b", Some("a-b")),
            ("%41%2f%2F", Some("A//")),
            ("%2541", Some("%41")),
            ("a+b", Some("a+b")),
            ("%e2%82%ac", Some("\u{20ac}")),
            ("%", None),
            ("%4", None),
            ("%4g", None),
            ("%%41", None),
            ("%ff", None),
            ("%e2%82", None),
            ("%c0%af", None),
        ] {
            assert_eq!(decode(text).as_deref(), decoded, "{text}");
        }
        assert!(matches!(decode("plain"), Some(Cow::Borrowed(_))), "it needs no memory");
    }
}
