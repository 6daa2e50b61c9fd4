//! Calls of typed methods.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::encoding::Encoding;
#[cfg(any(feature = "deflate", feature = "lz4"))]
use crate::rpc::Compression;
use crate::rpc::{Call, Calling, Client, MetadataError, Middleware, Request, Response, Status};

/// A call of a typed method that has not begun: what a client of [`service!`](crate::rpc::service)
/// makes of each method. It is given what is particular about it, and then done in one of the ways
/// of a [`Client`].
///
/// `Q` is the request's type, `A` the response's.
///
/// ```no_run
/// use std::time::Duration;
/// use millstream::rpc::{Client, Encoding, TypedRequest};
///
/// # fn example(encoding: Encoding) -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::builder().address("127.0.0.1:7000").build()?;
/// let request: TypedRequest<'_, _, _, u64> =
///     TypedRequest::new(&client, "demo.Math/square", 12, encoding);
/// assert_eq!(request.timeout(Duration::from_secs(1)).call()?, 144);
/// # Ok(())
/// # }
/// ```
#[must_use = "it has not begun"]
pub struct TypedRequest<'c, M, Q, A> {
    client: &'c Client<M>,
    request: Request,
    value: Q,
    encoding: Encoding,
    answer: PhantomData<fn() -> A>,
}

impl<'c, M, Q, A> TypedRequest<'c, M, Q, A> {
    /// A call of a method with a value.
    pub fn new(client: &'c Client<M>, method: &'static str, value: Q, encoding: Encoding) -> Self {
        TypedRequest { client, request: Request::new(method), value, encoding, answer: PhantomData }
    }

    /// How the request is encoded, and so its response.
    pub fn encoding(mut self, encoding: Encoding) -> Self {
        self.encoding = encoding;
        self
    }

    /// [`Request::compression`].
    #[cfg(any(feature = "deflate", feature = "lz4"))]
    #[cfg_attr(docsrs, doc(cfg(any(feature = "deflate", feature = "lz4"))))]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.request = self.request.compression(compression);
        self
    }

    /// [`Request::metadata`].
    ///
    /// # Errors
    /// It can't be metadata.
    pub fn metadata(mut self, key: &str, value: impl AsRef<[u8]>) -> Result<Self, MetadataError> {
        self.request = self.request.metadata(key, value)?;
        Ok(self)
    }

    /// [`Request::trace_of`].
    pub fn trace_of(mut self, call: &Call<'_>) -> Self {
        self.request = self.request.trace_of(call);
        self
    }

    /// [`Request::timeout`].
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request = self.request.timeout(timeout);
        self
    }

    /// [`Request::wait_for_ready`].
    pub fn wait_for_ready(mut self, waits: bool) -> Self {
        self.request = self.request.wait_for_ready(waits);
        self
    }

    /// [`Request::idempotent`].
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.request = self.request.idempotent(idempotent);
        self
    }
}

impl<M: Middleware, Q: Serialize, A: DeserializeOwned> TypedRequest<'_, M, Q, A> {
    /// Calls, and waits for the response: [`Client::call`].
    ///
    /// # Errors
    /// The status that the call ends with. If the request can't be written, or the response not be
    /// read, it is [`Code::Internal`](crate::rpc::Code::Internal).
    pub fn call(self) -> Result<A, Status> {
        let (client, request) = self.encode()?;
        decode(&client.call(request)?)
    }

    /// Begins the call: [`Client::start`].
    pub fn start(self) -> TypedCalling<A> {
        let calling = self.encode().map(|(client, request)| client.start(request));
        TypedCalling { calling: calling.map_err(Some), answer: PhantomData }
    }

    /// Calls, and has `done` called with how it ended: [`Client::call_then`].
    pub fn call_then(self, done: impl FnOnce(Result<A, Status>) + Send + 'static) {
        match self.encode() {
            Ok((client, request)) => {
                client.call_then(request, |result| {
                    done(result.and_then(|response| decode(&response)));
                });
            }
            Err(status) => done(Err(status)),
        }
    }

    /// Runs the method without a response: [`Client::send`].
    ///
    /// # Errors
    /// It can't be sent.
    pub fn send(self) -> Result<(), Status> {
        let (client, request) = self.encode()?;
        client.send(request)
    }
}

impl<'c, M, Q: Serialize, A> TypedRequest<'c, M, Q, A> {
    fn encode(self) -> Result<(&'c Client<M>, Request), Status> {
        let mut body = Vec::new();
        self.encoding
            .encode(&self.value, &mut body)
            .map_err(|error| Status::internal(format!("the request can't be written: {error}")))?;
        Ok((self.client, self.request.format(self.encoding.format()).body(body)))
    }
}

fn decode<A: DeserializeOwned>(response: &Response) -> Result<A, Status> {
    let unreadable = |why: &str| Status::internal(format!("the response can't be read: {why}"));
    let encoding = Encoding::of(response.format)
        .ok_or_else(|| unreadable("its encoding is none of those that are built in"))?;
    encoding.decode(&response.body).map_err(|error| unreadable(&error.to_string()))
}

/// Waiting for it begins it: [`start`](TypedRequest::start).
impl<M: Middleware, Q: Serialize, A: DeserializeOwned> IntoFuture for TypedRequest<'_, M, Q, A> {
    type Output = Result<A, Status>;
    type IntoFuture = TypedCalling<A>;

    fn into_future(self) -> TypedCalling<A> {
        self.start()
    }
}

impl<M, Q, A> fmt::Debug for TypedRequest<'_, M, Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedRequest")
            .field("request", &self.request)
            .field("encoding", &self.encoding)
            .finish_non_exhaustive()
    }
}

/// A typed call that has begun: a [`Calling`] that returns a value.
#[must_use = "dropping it cancels the call"]
pub struct TypedCalling<A> {
    /// Or why it could not begin, until that was told.
    calling: Result<Calling, Option<Status>>,
    answer: PhantomData<fn() -> A>,
}

impl<A: DeserializeOwned> Future for TypedCalling<A> {
    type Output = Result<A, Status>;

    /// After the call's end it returns an error.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.calling {
            Ok(calling) => Pin::new(calling).poll(context).map(|response| decode(&response?)),
            Err(why) => {
                let ended = || Status::internal("the call has ended already");
                Poll::Ready(Err(why.take().unwrap_or_else(ended)))
            }
        }
    }
}

impl<A> fmt::Debug for TypedCalling<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedCalling").field("calling", &self.calling).finish()
    }
}
