//! Names of requests, for logs.

use std::fmt;

use super::{Middleware, Next};
use crate::http::server::{Answered, Exchange, Failure};

/// The field that carries it.
const NAME: &str = "X-Request-Id";
/// The longest that is taken from a client.
const LONGEST: usize = 64;

/// What a request is called in logs: a [value](Exchange::value) of the request behind the layer
/// [`SetRequestId`].
#[derive(Clone, Copy)]
pub struct RequestId {
    text: [u8; LONGEST],
    length: usize,
}

impl RequestId {
    /// One that no other request has.
    fn new() -> Self {
        let mut text = [0; LONGEST];
        let mut rest = fastrand::u128(..);
        for digit in text[..32].iter_mut().rev() {
            *digit = b"0123456789abcdef"[(rest & 0xf) as usize];
            rest >>= 4;
        }
        RequestId { text, length: 32 }
    }

    /// The one that came along, if it can do no harm in a log.
    fn received(value: &[u8]) -> Option<Self> {
        let is_harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
        if value.is_empty() || !value.iter().all(is_harmless) {
            return None;
        }
        let (mut text, length) = ([0; LONGEST], value.len());
        text.get_mut(..length)?.copy_from_slice(value);
        Some(RequestId { text, length })
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[..self.length]).unwrap_or_default()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RequestId").field(&self.as_str()).finish()
    }
}

/// Gives each request a [`RequestId`], and tells it the client in the field X-Request-Id.
///
/// What came in that field stays, if it is up to 64 letters, digits and `-_.:/+=`: so a proxy in
/// front gives out ids that are the same in its log. Otherwise it is 32 random hexadecimal digits.
/// [`Logging`](super::Logging) has it if it is further inside.
///
/// ```
/// use millstream::http::{RequestId, Router, SetRequestId, StatusCode};
///
/// let router = Router::new().layer(SetRequestId::new()).get("/", |exchange| {
///     let id = exchange.value::<RequestId>().map_or("", RequestId::as_str);
///     Ok(exchange.respond(StatusCode::OK).text(id))
/// });
/// # router.build()?;
/// # Ok::<(), millstream::http::RouteError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct SetRequestId(());

impl SetRequestId {
    /// The layer.
    pub const fn new() -> Self {
        SetRequestId(())
    }
}

impl Middleware for SetRequestId {
    #[inline]
    fn handle(&self, mut exchange: Exchange<'_>, next: impl Next) -> Result<Answered, Failure> {
        let received = exchange.field(NAME).and_then(RequestId::received);
        let id = received.unwrap_or_else(RequestId::new);
        exchange.outgoing().push_valid(NAME, id.as_str().as_bytes());
        exchange.with_value(&id, next)
    }
}
