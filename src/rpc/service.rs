//! Methods that belong together.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use super::call::{Answer, Call};
use super::server::Router;
use super::status::Status;

/// Methods that share a state, such as a trait of [`service!`](super::service) has; added to a
/// router by [`Router::service`].
///
/// ```
/// use millstream::rpc::{Router, Service};
///
/// let counter = Service::new("demo.Counter", 0_u64)
///     .method("next", |count, call| {
///         *count += 1;
///         call.answer(&count.to_be_bytes())
///     })
///     .method("reset", |count, call| {
///         *count = 0;
///         call.answer(&[])
///     });
/// let router = Router::new().service(counter);
/// ```
pub struct Service<S> {
    name: Cow<'static, str>,
    state: S,
    methods: Vec<(Cow<'static, str>, Box<Method<S>>)>,
}

type Method<S> = dyn FnMut(&mut S, &mut Call<'_>) -> Result<Answer, Status>;

impl<S> Service<S> {
    /// A service of this name, without methods.
    pub fn new(name: impl Into<Cow<'static, str>>, state: S) -> Self {
        Service { name: name.into(), state, methods: Vec::new() }
    }

    /// Adds a method. Its whole name is that of the service, `/`, and this one.
    pub fn method(
        mut self,
        name: impl Into<Cow<'static, str>>,
        method: impl FnMut(&mut S, &mut Call<'_>) -> Result<Answer, Status> + 'static,
    ) -> Self {
        self.methods.push((name.into(), Box::new(method)));
        self
    }

    /// Adds the methods to a router.
    pub(super) fn add_to(self, router: Router) -> Router
    where
        S: 'static,
    {
        let Service { name: service, state, methods } = self;
        let state = Rc::new(RefCell::new(state));
        methods.into_iter().fold(router, |router, (name, mut method)| {
            let state = Rc::clone(&state);
            // One method runs at a time, so nobody else has borrowed it.
            router.method(&format!("{service}/{name}"), move |call: &mut Call<'_>| {
                method(&mut state.borrow_mut(), call)
            })
        })
    }
}

impl<S> fmt::Debug for Service<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let methods: Vec<_> = self.methods.iter().map(|(name, _)| name).collect();
        f.debug_struct("Service")
            .field("name", &self.name)
            .field("methods", &methods)
            .finish_non_exhaustive()
    }
}
