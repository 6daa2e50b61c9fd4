//! What every call passes through, in layers like an onion's.

mod authenticate;
mod deadline;
mod logging;
mod recovery;
mod set_metadata;
#[cfg(test)]
mod tests;

pub use self::authenticate::Authenticate;
pub use self::deadline::Deadline;
pub use self::logging::Logging;
pub use self::recovery::Recovery;
pub use self::set_metadata::SetMetadata;
use super::call::{Answer, Call, Handler};
use super::status::Status;

/// A layer around the calls of a server or a client: it looks at a call, changes it, lets it pass
/// on or not, and sees how it ended ([`Call::on_end`]).
///
/// Layers are called in the order in which they were added, the first one outermost. On a client
/// they run on the caller's thread, so there they are shared between threads.
///
/// ```
/// use millstream::rpc::{Answer, Call, Handler, Middleware, Router, Server, Status};
///
/// /// Lets no call pass that changes something.
/// #[derive(Clone)]
/// struct ReadOnly;
///
/// impl Middleware for ReadOnly {
///     fn handle(&self, call: &mut Call<'_>, next: &mut impl Handler) -> Result<Answer, Status> {
///         if call.method().ends_with("/get") {
///             next.handle(call)
///         } else {
///             Err(Status::permission_denied("this replica is for reading"))
///         }
///     }
/// }
///
/// let server = Server::new().layer(ReadOnly);
/// # let _ = server.serve(Router::new());
/// ```
pub trait Middleware {
    /// Handles a call, most often by passing it on to `next`.
    ///
    /// # Errors
    /// The status that the call ends with.
    fn handle(&self, call: &mut Call<'_>, next: &mut impl Handler) -> Result<Answer, Status>;
}

/// No layer: every call passes.
impl Middleware for () {
    #[inline]
    fn handle(&self, call: &mut Call<'_>, next: &mut impl Handler) -> Result<Answer, Status> {
        next.handle(call)
    }
}

/// Two layers, of which the first one is outside.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chain<A, B> {
    outer: A,
    inner: B,
}

impl<A: Middleware, B: Middleware> Chain<A, B> {
    /// Puts `inner` inside of `outer`.
    pub fn new(outer: A, inner: B) -> Self {
        Chain { outer, inner }
    }
}

impl<A: Middleware, B: Middleware> Middleware for Chain<A, B> {
    #[inline]
    fn handle(&self, call: &mut Call<'_>, next: &mut impl Handler) -> Result<Answer, Status> {
        self.outer.handle(call, &mut Behind { middleware: &self.inner, handler: next })
    }
}

/// What stands behind a layer.
pub(super) struct Behind<'a, M, H> {
    pub(super) middleware: &'a M,
    pub(super) handler: &'a mut H,
}

impl<M: Middleware, H: Handler> Handler for Behind<'_, M, H> {
    #[inline]
    fn handle(&mut self, call: &mut Call<'_>) -> Result<Answer, Status> {
        self.middleware.handle(call, self.handler)
    }
}
