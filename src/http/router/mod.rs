//! Which handler a request comes to, by its method and path.

mod endpoint;
mod matched;
mod pattern;

use std::fmt;
use std::sync::Arc;

use self::endpoint::{Endpoint, Layered};
pub(super) use self::matched::Matched;
use self::pattern::check_pattern;
pub use self::pattern::{PatternError, RouteError};
use super::fields::FieldLines;
use super::files::{self, Files};
use super::head::RequestHead;
use super::middleware::{Chain, Middleware};
use super::server::{Answered, Exchange, Failure, Handler, Intake};
use super::status::StatusCode;

/// What a path has that takes all methods, as the field Allow lists them.
const ALL_METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Handlers for methods and patterns of paths, and layers around them. [`build`](Self::build) makes
/// the [`Handler`] of a server of it.
///
/// ```
/// use millstream::Engine;
/// use millstream::http::{HttpServer, Recovery, Router, StatusCode};
///
/// let routes = Router::new()
///     .layer(Recovery::new())
///     .get("/", |exchange| Ok(exchange.respond(StatusCode::OK).text("home")))
///     .group("/users", |users| {
///         users.get("/{id}", |exchange| {
///             let id = exchange.param("id").unwrap_or_default();
///             Ok(exchange.respond(StatusCode::OK).text(&id))
///         })
///     })
///     .build()?;
/// let server = HttpServer::new();
/// let engine = Engine::builder()
///     .listen("127.0.0.1:0")
///     .start(move |_reactor| server.serve(routes.clone()))?;
/// # use std::io::{Read, Write};
/// # let mut client = std::net::TcpStream::connect(engine.local_addrs()[0])?;
/// # client.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
/// # client.write_all(b"GET /users/a%20b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
/// # let mut response = String::new();
/// # client.read_to_string(&mut response)?;
/// # assert!(response.ends_with("\r\n\r\na b"));
/// # engine.stop(std::time::Duration::from_secs(5))?;
/// # engine.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A handler is a function or a closure that all reactors share; what it needs it captures. What
/// belongs to one request it finds in its [`Exchange`]: the [parameters](Exchange::param) of the
/// path, and the [values](Exchange::value) that layers have left.
///
/// # Patterns
///
/// A pattern is a path, in which `{name}` stands for a part of a segment or all of it, and
/// `{*name}` at the end for the rest of the path; neither is empty. `{{` and `}}` are the braces
/// themselves. Where several patterns match, what is written out comes before a parameter, and a
/// parameter before the rest of a path. Two patterns of which neither comes first are an error.
///
/// A path is matched as it came, so before it is decoded: an encoded slash divides no segments, and
/// a path with needless percent signs matches no text that is written out. Nothing is redirected or
/// made similar: `/users` and `/users/` are two paths, and so are `//users` and `/a/../users`.
///
/// # What it answers itself
///
/// HEAD is served by the handler of GET, unless it has its own. OPTIONS is answered with 204, and a
/// method that a path does not have with 405, both with the field Allow; a path without a pattern
/// with 404; and one whose parameters are not percent-encoded UTF-8 with 400.
pub struct Router<M = ()> {
    layers: M,
    routes: Vec<Route>,
    /// The first one.
    error: Option<RouteError>,
}

/// What belongs to a pattern.
struct Route {
    pattern: String,
    methods: Vec<(String, Box<dyn Endpoint>)>,
    /// For the methods that are not listed.
    rest: Rest,
    /// The methods, as the field Allow lists them.
    allowed: String,
}

enum Rest {
    /// A handler of the user's takes them all.
    Served(Box<dyn Endpoint>),
    /// They are not served.
    Refused(Box<dyn Endpoint>),
}

impl Router {
    /// A router without routes and layers.
    pub fn new() -> Self {
        Router { layers: (), routes: Vec::new(), error: None }
    }
}

impl Default for Router {
    fn default() -> Self {
        Self::new()
    }
}

macro_rules! methods {
    ($($name:ident $method:literal,)*) => {
        $(
            #[doc = concat!("Serves ", $method, " of the paths of this pattern.")]
            #[must_use]
            pub fn $name<F>(self, pattern: &str, handler: F) -> Self
            where
                F: Fn(Exchange<'_>) -> Result<Answered, Failure> + Send + Sync + 'static,
            {
                self.route($method, pattern, handler)
            }
        )*
    };
}

impl<M: Middleware> Router<M> {
    /// Adds a layer around all that this router serves and answers itself, inside of those that are
    /// there. It does not matter whether routes were added before.
    #[must_use]
    pub fn layer<L: Middleware>(self, layer: L) -> Router<Chain<M, L>> {
        let Router { layers, routes, error } = self;
        Router { layers: Chain::new(layers, layer), routes, error }
    }

    methods! {
        get "GET",
        head "HEAD",
        post "POST",
        put "PUT",
        patch "PATCH",
        delete "DELETE",
        options "OPTIONS",
    }

    /// Serves this method of the paths of this pattern. Names of methods are case-sensitive.
    #[must_use]
    pub fn route<F>(mut self, method: &str, pattern: &str, handler: F) -> Self
    where
        F: Fn(Exchange<'_>) -> Result<Answered, Failure> + Send + Sync + 'static,
    {
        let mut route = Route::new(pattern.to_owned());
        route.methods.push((method.to_owned(), Box::new(handler)));
        self.add(route);
        self
    }

    /// Serves all methods of the paths of this pattern that have no handlers of their own there.
    #[must_use]
    pub fn any<F>(mut self, pattern: &str, handler: F) -> Self
    where
        F: Fn(Exchange<'_>) -> Result<Answered, Failure> + Send + Sync + 'static,
    {
        let mut route = Route::new(pattern.to_owned());
        route.rest = Rest::Served(Box::new(handler));
        self.add(route);
        self
    }

    /// Serves the files of a folder at the paths that begin with this prefix and a slash, with GET
    /// and HEAD. The prefix itself is redirected to that slash. An empty prefix is for all paths
    /// that have no other route.
    ///
    /// A path leads to a file as it is written: percent signs that are not needed, doubled slashes,
    /// and dots lead to none.
    #[must_use]
    pub fn files(self, prefix: &str, files: impl Into<Arc<Files>>) -> Self {
        let files = files.into();
        let index = Arc::clone(&files);
        let below = Router::new().get("/", move |exchange| index.send(exchange, "")).get(
            "/{*path}",
            move |exchange| {
                let path = exchange.raw_param("path").unwrap_or_default();
                files.send_raw(exchange, path)
            },
        );
        match prefix {
            "" => self.mount(prefix, below),
            _ => self.mount(prefix, below.get("", files::redirect)),
        }
    }

    /// Adds routes whose patterns begin with this prefix, and which have their own layers inside of
    /// this router's. The prefix may be empty, for the sake of the layers alone.
    ///
    /// ```
    /// use millstream::http::{BodyLimit, Router, StatusCode};
    ///
    /// let router = Router::new().group("/api", |api| {
    ///     api.layer(BodyLimit::new(1_000)).post("/notes", |exchange| {
    ///         Ok(exchange.respond(StatusCode::CREATED).empty())
    ///     })
    /// });
    /// # router.build()?;
    /// # Ok::<(), millstream::http::RouteError>(())
    /// ```
    #[must_use]
    pub fn group<N: Middleware>(
        self,
        prefix: &str,
        routes: impl FnOnce(Router) -> Router<N>,
    ) -> Self {
        self.mount(prefix, routes(Router::new()))
    }

    /// Adds another router's routes in front of whose patterns this prefix is put, with that
    /// router's layers inside of this one's. What this router answers itself for these paths, such
    /// as OPTIONS, goes through both.
    #[must_use]
    pub fn mount<N: Middleware>(mut self, prefix: &str, router: Router<N>) -> Self {
        let Router { layers, routes, error } = router;
        self.error = self.error.or(error);
        if prefix.ends_with('/') {
            let (pattern, source) = (prefix.to_owned(), PatternError::Prefix);
            self.error.get_or_insert(RouteError::Pattern { pattern, source });
        }
        let layers = Arc::new(layers);
        for mut route in routes {
            route.pattern.insert_str(0, prefix);
            self.add(route.layered(&layers));
        }
        self
    }

    /// Adds what a route has that the route of the same pattern has not.
    fn add(&mut self, new: Route) {
        let Some(route) = self.routes.iter_mut().find(|route| route.pattern == new.pattern) else {
            self.routes.push(new);
            return;
        };
        let twice = new.methods.iter().map(|(method, _)| method).find(|method| route.has(method));
        let twice = match (&route.rest, &new.rest) {
            (Rest::Served(_), Rest::Served(_)) => Some("any"),
            _ => twice.map(String::as_str),
        };
        if let Some(method) = twice {
            let (method, pattern) = (method.to_owned(), new.pattern);
            self.error.get_or_insert(RouteError::Twice { method, pattern });
            return;
        }
        route.methods.extend(new.methods);
        if let Rest::Served(_) = new.rest {
            route.rest = new.rest;
        }
    }

    /// The handler, which answers paths without a pattern with 404.
    ///
    /// # Errors
    /// Two routes are in each other's way, or a pattern is not one.
    pub fn build(self) -> Result<Routes<M>, RouteError> {
        self.build_with(|_: Exchange<'_>| Err(StatusCode::NOT_FOUND.into()))
    }

    /// The handler, which leaves paths without a pattern to `fallback`.
    ///
    /// # Errors
    /// As for [`build`](Self::build).
    pub fn build_with<F>(self, fallback: F) -> Result<Routes<M>, RouteError>
    where
        F: Fn(Exchange<'_>) -> Result<Answered, Failure> + Send + Sync + 'static,
    {
        let Router { layers, routes, error } = self;
        if let Some(error) = error {
            return Err(error);
        }
        let (mut tree, mut patterns) = (matchit::Router::new(), Vec::new());
        for mut route in routes {
            check_pattern(&route.pattern)?;
            route.list_methods()?;
            let pattern = route.pattern.clone();
            let inserted = tree.insert(pattern.as_str(), route);
            inserted.map_err(|error| RouteError::of(error, &pattern, &patterns))?;
            patterns.push(pattern);
        }
        Ok(Routes(Arc::new(Table { layers, tree, fallback: Box::new(fallback) })))
    }
}

impl Route {
    fn new(pattern: String) -> Self {
        let (methods, rest) = (Vec::new(), Rest::Refused(Box::new(refuse_method)));
        Route { pattern, methods, rest, allowed: String::new() }
    }

    fn has(&self, method: &str) -> bool {
        self.methods.iter().any(|(other, _)| other == method)
    }

    /// The same with layers around it.
    fn layered<M: Middleware>(self, layers: &Arc<M>) -> Self {
        let layered = |inner| -> Box<dyn Endpoint> {
            Box::new(Layered { layers: Arc::clone(layers), inner })
        };
        let methods = self.methods.into_iter();
        Route {
            methods: methods.map(|(method, endpoint)| (method, layered(endpoint))).collect(),
            rest: match self.rest {
                Rest::Served(endpoint) => Rest::Served(layered(endpoint)),
                Rest::Refused(endpoint) => Rest::Refused(layered(endpoint)),
            },
            ..self
        }
    }

    /// Which handler serves a method.
    #[inline]
    fn endpoint(&self, method: &str) -> &dyn Endpoint {
        let find = |method: &str| {
            let mut methods = self.methods.iter();
            methods.find(|(other, _)| other == method).map(|(_, endpoint)| &**endpoint)
        };
        let get = || find("GET").filter(|_| method == "HEAD");
        find(method).or_else(get).unwrap_or(match &self.rest {
            Rest::Served(endpoint) | Rest::Refused(endpoint) => &**endpoint,
        })
    }

    fn list_methods(&mut self) -> Result<(), RouteError> {
        for (method, _) in &self.methods {
            if FieldLines::check_name(method).is_err() {
                return Err(RouteError::Method { method: method.clone() });
            }
        }
        if let Rest::Served(_) = self.rest {
            self.allowed = ALL_METHODS.to_owned();
            return Ok(());
        }
        let mut allowed: Vec<&str> = self.methods.iter().map(|(method, _)| &**method).collect();
        for (method, comes_with) in [("HEAD", "GET"), ("OPTIONS", "")] {
            let comes = comes_with.is_empty() || allowed.contains(&comes_with);
            if comes && !allowed.contains(&method) {
                allowed.push(method);
            }
        }
        self.allowed = allowed.join(", ");
        Ok(())
    }
}

/// Answers a method for which a path has no handler.
fn refuse_method(exchange: Exchange<'_>) -> Result<Answered, Failure> {
    let allowed = exchange.allowed().unwrap_or_default();
    if exchange.method() == "OPTIONS" {
        return Ok(exchange.respond(StatusCode::NO_CONTENT).field("Allow", allowed)?.empty());
    }
    let status = StatusCode::METHOD_NOT_ALLOWED;
    Ok(exchange.respond(status).field("Allow", allowed)?.text(&format!("{status}\n")))
}

/// A [`Router`] that is built: the [`Handler`] of a server. Clones share it.
pub struct Routes<M = ()>(Arc<Table<M>>);

struct Table<M> {
    layers: M,
    tree: matchit::Router<Route>,
    fallback: Box<dyn Endpoint>,
}

impl<M: Middleware> Handler for Routes<M> {
    type State = ();

    fn on_head(&mut self, head: &RequestHead<'_>, (): &mut ()) -> Result<Intake, Failure> {
        let Table { layers, tree, fallback } = &*self.0;
        let endpoint = match tree.at(head.path()) {
            Ok(found) => found.value.endpoint(head.method()),
            Err(_) => &**fallback,
        };
        Ok(layers.on_head(head)?.and(endpoint.on_head(head)?))
    }

    /// The layers see it, as they see any other failure.
    fn on_refused(
        &mut self,
        exchange: Exchange<'_>,
        failure: Failure,
    ) -> Result<Answered, Failure> {
        let Table { layers, tree, fallback } = &*self.0;
        let Ok(found) = tree.at(exchange.path()) else {
            return layers
                .handle(exchange, |exchange: Exchange<'_>| fallback.refuse(exchange, failure));
        };
        let matched = Matched::new(found.value, found.params);
        exchange.with_matched(&matched, |exchange: Exchange<'_>| {
            layers.handle(exchange, |exchange: Exchange<'_>| {
                found.value.endpoint(exchange.method()).refuse(exchange, failure)
            })
        })
    }

    #[inline]
    fn handle(&mut self, exchange: Exchange<'_>) -> Result<Answered, Failure> {
        let Table { layers, tree, fallback } = &*self.0;
        match tree.at(exchange.path()) {
            Ok(found) => {
                let matched = Matched::new(found.value, found.params);
                exchange.with_matched(&matched, |exchange: Exchange<'_>| {
                    layers.handle(exchange, |exchange: Exchange<'_>| {
                        matched.check()?;
                        found.value.endpoint(exchange.method()).handle(exchange)
                    })
                })
            }
            Err(_) => layers.handle(exchange, |exchange: Exchange<'_>| match exchange.path() {
                "*" => Ok(exchange.respond(StatusCode::NO_CONTENT).empty()),
                _ => fallback.handle(exchange),
            }),
        }
    }
}

impl<M> Clone for Routes<M> {
    fn clone(&self) -> Self {
        Routes(Arc::clone(&self.0))
    }
}

impl<M> fmt::Debug for Routes<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").finish_non_exhaustive()
    }
}

impl<M> fmt::Debug for Router<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let patterns: Vec<&str> = self.routes.iter().map(|route| &*route.pattern).collect();
        let mut debug = f.debug_struct("Router");
        debug.field("patterns", &patterns).field("error", &self.error).finish_non_exhaustive()
    }
}
