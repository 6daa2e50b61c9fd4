//! What decides whose a connection is.

use std::fmt;

use crate::base::ListenerId;
use crate::handler::{Conn, EventHandler, Pending};
#[cfg(any(feature = "tls", feature = "tls-ring"))]
use crate::tls::Tls;

/// What is known of a connection of which it is to be decided whose it is: see
/// [`Either`](crate::Either).
#[derive(Clone, Copy)]
pub struct Opening<'a> {
    listener: Option<ListenerId>,
    bytes: &'a [u8],
    #[cfg_attr(not(any(feature = "tls", feature = "tls-ring")), expect(dead_code))]
    pending: Option<&'a Pending>,
}

impl<'a> Opening<'a> {
    pub(super) fn of_conn<H: EventHandler>(conn: &'a Conn<'_, H>) -> Self {
        let (listener, bytes) = (conn.listener(), conn.input.peek());
        Opening { listener, bytes, pending: Some(&*conn.output.pending) }
    }

    pub(super) fn of_socket(listener: Option<ListenerId>) -> Self {
        Opening { listener, bytes: &[], pending: None }
    }

    /// The listener that it came in on; its [`index`](ListenerId::index) counts them in the order
    /// in which they were opened.
    pub fn listener(&self) -> Option<ListenerId> {
        self.listener
    }

    /// The first bytes that were received; none when it has just opened.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether the first bytes are one of these; `None` if it takes more of them to know.
    ///
    /// ```
    /// # use millstream::Opening;
    /// fn is_http_2(opening: &Opening<'_>) -> Option<bool> {
    ///     opening.begins_with(&[b"PRI * HTTP/2.0\r\n"])
    /// }
    /// ```
    pub fn begins_with(&self, beginnings: &[&[u8]]) -> Option<bool> {
        if beginnings.iter().any(|beginning| self.bytes.starts_with(beginning)) {
            return Some(true);
        }
        let may_come = beginnings.iter().any(|beginning| beginning.starts_with(self.bytes));
        if may_come { None } else { Some(false) }
    }

    /// What is known of its TLS, if it has that: for example which protocol was agreed on.
    ///
    /// ```
    /// # use millstream::Opening;
    /// fn is_chat(opening: &Opening<'_>) -> Option<bool> {
    ///     Some(opening.tls()?.alpn() == Some(b"chat"))
    /// }
    /// ```
    #[cfg(any(feature = "tls", feature = "tls-ring"))]
    pub fn tls(&self) -> Option<Tls<'a>> {
        self.pending.and_then(Tls::of)
    }
}

impl fmt::Debug for Opening<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening")
            .field("listener", &self.listener)
            .field("bytes", &self.bytes.escape_ascii().to_string())
            .finish_non_exhaustive()
    }
}
