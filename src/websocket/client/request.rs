//! What a client asks for.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use crate::http::{FieldError, FieldLines, is_token};
use crate::websocket::deflate::EXTENSIONS;
use crate::websocket::handshake::{KEY_BYTES, VERSION};
use crate::{Connect, Output};

/// Which WebSocket a client wants.
///
/// ```
/// use millstream::websocket::WebSocketRequest;
///
/// let request = WebSocketRequest::new("wss://example.com/chat?room=1")?
///     .subprotocols(["chat.v2", "chat.v1"])?
///     .field("Authorization", "Bearer sesame")?;
/// assert!(request.is_secure());
/// # let bad = WebSocketRequest::new("http://example.com/");
/// # assert!(bad.is_err());
/// # Ok::<(), millstream::websocket::WebSocketRequestError>(())
/// ```
#[derive(Clone, Debug)]
pub struct WebSocketRequest {
    is_secure: bool,
    /// The host, and the port if the URL has it.
    authority: String,
    /// Without brackets.
    host: String,
    port: u16,
    target: String,
    fields: FieldLines,
    protocols: Arc<[String]>,
}

/// Why there can't be such a request.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WebSocketRequestError {
    /// The URL is not one of a WebSocket, for example `ws://example.com:8080/chat`.
    #[error("{url:?} is not the URL of a WebSocket")]
    Url {
        /// The URL.
        url: String,
    },
    /// The name of a subprotocol is not a token, or is there twice.
    #[error("{name:?} can't be asked for as a subprotocol")]
    Subprotocol {
        /// The name.
        name: String,
    },
    /// A field can't be sent.
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// Fields that the handshake writes itself.
const OF_THE_HANDSHAKE: [&str; 5] = [
    "host",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
];

impl WebSocketRequest {
    /// A request for a URL (RFC 6455, section 3): `ws://` or `wss://`, a host, maybe a port, a path
    /// and a query, without a user and without a fragment.
    ///
    /// # Errors
    /// It is another one.
    pub fn new(url: &str) -> Result<Self, WebSocketRequestError> {
        parse(url).ok_or_else(|| WebSocketRequestError::Url { url: url.to_owned() })
    }

    /// Which protocols the client speaks, the one it likes best first. By default none is asked
    /// for. [`Socket::subprotocol`](crate::websocket::Socket::subprotocol) tells which one the
    /// server has chosen.
    ///
    /// # Errors
    /// A name is not a token, or is there twice.
    pub fn subprotocols(
        mut self,
        names: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Self, WebSocketRequestError> {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        for (at, name) in names.iter().enumerate() {
            let is_name = !name.is_empty() && name.bytes().all(is_token);
            if !is_name || names[..at].contains(name) {
                return Err(WebSocketRequestError::Subprotocol { name: name.clone() });
            }
        }
        self.protocols = names.into();
        Ok(self)
    }

    /// Adds a field, such as Origin, Cookie or Authorization.
    ///
    /// # Errors
    /// It can't be sent, or the handshake writes it itself: see [`FieldLines::push`]; and Host and
    /// those that begin with `Sec-WebSocket-`.
    pub fn field(
        mut self,
        name: &str,
        value: impl AsRef<[u8]>,
    ) -> Result<Self, WebSocketRequestError> {
        if OF_THE_HANDSHAKE.iter().any(|other| other.eq_ignore_ascii_case(name)) {
            return Err(FieldError::Reserved { name: name.to_owned() }.into());
        }
        self.fields.push(name, value)?;
        Ok(self)
    }

    /// Whether the URL asks for TLS.
    pub fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// Where the URL leads, without TLS: where it [asks](Self::is_secure) for that, give the result
    /// to `Connect::tls`.
    pub fn destination(&self) -> Connect {
        Connect::to_host(&self.host, self.port)
    }

    /// The protocols that are asked for.
    pub(super) fn protocols(&self) -> &Arc<[String]> {
        &self.protocols
    }

    /// Writes the request (RFC 6455, section 4.1).
    pub(super) fn write(&self, key: &str, extensions: Option<&str>, output: &mut Output<'_>) {
        let protocols = self.protocols.join(", ");
        let optional = |name: &str, value: Option<&str>| match value {
            Some(value) if !value.is_empty() => format!("{name}: {value}\r\n"),
            _ => String::new(),
        };
        output.write_parts([
            b"GET ",
            self.target.as_bytes(),
            b" HTTP/1.1\r\nHost: ",
            self.authority.as_bytes(),
            b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: ",
            VERSION.as_bytes(),
            b"\r\nSec-WebSocket-Key: ",
            key.as_bytes(),
            b"\r\n",
            optional("Sec-WebSocket-Protocol", Some(&protocols)).as_bytes(),
            optional(EXTENSIONS, extensions).as_bytes(),
            self.fields.as_bytes(),
            b"\r\n",
        ]);
    }
}

/// A key that no one can foretell.
pub(super) fn draw_key() -> std::io::Result<String> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key)?;
    Ok(STANDARD.encode(key))
}

fn parse(url: &str) -> Option<WebSocketRequest> {
    let (scheme, rest) = url.split_once("://")?;
    let (is_secure, standard) = match scheme {
        _ if scheme.eq_ignore_ascii_case("ws") => (false, 80),
        _ if scheme.eq_ignore_ascii_case("wss") => (true, 443),
        _ => return None,
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let is_in_target = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    if !path.bytes().all(is_in_target) {
        return None;
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port = match port.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
        None if port.is_empty() => standard,
        _ => return None,
    };
    let is_in_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:%".contains(&byte);
    if host.is_empty() || !host.bytes().all(is_in_host) {
        return None;
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    Some(WebSocketRequest {
        is_secure,
        authority: authority.to_owned(),
        host: host.to_owned(),
        port,
        target: format!("{slash}{path}"),
        fields: FieldLines::new(),
        protocols: Arc::from([]),
    })
}
