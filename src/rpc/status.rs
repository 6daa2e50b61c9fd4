//! How a call ended.

use std::borrow::Cow;
use std::fmt;

/// The codes of a status, which are [gRPC's](https://grpc.io/docs/guides/status-codes/), by name
/// and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
#[non_exhaustive]
pub enum Code {
    /// It succeeded.
    Ok = 0,
    /// The caller ended it.
    Cancelled = 1,
    /// It failed for an unknown reason.
    Unknown = 2,
    /// The request makes no sense, whatever state the server is in.
    InvalidArgument = 3,
    /// The deadline passed. It may have been done all the same.
    DeadlineExceeded = 4,
    /// What was asked for is not there.
    NotFound = 5,
    /// What was to be made is there already.
    AlreadyExists = 6,
    /// The caller may not do that.
    PermissionDenied = 7,
    /// Something is used up: a quota, memory, the length that a frame may have.
    ResourceExhausted = 8,
    /// The server is not in the state for it; the same request makes no sense before that changes.
    FailedPrecondition = 9,
    /// It got in the way of another one; a caller may begin again from further up.
    Aborted = 10,
    /// Past the end of something.
    OutOfRange = 11,
    /// There is no such method, or not in this version or form.
    Unimplemented = 12,
    /// Something is broken on the server.
    Internal = 13,
    /// The server can't be reached, or does not serve now; the same request may succeed later.
    Unavailable = 14,
    /// Data is lost or damaged.
    DataLoss = 15,
    /// It is not known who the caller is.
    Unauthenticated = 16,
}

impl Code {
    /// All codes, by number.
    pub const ALL: [Code; 17] = [
        Code::Ok,
        Code::Cancelled,
        Code::Unknown,
        Code::InvalidArgument,
        Code::DeadlineExceeded,
        Code::NotFound,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unimplemented,
        Code::Internal,
        Code::Unavailable,
        Code::DataLoss,
        Code::Unauthenticated,
    ];

    /// The code of a number; [`Code::Unknown`] for a number that has none.
    pub fn from_number(number: u32) -> Code {
        usize::try_from(number)
            .ok()
            .and_then(|at| Code::ALL.get(at).copied())
            .unwrap_or(Code::Unknown)
    }

    /// The code's number.
    pub fn number(self) -> u32 {
        self as u32
    }

    /// The name that gRPC's documentation has for it, such as `INVALID_ARGUMENT`.
    pub fn name(self) -> &'static str {
        match self {
            Code::Ok => "OK",
            Code::Cancelled => "CANCELLED",
            Code::Unknown => "UNKNOWN",
            Code::InvalidArgument => "INVALID_ARGUMENT",
            Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Code::NotFound => "NOT_FOUND",
            Code::AlreadyExists => "ALREADY_EXISTS",
            Code::PermissionDenied => "PERMISSION_DENIED",
            Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Code::FailedPrecondition => "FAILED_PRECONDITION",
            Code::Aborted => "ABORTED",
            Code::OutOfRange => "OUT_OF_RANGE",
            Code::Unimplemented => "UNIMPLEMENTED",
            Code::Internal => "INTERNAL",
            Code::Unavailable => "UNAVAILABLE",
            Code::DataLoss => "DATA_LOSS",
            Code::Unauthenticated => "UNAUTHENTICATED",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a call failed: a code for the program, and a message for the reader of the log.
///
/// ```
/// use millstream::rpc::{Code, Status};
///
/// let status = Status::not_found("no user 7");
/// assert_eq!(status.code(), Code::NotFound);
/// assert_eq!(status.to_string(), "NOT_FOUND: no user 7");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    code: Code,
    message: Cow<'static, str>,
}

impl Status {
    /// A status of this code. One of [`Code::Ok`] is none that a call fails with; it becomes
    /// [`Code::Unknown`].
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        let code = if code == Code::Ok { Code::Unknown } else { code };
        Status { code, message: message.into() }
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The message; it may be empty.
    pub fn message(&self) -> &str {
        &self.message
    }
}

macro_rules! constructors {
    ($($name:ident => $code:ident,)*) => {
        impl Status {
            $(
                #[doc = concat!("A status of [`Code::", stringify!($code), "`].")]
                pub fn $name(message: impl Into<Cow<'static, str>>) -> Self {
                    Status { code: Code::$code, message: message.into() }
                }
            )*
        }
    };
}

constructors! {
    cancelled => Cancelled,
    unknown => Unknown,
    invalid_argument => InvalidArgument,
    deadline_exceeded => DeadlineExceeded,
    not_found => NotFound,
    already_exists => AlreadyExists,
    permission_denied => PermissionDenied,
    resource_exhausted => ResourceExhausted,
    failed_precondition => FailedPrecondition,
    aborted => Aborted,
    out_of_range => OutOfRange,
    unimplemented => Unimplemented,
    internal => Internal,
    unavailable => Unavailable,
    data_loss => DataLoss,
    unauthenticated => Unauthenticated,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() {
            return self.code.fmt(f);
        }
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_codes_agree() {
        for (number, code) in (0..).zip(Code::ALL) {
            assert_eq!(code.number(), number);
            assert_eq!(Code::from_number(number), code);
        }
        assert_eq!(Code::from_number(17), Code::Unknown);
        assert_eq!(Code::from_number(u32::MAX), Code::Unknown);
    }

    #[test]
    fn nothing_fails_with_ok() {
        assert_eq!(Status::new(Code::Ok, "").code(), Code::Unknown);
    }
}
