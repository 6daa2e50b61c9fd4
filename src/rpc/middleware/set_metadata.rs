//! What goes along with every call.

use std::fmt;

use super::Middleware;
use crate::rpc::call::{Answer, Call, Handler};
use crate::rpc::metadata::{Metadata, MetadataError, TRACEPARENT, TraceContext};
use crate::rpc::status::Status;

/// Adds metadata to what [goes along](Call::outgoing) with a call: on a client with the request, on
/// a server with the response.
///
/// ```
/// use millstream::rpc::{Call, Metadata, SetMetadata};
///
/// let mut metadata = Metadata::new();
/// metadata.insert("client", "billing/1.7")?;
/// let always_the_same = SetMetadata::pairs(metadata);
/// let by_call = SetMetadata::with(|call: &mut Call<'_>| {
///     let kind = if call.method().starts_with("admin.") { "admin" } else { "user" };
///     call.outgoing().insert("kind", kind)
/// });
/// let traced = SetMetadata::trace();
/// # Ok::<(), millstream::rpc::MetadataError>(())
/// ```
#[derive(Clone, Copy)]
pub struct SetMetadata<S> {
    source: S,
}

impl SetMetadata<Metadata> {
    /// Adds these pairs.
    pub fn pairs(metadata: Metadata) -> Self {
        SetMetadata { source: metadata }
    }
}

impl<F: Fn(&mut Call<'_>) -> Result<(), MetadataError>> SetMetadata<F> {
    /// Adds what this function adds. A call for which it fails is not made, and ends with
    /// [`Code::Internal`](crate::rpc::Code::Internal).
    pub fn with(function: F) -> Self {
        SetMetadata { source: function }
    }
}

impl SetMetadata<fn(&mut Call<'_>) -> Result<(), MetadataError>> {
    /// Makes each call part of a [trace](Call::trace_context), as W3C's Trace Context has it: one
    /// that comes with a `traceparent` stays in its trace, for one that has none a trace begins
    /// here. Layers further inside see it.
    pub fn trace() -> Self {
        SetMetadata::with(|call| match call.trace_context() {
            Some(_) => Ok(()),
            None => call.outgoing().insert(TRACEPARENT, TraceContext::root().to_string()),
        })
    }
}

impl Middleware for SetMetadata<Metadata> {
    #[inline]
    fn handle(&self, call: &mut Call<'_>, next: &mut impl Handler) -> Result<Answer, Status> {
        call.outgoing().append(&self.source);
        next.handle(call)
    }
}

impl<F: Fn(&mut Call<'_>) -> Result<(), MetadataError>> Middleware for SetMetadata<F> {
    #[inline]
    fn handle(&self, call: &mut Call<'_>, next: &mut impl Handler) -> Result<Answer, Status> {
        (self.source)(call).map_err(|error| Status::internal(format!("metadata: {error}")))?;
        next.handle(call)
    }
}

impl<S> fmt::Debug for SetMetadata<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetMetadata").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::Chain;
    use crate::rpc::lone::{LoneCall, LoneEnd};

    fn make(call: &LoneCall, middleware: &impl Middleware) -> LoneEnd {
        call.make(middleware, &mut |call: &mut Call<'_>| call.answer(b""), || {})
    }

    #[test]
    fn pairs_are_added_behind_those_that_are_there() {
        let mut pairs = Metadata::new();
        pairs.insert("a", "1").unwrap();
        let by_call = SetMetadata::with(|call: &mut Call<'_>| {
            let method = call.method();
            call.outgoing().insert("method", method)
        });
        let chain = Chain::new(by_call, SetMetadata::pairs(pairs));
        let end = make(&LoneCall::new(), &chain);
        let pairs: Vec<_> = end.metadata.view().iter().collect();
        assert_eq!(pairs, [("method", &b"lone.Lone/call"[..]), ("a", b"1")]);
    }

    #[test]
    fn a_later_answer_has_it_along() {
        let layer = SetMetadata::with(|call: &mut Call<'_>| call.outgoing().insert("a", "1"));
        let mut handler = |call: &mut Call<'_>| {
            let (answer, mut reply) = call.answer_later();
            reply.metadata().insert("b", "2").unwrap();
            reply.send("");
            Ok(answer)
        };
        let end = LoneCall::new().make(&layer, &mut handler, || {});
        let pairs: Vec<_> = end.metadata.view().iter().collect();
        assert_eq!(pairs, [("a", &b"1"[..]), ("b", b"2")]);
    }

    #[test]
    fn what_is_no_metadata_fails_the_call() {
        let broken = SetMetadata::with(|call: &mut Call<'_>| call.outgoing().insert("No", ""));
        let status = make(&LoneCall::new(), &broken).result.unwrap_err();
        assert!(status.message().starts_with("metadata: the key \"No\""), "{status}");
    }

    #[test]
    fn a_trace_goes_on_or_begins() {
        let traced = SetMetadata::trace();
        let begun = |call: &LoneCall| make(call, &traced).metadata.view().trace_context();
        let (one, two) = (begun(&LoneCall::new()).unwrap(), begun(&LoneCall::new()).unwrap());
        assert_ne!(one.trace_id, two.trace_id);
        let mut call = LoneCall::new();
        call.metadata.insert(TRACEPARENT, one.to_string()).unwrap();
        assert_eq!(begun(&call), None, "its caller knows it");
        let mut seen = None;
        let mut handler = |call: &mut Call<'_>| {
            seen = call.trace_context();
            call.answer(b"")
        };
        call.make(&traced, &mut handler, || {});
        assert_eq!(seen, Some(one));
        let child = one.child();
        assert_eq!(child.trace_id, one.trace_id);
        assert_ne!(child.parent_id, one.parent_id);
    }
}
