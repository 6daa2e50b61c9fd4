//! Status codes.

use std::fmt;

/// The status of a final response: a code from 200 to 599 (RFC 9110, section 15).
///
/// ```
/// use millstream::http::StatusCode;
///
/// assert_eq!(StatusCode::new(404), Some(StatusCode::NOT_FOUND));
/// assert_eq!(StatusCode::NOT_FOUND.to_string(), "404 Not Found");
/// assert_eq!(StatusCode::new(100), None, "interim responses are the server's");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatusCode(u16);

macro_rules! statuses {
    ($($code:literal $name:ident $reason:literal,)*) => {
        impl StatusCode {
            $(
                #[doc = concat!($code, " ", $reason)]
                pub const $name: StatusCode = StatusCode($code);
            )*

            /// The phrase that goes with the code, in English; empty if the code is not a known
            /// one.
            pub fn reason(self) -> &'static str {
                match self.0 {
                    $($code => $reason,)*
                    101 => "Switching Protocols",
                    _ => "",
                }
            }

            /// The line of a response with a known code, and what its date comes behind.
            pub(super) fn line_and_date(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some(concat!("HTTP/1.1 ", $code, " ", $reason, "\r\nDate: ")),)*
                    _ => None,
                }
            }
        }
    };
}

statuses! {
    200 OK "OK",
    201 CREATED "Created",
    202 ACCEPTED "Accepted",
    203 NON_AUTHORITATIVE_INFORMATION "Non-Authoritative Information",
    204 NO_CONTENT "No Content",
    205 RESET_CONTENT "Reset Content",
    206 PARTIAL_CONTENT "Partial Content",
    300 MULTIPLE_CHOICES "Multiple Choices",
    301 MOVED_PERMANENTLY "Moved Permanently",
    302 FOUND "Found",
    303 SEE_OTHER "See Other",
    304 NOT_MODIFIED "Not Modified",
    307 TEMPORARY_REDIRECT "Temporary Redirect",
    308 PERMANENT_REDIRECT "Permanent Redirect",
    400 BAD_REQUEST "Bad Request",
    401 UNAUTHORIZED "Unauthorized",
    402 PAYMENT_REQUIRED "Payment Required",
    403 FORBIDDEN "Forbidden",
    404 NOT_FOUND "Not Found",
    405 METHOD_NOT_ALLOWED "Method Not Allowed",
    406 NOT_ACCEPTABLE "Not Acceptable",
    408 REQUEST_TIMEOUT "Request Timeout",
    409 CONFLICT "Conflict",
    410 GONE "Gone",
    411 LENGTH_REQUIRED "Length Required",
    412 PRECONDITION_FAILED "Precondition Failed",
    413 CONTENT_TOO_LARGE "Content Too Large",
    414 URI_TOO_LONG "URI Too Long",
    415 UNSUPPORTED_MEDIA_TYPE "Unsupported Media Type",
    416 RANGE_NOT_SATISFIABLE "Range Not Satisfiable",
    417 EXPECTATION_FAILED "Expectation Failed",
    421 MISDIRECTED_REQUEST "Misdirected Request",
    422 UNPROCESSABLE_CONTENT "Unprocessable Content",
    426 UPGRADE_REQUIRED "Upgrade Required",
    428 PRECONDITION_REQUIRED "Precondition Required",
    429 TOO_MANY_REQUESTS "Too Many Requests",
    431 REQUEST_HEADER_FIELDS_TOO_LARGE "Request Header Fields Too Large",
    500 INTERNAL_SERVER_ERROR "Internal Server Error",
    501 NOT_IMPLEMENTED "Not Implemented",
    502 BAD_GATEWAY "Bad Gateway",
    503 SERVICE_UNAVAILABLE "Service Unavailable",
    504 GATEWAY_TIMEOUT "Gateway Timeout",
    505 HTTP_VERSION_NOT_SUPPORTED "HTTP Version Not Supported",
}

impl StatusCode {
    /// What an [`Upgrade`](super::Upgrade) is answered with; it is not a final response.
    pub(super) const SWITCHING_PROTOCOLS: StatusCode = StatusCode(101);

    /// The status with this code; `None` unless it is one of a final response.
    pub fn new(code: u16) -> Option<StatusCode> {
        (200..=599).contains(&code).then_some(StatusCode(code))
    }

    /// The code.
    pub fn code(self) -> u16 {
        self.0
    }

    /// Whether a response with it has no content, whatever the request was (RFC 9110, sections
    /// 15.3.5 and 15.4.5).
    pub fn is_without_content(self) -> bool {
        matches!(self.0, 204 | 304)
    }
}

impl fmt::Display for StatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.reason())
    }
}
