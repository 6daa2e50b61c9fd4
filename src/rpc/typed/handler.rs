//! Methods that take and answer values.

use std::fmt;
use std::marker::PhantomData;
use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::encoding::{Encoding, EncodingError};
use crate::rpc::call::{Call, Handler};
use crate::rpc::metadata::Metadata;
use crate::rpc::reply::Reply;
use crate::rpc::status::Status;

/// Makes a handler of a function from a request to its response.
///
/// The response is encoded as the request was, in place. A request that can't be read ends with
/// [`Code::InvalidArgument`](crate::rpc::Code::InvalidArgument), one whose encoding is not built in
/// with [`Code::Unimplemented`](crate::rpc::Code::Unimplemented), and the function is not called.
/// An error of another type becomes a [`Status`] by `?`, if it can.
///
/// ```
/// use millstream::rpc::{Router, Status, typed};
///
/// let router = Router::new().method("demo.Math/divide", typed(|_call, (a, b): (i64, i64)| {
///     a.checked_div(b).ok_or(Status::invalid_argument("that can't be divided"))
/// }));
/// ```
pub fn typed<Q: DeserializeOwned, A: Serialize>(
    mut method: impl FnMut(&mut Call<'_>, Q) -> Result<A, Status>,
) -> impl Handler {
    move |call: &mut Call<'_>| {
        let encoding = encoding(call)?;
        let request = decode(encoding, call.body())?;
        let response = method(call, request)?;
        call.answer_with(encoding.format(), |body| {
            encoding.encode(&response, body).map_err(|error| no_response(&error))
        })
    }
}

/// Makes a handler of a function that gets a request and what it is to be answered with
/// [later](TypedReply), from any thread. Otherwise it is as [`typed`].
pub fn typed_later<Q: DeserializeOwned, A: Serialize>(
    mut method: impl FnMut(&mut Call<'_>, Q, TypedReply<A>),
) -> impl Handler {
    move |call: &mut Call<'_>| {
        let encoding = encoding(call)?;
        let request = decode(encoding, call.body())?;
        let (answer, reply) = call.answer_later();
        method(call, request, TypedReply { reply, encoding, value: PhantomData });
        Ok(answer)
    }
}

fn encoding(call: &Call<'_>) -> Result<Encoding, Status> {
    Encoding::of(call.format()).ok_or_else(|| {
        let number = call.format().encoding;
        Status::unimplemented(format!("no encoding of values of number {number} is built in here"))
    })
}

fn decode<Q: DeserializeOwned>(encoding: Encoding, body: &[u8]) -> Result<Q, Status> {
    encoding
        .decode(body)
        .map_err(|error| Status::invalid_argument(format!("the request can't be read: {error}")))
}

fn no_response(error: &EncodingError) -> Status {
    Status::internal(format!("the response can't be written: {error}"))
}

/// Answers a call later with a value: a [`Reply`] that knows how it is encoded.
#[must_use = "dropping it answers with an error"]
pub struct TypedReply<T> {
    reply: Reply,
    encoding: Encoding,
    value: PhantomData<fn(T)>,
}

impl<T: Serialize> TypedReply<T> {
    /// Answers with a value. If it can't be written, the call ends with
    /// [`Code::Internal`](crate::rpc::Code::Internal).
    pub fn send(self, value: &T) {
        let mut body = Vec::new();
        match self.encoding.encode(value, &mut body) {
            Ok(()) => self.reply.send_as(self.encoding.format(), body),
            Err(error) => self.reply.fail(no_response(&error)),
        }
    }
}

impl<T> TypedReply<T> {
    /// Answers with an error.
    pub fn fail(self, error: impl Into<Status>) {
        self.reply.fail(error.into());
    }

    /// What goes along with the response.
    pub fn metadata(&mut self) -> &mut Metadata {
        self.reply.metadata()
    }

    /// [`Reply::is_cancelled`].
    pub fn is_cancelled(&self) -> bool {
        self.reply.is_cancelled()
    }

    /// [`Reply::deadline`].
    pub fn deadline(&self) -> Option<Instant> {
        self.reply.deadline()
    }
}

impl<T> fmt::Debug for TypedReply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedReply")
            .field("reply", &self.reply)
            .field("encoding", &self.encoding)
            .finish()
    }
}
