//! What a client asks and gets.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;

#[cfg(any(feature = "deflate", feature = "lz4"))]
use crate::rpc::compression::Compression;
use crate::rpc::compression::{compress, decompress};
use crate::rpc::frame;
use crate::rpc::metadata::{TRACEPARENT, TRACESTATE};
use crate::rpc::{Call, Format, Metadata, MetadataError, Status};

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
    /// How the client is to compress it; 0 if it stays as it is.
    pub(super) compression: u8,
    pub(super) metadata: Metadata,
    pub(super) timeout: Option<Duration>,
    pub(super) idempotent: bool,
    pub(super) wait_for_ready: Option<bool>,
}

impl Request {
    /// A request to a method, named by service, `/` and method, in at most 255 bytes; without a
    /// body.
    pub fn new(method: impl Into<Cow<'static, str>>) -> Self {
        Request {
            method: method.into(),
            body: Bytes::new(),
            format: Format::RAW,
            compression: 0,
            metadata: Metadata::new(),
            timeout: None,
            idempotent: false,
            wait_for_ready: None,
        }
    }

    /// The body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// How the body is encoded and compressed, which is up to the caller. By default it is raw
    /// bytes.
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// Makes the client compress the body, after the layers, and with that the server its response,
    /// if that is [long enough](crate::rpc::Server::compress_from).
    #[cfg(any(feature = "deflate", feature = "lz4"))]
    #[cfg_attr(docsrs, doc(cfg(any(feature = "deflate", feature = "lz4"))))]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression as u8;
        self
    }

    /// Sends a pair along.
    ///
    /// # Errors
    /// It can't be metadata.
    pub fn metadata(mut self, key: &str, value: impl AsRef<[u8]>) -> Result<Self, MetadataError> {
        self.metadata.insert(key, value)?;
        Ok(self)
    }

    /// Makes it part of the trace of a call that is being served: a
    /// [child](crate::rpc::TraceContext::child) of its
    /// `traceparent` goes along, and its `tracestate`. Nothing does of a call that has no trace.
    pub fn trace_of(mut self, call: &Call<'_>) -> Self {
        let Some(trace) = call.trace_context() else { return self };
        // What is a trace's is metadata; a list that is too long stays behind.
        let _ = self.metadata.insert(TRACEPARENT, trace.child().to_string());
        if let Some(state) = call.metadata().trace_state() {
            let _ = self.metadata.insert(TRACESTATE, state);
        }
        self
    }

    /// The time after which the call ends, all attempts included, with a resolution of one
    /// millisecond; by default the client's [`timeout`](super::ClientBuilder::timeout). A year is
    /// as long as it gets.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Whether it waits until its deadline for a server that can be reached, instead of failing at
    /// once while none can; by default as the client's
    /// [`wait_for_ready`](super::ClientBuilder::wait_for_ready) says.
    pub fn wait_for_ready(mut self, waits: bool) -> Self {
        self.wait_for_ready = Some(waits);
        self
    }

    /// Whether it does no harm to run the request twice, so that it may be tried again when nobody
    /// knows whether it was run. By default it does.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = idempotent;
        self
    }
}

/// The body as it is sent, if `compression` is how it is to be compressed, and that makes it not
/// too long.
pub(super) fn packed(
    format: Format,
    compression: u8,
    body: Bytes,
    max_body: usize,
) -> (Format, Bytes) {
    if compression == 0 || format.compression != 0 {
        return (format, body);
    }
    let packed_format = Format { compression, ..format };
    match compress(packed_format, &body).filter(|packed| packed.len() <= max_body) {
        Some(packed) => (packed_format, packed),
        None => (format, body),
    }
}

/// What a server answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The body, as `format` says.
    pub body: Bytes,
    /// What came along.
    pub metadata: Metadata,
    /// How the body is encoded; it is not compressed any more.
    pub format: Format,
}

impl Response {
    /// Keeps what came in a frame.
    pub(super) fn read(response: &frame::Response<'_>, max_body: usize) -> Result<Self, Status> {
        let format = Format { compression: 0, ..response.format };
        let metadata = response.metadata.into();
        let body = match response.format.compression {
            0 => Bytes::copy_from_slice(response.body),
            _ => decompress(response.format, response.body, max_body)
                .map_err(|status| {
                    Status::internal(format!("the response can't be read: {status}"))
                })?
                .into(),
        };
        Ok(Response { body, metadata, format })
    }
}
