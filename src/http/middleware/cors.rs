//! What pages of other origins may do (CORS, in the Fetch standard).

use std::time::Duration;

use super::{Middleware, Next};
use crate::http::fields::{FieldError, FieldLines, Fields};
use crate::http::server::{Answered, Exchange, Failure};
use crate::http::status::StatusCode;

/// Lets pages of other origins see responses, and answers the preflight requests in which browsers
/// ask what such a page may send.
///
/// A preflight request is answered here, if its path has a route, and comes to no layer further
/// inside: so this layer belongs outside of those that authenticate. It allows the methods that the
/// path has. A request of an origin that is not allowed is served like any other; the browser keeps
/// the response from the page.
///
/// ```
/// use std::time::Duration;
///
/// use millstream::http::{Cors, FieldError, Router};
///
/// let cors = Cors::origins(["https://app.example"])
///     .allow_credentials()
///     .allow_fields(["Authorization", "Content-Type"])?
///     .max_age(Duration::from_secs(600));
/// let router = Router::new().layer(cors);
/// # Ok::<(), FieldError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Cors {
    /// None for all.
    origins: Option<Box<[Box<str>]>>,
    credentials: bool,
    /// What is said of responses.
    response: FieldLines,
    /// What is said to preflight requests.
    preflight: FieldLines,
}

impl Cors {
    /// Allows these origins, written as browsers write them: `https://app.example`, with the port
    /// if it is not the scheme's own, and without a slash at the end.
    pub fn origins<O: Into<Box<str>>>(origins: impl IntoIterator<Item = O>) -> Self {
        Cors { origins: Some(origins.into_iter().map(Into::into).collect()), ..Self::any() }
    }

    /// Allows all origins, as for what is public. There are no credentials with it.
    pub fn any() -> Self {
        Cors {
            origins: None,
            credentials: false,
            response: FieldLines::new(),
            preflight: FieldLines::new(),
        }
    }

    /// Has pages send cookies and what else says who the user is. With [`any`](Self::any) this has
    /// no effect, as browsers refuse the two together.
    pub fn allow_credentials(mut self) -> Self {
        self.credentials = self.origins.is_some();
        self
    }

    /// Has pages send these fields besides the few that need no permission. `Content-Type` is
    /// needed for JSON.
    ///
    /// # Errors
    /// One is not a field's name.
    pub fn allow_fields<'n>(
        mut self,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Result<Self, FieldError> {
        push_list(&mut self.preflight, "Access-Control-Allow-Headers", names)?;
        Ok(self)
    }

    /// Has pages see these fields of responses besides the few that need no permission.
    ///
    /// # Errors
    /// One is not a field's name.
    pub fn expose_fields<'n>(
        mut self,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Result<Self, FieldError> {
        push_list(&mut self.response, "Access-Control-Expose-Headers", names)?;
        Ok(self)
    }

    /// How long browsers remember what they were told, in whole seconds; by default five.
    pub fn max_age(mut self, age: Duration) -> Self {
        let seconds = age.as_secs().to_string();
        self.preflight.push_valid("Access-Control-Max-Age", seconds.as_bytes());
        self
    }

    /// What is said of the origin, in each response.
    fn push_origin(&self, request: Fields<'_>, outgoing: &mut FieldLines) -> bool {
        let origin = request.get("Origin");
        let Some(origins) = &self.origins else {
            outgoing.push_valid("Access-Control-Allow-Origin", b"*");
            return origin.is_some();
        };
        // Also without an origin: a cache must not give one origin what another one was told.
        outgoing.push_valid("Vary", b"Origin");
        let is_allowed = |origin: &&[u8]| origins.iter().any(|known| known.as_bytes() == *origin);
        let Some(origin) = origin.filter(is_allowed) else { return false };
        outgoing.push_valid("Access-Control-Allow-Origin", origin);
        if self.credentials {
            outgoing.push_valid("Access-Control-Allow-Credentials", b"true");
        }
        true
    }
}

/// Adds a field with the names of others.
fn push_list<'n>(
    fields: &mut FieldLines,
    name: &str,
    names: impl IntoIterator<Item = &'n str>,
) -> Result<(), FieldError> {
    let mut list = String::new();
    for name in names {
        FieldLines::check_name(name)?;
        if !list.is_empty() {
            list += ", ";
        }
        list += name;
    }
    fields.push(name, list)
}

impl Middleware for Cors {
    fn handle(&self, mut exchange: Exchange<'_>, next: impl Next) -> Result<Answered, Failure> {
        let request = exchange.fields();
        let is_allowed = self.push_origin(request, exchange.outgoing());
        let asks = exchange.method() == "OPTIONS"
            && request.get("Origin").is_some()
            && request.get("Access-Control-Request-Method").is_some();
        match exchange.allowed() {
            Some(methods) if asks => {
                if is_allowed {
                    let outgoing = exchange.outgoing();
                    outgoing.push_valid("Access-Control-Allow-Methods", methods.as_bytes());
                    outgoing.append(&self.preflight);
                }
                Ok(exchange.respond(StatusCode::NO_CONTENT).empty())
            }
            _ => {
                if is_allowed {
                    exchange.outgoing().append(&self.response);
                }
                next.handle(exchange)
            }
        }
    }
}
