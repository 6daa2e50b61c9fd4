//! The field Sec-WebSocket-Extensions: what is offered and what is agreed on (RFC 6455, section
//! 9.1; RFC 7692, sections 5 and 7.1).

use super::{LEAST_BITS, MOST_BITS};
use crate::http::is_token;

pub(super) const FIELD: &str = "Sec-WebSocket-Extensions";
pub(super) const NAME: &str = "permessage-deflate";

/// The least window that the RFC has.
const LEAST_OFFERED: u8 = LEAST_BITS - 1;

/// The field's value is not a list of extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::websocket) struct Malformed;

/// An element of the list: an extension with its parameters.
#[derive(Clone, Debug)]
pub(super) struct Extension<'a> {
    pub(super) name: &'a str,
    parameters: Vec<(&'a str, Option<&'a str>)>,
}

/// The parameters of permessage-deflate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters {
    pub(super) server_no_context: bool,
    pub(super) client_no_context: bool,
    pub(super) server_bits: Option<u8>,
    /// Without a value it says that the client can have its window chosen.
    pub(super) client_bits: Option<Option<u8>>,
}

/// The most extensions, and the most parameters of one, that are looked at.
const MOST: usize = 32;

/// Reads all of a message's lists.
pub(super) fn read<'a>(
    values: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<Extension<'a>>, Malformed> {
    let mut extensions = Vec::new();
    for value in values {
        let mut rest = str::from_utf8(value).map_err(|_| Malformed)?;
        loop {
            rest = skip_space(rest);
            if rest.is_empty() {
                break; // Lists may have empty elements (RFC 9110, section 5.6.1.2).
            }
            if let Some(behind) = rest.strip_prefix(',') {
                rest = behind;
                continue;
            }
            if extensions.len() == MOST {
                return Err(Malformed);
            }
            extensions.push(extension(&mut rest)?);
            if !rest.is_empty() && !rest.starts_with(',') {
                return Err(Malformed);
            }
        }
    }
    Ok(extensions)
}

fn extension<'a>(rest: &mut &'a str) -> Result<Extension<'a>, Malformed> {
    let mut extension = Extension { name: token(rest)?, parameters: Vec::new() };
    while take_sign(rest, ';') {
        *rest = skip_space(rest);
        let name = token(rest)?;
        let value = match take_sign(rest, '=') {
            true => Some(value(rest)?),
            false => None,
        };
        if extension.parameters.len() == MOST {
            return Err(Malformed);
        }
        extension.parameters.push((name, value));
    }
    Ok(extension)
}

/// A token, or a token in quotes.
fn value<'a>(rest: &mut &'a str) -> Result<&'a str, Malformed> {
    *rest = skip_space(rest);
    let Some(quoted) = rest.strip_prefix('"') else { return token(rest) };
    *rest = quoted;
    let value = token(rest)?;
    *rest = rest.strip_prefix('"').ok_or(Malformed)?;
    Ok(value)
}

fn token<'a>(rest: &mut &'a str) -> Result<&'a str, Malformed> {
    let end = rest.bytes().position(|byte| !is_token(byte)).unwrap_or(rest.len());
    let (token, behind) = rest.split_at(end);
    *rest = behind;
    if token.is_empty() { Err(Malformed) } else { Ok(token) }
}

fn take_sign(rest: &mut &str, sign: char) -> bool {
    *rest = skip_space(rest);
    match rest.strip_prefix(sign) {
        Some(behind) => *rest = behind,
        None => return false,
    }
    true
}

fn skip_space(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

impl Extension<'_> {
    /// Its parameters, if it is permessage-deflate, has each of them at most once, and none that is
    /// unknown or has a value that it can't have.
    pub(super) fn parameters(&self) -> Option<Parameters> {
        if !self.name.eq_ignore_ascii_case(NAME) {
            return None;
        }
        let mut found = Parameters::default();
        for (name, value) in &self.parameters {
            let is = |known: &str| name.eq_ignore_ascii_case(known);
            match value {
                None if is("server_no_context_takeover") && !found.server_no_context => {
                    found.server_no_context = true;
                }
                None if is("client_no_context_takeover") && !found.client_no_context => {
                    found.client_no_context = true;
                }
                Some(bits) if is("server_max_window_bits") && found.server_bits.is_none() => {
                    found.server_bits = Some(window(bits)?);
                }
                None if is("client_max_window_bits") && found.client_bits.is_none() => {
                    found.client_bits = Some(None);
                }
                Some(bits) if is("client_max_window_bits") && found.client_bits.is_none() => {
                    found.client_bits = Some(Some(window(bits)?));
                }
                _ => return None,
            }
        }
        Some(found)
    }
}

/// A window's size: digits, without leading zeros.
fn window(value: &str) -> Option<u8> {
    let bits =
        value.parse().ok().filter(|_| value.starts_with(|first| matches!(first, '1'..='9')))?;
    let is_known = (LEAST_OFFERED..=MOST_BITS).contains(&bits);
    is_known.then_some(bits)
}
