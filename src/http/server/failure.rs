//! Why a request has no answer of its handler's.

use std::error::Error;

use crate::LogLimit;
use crate::http::response::OwnedResponse;
use crate::http::status::StatusCode;

/// What a handler returns instead of an answer: a status, which the client is told, and maybe what
/// caused it, which is only logged. Every error is one, with 500. An [`OwnedResponse`] is one that
/// the client is told as it is.
///
/// ```
/// use millstream::http::{Failure, StatusCode};
///
/// fn number(text: &str) -> Result<u32, Failure> {
///     text.parse().map_err(|error| Failure::caused_by(StatusCode::BAD_REQUEST, error))
/// }
///
/// assert_eq!(number("x").unwrap_err().status(), StatusCode::BAD_REQUEST);
/// assert_eq!(Failure::from(StatusCode::NOT_FOUND).status(), StatusCode::NOT_FOUND);
/// assert_eq!(Failure::from(std::fmt::Error).status(), StatusCode::INTERNAL_SERVER_ERROR);
/// ```
#[derive(Debug)]
pub struct Failure {
    status: StatusCode,
    cause: Option<Box<dyn Error + Send + Sync>>,
    /// What the client is told instead of the status alone.
    response: Option<Box<OwnedResponse>>,
}

impl Failure {
    /// A failure that an error has caused.
    pub fn caused_by(status: StatusCode, cause: impl Error + Send + Sync + 'static) -> Self {
        Failure { status, cause: Some(Box::new(cause)), response: None }
    }

    /// What the client is told.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The response to the client; what is the server's fault is logged.
    pub(super) fn into_response(self) -> OwnedResponse {
        static LIMIT: LogLimit = LogLimit::new();
        let Failure { status, cause, response } = self;
        if let Some(error) = cause.filter(|_| status >= StatusCode::INTERNAL_SERVER_ERROR)
            && let Some(left_out) = LIMIT.admit()
        {
            tracing::warn!(left_out, %status, %error, "a request failed");
        }
        response.map_or_else(|| OwnedResponse::plain(status), |response| *response)
    }
}

impl From<StatusCode> for Failure {
    fn from(status: StatusCode) -> Self {
        Failure { status, cause: None, response: None }
    }
}

impl From<OwnedResponse> for Failure {
    fn from(response: OwnedResponse) -> Self {
        Failure { status: response.status, cause: None, response: Some(Box::new(response)) }
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(cause: E) -> Self {
        Failure::caused_by(StatusCode::INTERNAL_SERVER_ERROR, cause)
    }
}
