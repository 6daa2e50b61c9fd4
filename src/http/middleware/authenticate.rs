//! Who asks, and whether they may.

use std::any::Any;
use std::fmt;

use data_encoding::BASE64;
use subtle::ConstantTimeEq;

use super::{Middleware, Next};
use crate::http::fields::{FieldError, FieldLines};
use crate::http::server::{Answered, Exchange, Failure};
use crate::http::status::StatusCode;

/// Lets a function look at who asks, before a request goes on: at the name and the password of
/// [`basic`](Self::basic) authentication (RFC 7617), or at the token of [`bearer`](Self::bearer)
/// authentication (RFC 6750).
///
/// What the function returns, most often who the user is, is a [value](Exchange::value) of the
/// request for what is behind this layer. Without it the client is told 401, and which scheme is
/// wanted. Both schemes are for connections with TLS. Compare secrets by [`Secret`].
///
/// ```
/// use millstream::http::{Authenticate, FieldError, Router, Secret, StatusCode};
///
/// struct User(&'static str);
///
/// let token = Secret::new("sesame");
/// let bearer = Authenticate::bearer("office", move |given: &str| {
///     token.is(given).then_some(User("ali"))
/// })?;
/// let router = Router::new().layer(bearer).get("/me", |exchange| {
///     let name = exchange.value::<User>().map_or("nobody", |user| user.0);
///     Ok(exchange.respond(StatusCode::OK).text(name))
/// });
/// # Ok::<(), FieldError>(())
/// ```
#[derive(Clone)]
pub struct Authenticate<S> {
    scheme: S,
    /// What clients are told that have said nothing, or the wrong thing.
    challenge: FieldLines,
}

/// Name and password.
#[derive(Clone, Copy)]
pub struct Basic<F>(F);

/// A token.
#[derive(Clone, Copy)]
pub struct Bearer<F>(F);

impl<F: Fn(&str, &str) -> Option<T>, T: Any> Authenticate<Basic<F>> {
    /// Lets requests go on for whose name and password `function` returns something. The realm is
    /// what browsers show their users.
    ///
    /// # Errors
    /// The realm has a character that may not be in a field.
    pub fn basic(realm: &str, function: F) -> Result<Self, FieldError> {
        let challenge = format!("Basic realm={}, charset=\"UTF-8\"", quoted(realm));
        Authenticate::new(Basic(function), &challenge)
    }
}

impl<F: Fn(&str) -> Option<T>, T: Any> Authenticate<Bearer<F>> {
    /// Lets requests go on for whose token `function` returns something.
    ///
    /// # Errors
    /// The realm has a character that may not be in a field.
    pub fn bearer(realm: &str, function: F) -> Result<Self, FieldError> {
        Authenticate::new(Bearer(function), &format!("Bearer realm={}", quoted(realm)))
    }
}

impl<S> Authenticate<S> {
    fn new(scheme: S, challenge: &str) -> Result<Self, FieldError> {
        let mut fields = FieldLines::new();
        fields.push("WWW-Authenticate", challenge)?;
        Ok(Authenticate { scheme, challenge: fields })
    }

    /// Passes a request on with who asks, or asks for that.
    fn go_on<T: Any>(
        &self,
        found: Option<T>,
        mut exchange: Exchange<'_>,
        next: impl Next,
    ) -> Result<Answered, Failure> {
        match found {
            Some(found) => exchange.with_value(&found, next),
            None => {
                exchange.outgoing().append(&self.challenge);
                Err(StatusCode::UNAUTHORIZED.into())
            }
        }
    }
}

/// A quoted string (RFC 9110, section 5.6.4).
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// What follows the scheme in the field Authorization, if there is one such field.
fn credentials<'e>(exchange: &Exchange<'e>, scheme: &str) -> Option<&'e [u8]> {
    let fields = exchange.fields();
    let mut values = fields.get_all("Authorization");
    let value = values.next().filter(|_| values.next().is_none())?;
    let (name, rest) = value.split_at_checked(scheme.len())?;
    let rest = rest.strip_prefix(b" ")?.trim_ascii();
    name.eq_ignore_ascii_case(scheme.as_bytes()).then_some(rest)
}

impl<F, T> Middleware for Authenticate<Basic<F>>
where
    F: Fn(&str, &str) -> Option<T> + Send + Sync + 'static,
    T: Any,
{
    fn handle(&self, exchange: Exchange<'_>, next: impl Next) -> Result<Answered, Failure> {
        let given = credentials(&exchange, "Basic").and_then(|text| BASE64.decode(text).ok());
        let given = given.and_then(|bytes| String::from_utf8(bytes).ok());
        let given = given.as_deref().and_then(|text| text.split_once(':'));
        let found = given.and_then(|(name, password)| (self.scheme.0)(name, password));
        self.go_on(found, exchange, next)
    }
}

impl<F, T> Middleware for Authenticate<Bearer<F>>
where
    F: Fn(&str) -> Option<T> + Send + Sync + 'static,
    T: Any,
{
    fn handle(&self, exchange: Exchange<'_>, next: impl Next) -> Result<Answered, Failure> {
        let token =
            credentials(&exchange, "Bearer").and_then(|text| std::str::from_utf8(text).ok());
        let found = token.and_then(|token| (self.scheme.0)(token));
        self.go_on(found, exchange, next)
    }
}

impl<S> fmt::Debug for Authenticate<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticate").field("challenge", &self.challenge).finish_non_exhaustive()
    }
}

/// A password or a token, which is compared without telling by the time where a guess goes wrong;
/// only its length can be told. It is not shown by `Debug`.
#[derive(Clone)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// This secret.
    pub fn new(secret: impl Into<Vec<u8>>) -> Self {
        Secret(secret.into().into_boxed_slice())
    }

    /// Whether it is the same.
    pub fn is(&self, guess: impl AsRef<[u8]>) -> bool {
        self.0.ct_eq(guess.as_ref()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}
