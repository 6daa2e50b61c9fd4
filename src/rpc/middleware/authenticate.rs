//! Who calls, and whether they may.

use std::any::Any;
use std::fmt;

use super::Middleware;
use crate::rpc::call::{Answer, Call, Handler};
use crate::rpc::status::Status;

/// Lets a function look at each call before it goes on: at its method, its metadata, its deadline.
///
/// What the function finds out, most often who the caller is, is a [value](Call::value) of the call
/// for what is behind this layer. What it fails with ends the call:
/// [`Code::Unauthenticated`](crate::rpc::Code::Unauthenticated) if nobody knows who the caller is,
/// [`Code::PermissionDenied`](crate::rpc::Code::PermissionDenied) if the caller may not do that. On
/// a client such a function can put the credentials into what [goes along](Call::outgoing).
///
/// ```
/// use millstream::rpc::{Authenticate, Call, Status};
///
/// struct User(String);
///
/// let authenticate = Authenticate::with(|call: &mut Call<'_>| match call.metadata().get("token") {
///     None => Err(Status::unauthenticated("there is no token")),
///     Some(b"sesame") => Ok(User("ali".to_owned())),
///     Some(_) => Err(Status::unauthenticated("nobody has this token")),
/// });
/// // And in a method:
/// # let _ =
/// |call: &mut Call<'_>| {
///     let User(name) = call.value().ok_or_else(|| Status::unauthenticated("nobody asked"))?;
///     let greeting = format!("hello {name}");
///     call.answer(greeting.as_bytes())
/// }
/// # ;
/// ```
#[derive(Clone, Copy)]
pub struct Authenticate<F> {
    function: F,
}

impl<F: Fn(&mut Call<'_>) -> Result<T, Status>, T: Any> Authenticate<F> {
    /// Lets the calls go on that `function` lets.
    pub fn with(function: F) -> Self {
        Authenticate { function }
    }
}

impl<F: Fn(&mut Call<'_>) -> Result<T, Status>, T: Any> Middleware for Authenticate<F> {
    #[inline]
    fn handle(&self, call: &mut Call<'_>, next: &mut impl Handler) -> Result<Answer, Status> {
        let found = (self.function)(call)?;
        call.insert(found);
        next.handle(call)
    }
}

impl<F> fmt::Debug for Authenticate<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticate").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::lone::LoneCall;
    use crate::rpc::status::Code;

    struct User(String);

    #[test]
    fn what_it_finds_reaches_the_handler_or_ends_the_call() {
        let authenticate =
            Authenticate::with(|call: &mut Call<'_>| match call.metadata().get("token") {
                None => Err(Status::unauthenticated("no token")),
                Some(b"eve") => Err(Status::permission_denied("not you")),
                Some(token) => Ok(User(String::from_utf8_lossy(token).into_owned())),
            });
        let mut calls = 0;
        let mut handler = |call: &mut Call<'_>| {
            calls += 1;
            assert!(call.value::<u32>().is_none());
            let name = call.value::<User>().map(|user| user.0.clone()).unwrap();
            call.answer(name.as_bytes())
        };
        let mut result = |token: Option<&str>| {
            let mut call = LoneCall::new();
            if let Some(token) = token {
                call.metadata.insert("token", token).unwrap();
            }
            call.make(&authenticate, &mut handler, || {}).result
        };
        assert_eq!(result(None).unwrap_err().code(), Code::Unauthenticated);
        assert_eq!(result(Some("eve")).unwrap_err().code(), Code::PermissionDenied);
        assert_eq!(result(Some("ali")).unwrap(), "ali");
        assert_eq!(calls, 1);
    }
}
