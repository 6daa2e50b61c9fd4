//! Which method a call is for.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::rpc::call::{Answer, Call, Handler};
use crate::rpc::service::Service;
use crate::rpc::status::Status;

/// The methods of a server, by name. Each reactor has its own router, so methods may own what they
/// like.
///
/// A name is that of the service, `/`, and that of the method, as in gRPC's paths; 1 to 255 bytes.
///
/// ```
/// use millstream::rpc::{Call, Router, Status};
///
/// let mut count = 0;
/// let router = Router::new()
///     .method("demo.Counter/next", move |call: &mut Call<'_>| {
///         count += 1;
///         call.answer(count.to_string().as_bytes())
///     })
///     .method("demo.Counter/fail", |_call: &mut Call<'_>| Err(Status::not_found("nothing here")))
///     .reflection();
/// ```
#[derive(Default)]
pub struct Router {
    methods: Vec<Method>,
    places: HashMap<Box<[u8]>, usize>,
    /// The place of the method that was called last: most often it is called again.
    recent: usize,
    /// All names, for reflection.
    pub(super) names: Arc<RwLock<Vec<String>>>,
}

struct Method {
    name: Box<[u8]>,
    timeout: Option<Duration>,
    handler: Box<dyn Handler>,
}

/// What is particular about a method.
#[derive(Clone, Copy, Debug, Default)]
pub struct MethodOptions {
    timeout: Option<Duration>,
}

impl MethodOptions {
    /// Nothing is.
    pub fn new() -> Self {
        MethodOptions::default()
    }

    /// Calls of the method end after this time at the latest.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

impl Router {
    /// A router without methods.
    pub fn new() -> Self {
        Router::default()
    }

    /// Adds a method.
    ///
    /// # Panics
    /// The name is not 1 to 255 bytes long, or there is a method of this name.
    pub fn method(self, name: &str, handler: impl Handler + 'static) -> Self {
        self.method_with(name, MethodOptions::new(), handler)
    }

    /// Adds a method with options.
    ///
    /// # Panics
    /// As [`method`](Self::method).
    pub fn method_with(
        mut self,
        name: &str,
        options: MethodOptions,
        handler: impl Handler + 'static,
    ) -> Self {
        assert!((1..=255).contains(&name.len()), "{name:?} can't be the name of a method");
        let earlier = self.places.insert(name.as_bytes().into(), self.methods.len());
        assert!(earlier.is_none(), "there is a method {name:?} already");
        let MethodOptions { timeout } = options;
        self.methods.push(Method {
            name: name.as_bytes().into(),
            timeout,
            handler: Box::new(handler),
        });
        self.names.write().unwrap_or_else(PoisonError::into_inner).push(name.to_owned());
        self
    }

    /// Adds the methods of a service.
    ///
    /// # Panics
    /// As [`method`](Self::method).
    pub fn service<S: 'static>(self, service: Service<S>) -> Self {
        service.add_to(self)
    }

    /// The place of a method.
    #[inline]
    fn find(&mut self, name: &[u8]) -> Option<&mut Method> {
        if self.methods.get(self.recent).is_none_or(|recent| *recent.name != *name) {
            self.recent = *self.places.get(name)?;
        }
        self.methods.get_mut(self.recent)
    }
}

impl Handler for Router {
    #[inline]
    fn handle(&mut self, call: &mut Call<'_>) -> Result<Answer, Status> {
        let Some(method) = self.find(call.method_bytes()) else {
            return Err(call.not_run(unknown(call.method_bytes())));
        };
        if let Some(timeout) = method.timeout {
            call.limit_timeout(timeout);
            if let Err(status) = call.check_deadline() {
                return Err(call.not_run(status));
            }
        }
        call.unpack()?;
        method.handler.handle(call)
    }

    fn unpacks(&self) -> bool {
        true
    }
}

#[cold]
fn unknown(method: &[u8]) -> Status {
    Status::unimplemented(format!("there is no method \"{}\"", method.escape_ascii()))
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.methods.iter().map(|method| &method.name)).finish()
    }
}
