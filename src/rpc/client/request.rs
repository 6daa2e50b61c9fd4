//! What a client asks and gets.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;

use crate::rpc::frame;
use crate::rpc::{Format, Metadata, MetadataError};

/// What a client asks a server.
///
/// ```
/// use std::time::Duration;
/// use millstream::rpc::Request;
///
/// let request = Request::new("kv.Store/get")
///     .body("key")
///     .metadata("tenant", "blue")?
///     .timeout(Duration::from_millis(500))
///     .idempotent(true);
/// # Ok::<(), millstream::rpc::MetadataError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Request {
    pub(super) method: Cow<'static, str>,
    pub(super) body: Bytes,
    pub(super) format: Format,
    pub(super) metadata: Metadata,
    pub(super) timeout: Option<Duration>,
    pub(super) idempotent: bool,
}

impl Request {
    /// A request to a method, named by service, `/` and method, in at most 255 bytes; without a body.
    pub fn new(method: impl Into<Cow<'static, str>>) -> Self {
        Request {
            method: method.into(),
            body: Bytes::new(),
            format: Format::RAW,
            metadata: Metadata::new(),
            timeout: None,
            idempotent: false,
        }
    }

    /// The body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// How the body is encoded and compressed, which is up to the caller. By default it is raw bytes.
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// Has a pair go along.
    ///
    /// # Errors
    /// It can't be metadata.
    pub fn metadata(mut self, key: &str, value: impl AsRef<[u8]>) -> Result<Self, MetadataError> {
        self.metadata.insert(key, value)?;
        Ok(self)
    }

    /// The time after which the call ends, all attempts included, with a resolution of one millisecond; by default
    /// the client's [`timeout`](super::ClientBuilder::timeout). A year is as long as it gets.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Whether it does no harm to run the request twice, so that it may be tried again when nobody knows whether it was
    /// run. By default it does.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = idempotent;
        self
    }
}

/// What a server answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The body, as `format` says.
    pub body: Bytes,
    /// What came along.
    pub metadata: Metadata,
    /// How the body is encoded and compressed.
    pub format: Format,
}

impl From<frame::Response<'_>> for Response {
    fn from(response: frame::Response<'_>) -> Self {
        Response {
            body: Bytes::copy_from_slice(response.body),
            metadata: response.metadata.into(),
            format: response.format,
        }
    }
}
