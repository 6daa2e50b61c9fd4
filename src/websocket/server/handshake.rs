//! The server's half of the handshake (RFC 6455, section 4.2).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::http::{RequestHead, StatusCode};
use crate::websocket::handshake::{KEY_BYTES, VERSION};

/// Whether the client speaks the version that there is.
pub(super) fn has_version(head: &RequestHead<'_>) -> bool {
    only(head, "Sec-WebSocket-Version") == Some(VERSION.as_bytes())
}

/// The client's key.
///
/// # Errors
/// The request is not a handshake.
pub(super) fn key_of<'a>(head: &RequestHead<'a>) -> Result<&'a [u8], StatusCode> {
    let key = only(head, "Sec-WebSocket-Key").filter(|key| {
        let mut decoded = [0; KEY_BYTES + 2];
        STANDARD.decode_slice(key, &mut decoded) == Ok(KEY_BYTES)
    });
    match key {
        Some(key) if head.method() == "GET" => Ok(key),
        _ => Err(StatusCode::BAD_REQUEST),
    }
}

/// Which of these protocols the client would like best, by its place.
pub(super) fn choose(head: &RequestHead<'_>, protocols: &[String]) -> Option<usize> {
    let lists = head.fields().get_all("Sec-WebSocket-Protocol");
    let mut wanted =
        lists.flat_map(|list| list.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    wanted.find_map(|name| protocols.iter().position(|other| other.as_bytes() == name))
}

/// Whether a page of the same host asks, or a client that is not a browser (section 10.2).
pub(super) fn is_same_origin(head: &RequestHead<'_>) -> bool {
    let mut origins = head.fields().get_all("Origin");
    let Some(origin) = origins.next() else { return true };
    let origin = str::from_utf8(origin).ok().and_then(|origin| origin.split_once("://"));
    let is_own = |host: &str| origin.is_some_and(|(_, own)| own.eq_ignore_ascii_case(host));
    origins.next().is_none() && head.host().is_some_and(is_own)
}

/// The value of a field that is there once.
fn only<'a>(head: &RequestHead<'a>, name: &str) -> Option<&'a [u8]> {
    let mut values = head.fields().get_all(name);
    let value = values.next()?;
    values.next().is_none().then_some(value)
}
