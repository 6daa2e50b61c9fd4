//! Why there is no response.

use std::sync::Arc;
use std::time::Duration;

use super::error::ResponseError;
use super::url::UrlError;
use crate::ConnectError;

/// Why a request has no response.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// There is no connection to the server. Nothing was sent.
    #[error(transparent)]
    Connect(Arc<ConnectError>),
    /// The URL is `https://`, and the client was not told
    /// [how to encrypt](super::HttpClientBuilder::tls).
    #[error("the client was not given TLS")]
    NoTls,
    /// The connection ended before the response was whole. The server may have acted on the
    /// request.
    #[error("the connection was lost: {reason}")]
    Lost {
        /// Why the connection closed.
        reason: String,
    },
    /// Nothing came from the server, nor did it take anything, for the
    /// [`idle_timeout`](super::HttpClientBuilder::idle_timeout).
    #[error("nothing came for {timeout:?}")]
    Silent {
        /// The time.
        timeout: Duration,
    },
    /// What came is not a response that is taken.
    #[error("not a response: {0}")]
    Response(#[from] ResponseError),
    /// The response was not complete in the [time](super::HttpRequest::timeout) of the request.
    #[error("no complete response within {timeout:?}")]
    TimedOut {
        /// The time.
        timeout: Duration,
    },
    /// As many requests wait for a connection as [may](super::HttpClientBuilder::max_waiting).
    #[error("{most} requests wait for a connection, no more may")]
    TooManyWaiting {
        /// How many may.
        most: usize,
    },
    /// It can't be followed where the server redirects it to.
    #[error("the redirect is not followed: {0}")]
    Redirect(#[from] RedirectError),
    /// The request's content was not written to its end.
    #[error("the request's content was not written to its end")]
    Aborted,
    /// Waiting for a response on a reactor of the client's own would never end.
    #[error("a client's reactor can't wait for a response")]
    OwnThread,
    /// The client stops, or its engine does not run.
    #[error("the client does not run")]
    Stopped,
}

/// Why a redirect is not followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedirectError {
    /// There were as many as [may be](super::HttpClientBuilder::redirects).
    #[error("there were {most} before it")]
    TooMany {
        /// How many may be.
        most: u32,
    },
    /// It leads from `https://` to `http://`, to this URL.
    #[error("{url} is not encrypted")]
    Insecure {
        /// The URL.
        url: String,
    },
    /// The request's content would have to be sent again, and was streamed.
    #[error("the request's content can't be sent again")]
    Content,
    /// Where it leads to is not a URL that can be asked.
    #[error(transparent)]
    Url(#[from] UrlError),
}
