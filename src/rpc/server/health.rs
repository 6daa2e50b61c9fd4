//! Telling whether a service serves.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use super::router::Router;
use crate::rpc::call::{Answer, Call};
use crate::rpc::status::Status;

/// Whether a server and its services serve: what the service `millstream.Health` answers. A clone
/// is the same one, for any thread.
///
/// Its method `millstream.Health/check` takes the name of a service, or nothing for the server as a
/// whole, and answers with nothing if it serves. Else the call fails with
/// [`Code::Unavailable`](crate::rpc::Code::Unavailable), or with
/// [`Code::NotFound`](crate::rpc::Code::NotFound) if that was never set.
///
/// ```
/// use millstream::rpc::{Health, Router, Server};
///
/// let health = Health::new();
/// health.set("demo.Numbers", false); // Until its data is loaded.
/// let server = Server::new().serve(Router::new().health(&health));
/// health.set("demo.Numbers", true); // On any thread.
/// # let _ = server;
/// ```
#[derive(Clone, Default)]
pub struct Health {
    services: Arc<RwLock<HashMap<String, bool>>>,
}

impl Health {
    /// Of a server that serves as a whole, and of whose services nothing is known yet.
    pub fn new() -> Self {
        let health = Health::default();
        health.set("", true);
        health
    }

    /// Sets whether a service serves; the empty name stands for the server as a whole.
    pub fn set(&self, service: &str, serves: bool) {
        let mut services = self.services.write().unwrap_or_else(PoisonError::into_inner);
        services.insert(service.to_owned(), serves);
    }

    /// Whether a service serves; `None` if that was never set.
    pub fn get(&self, service: &str) -> Option<bool> {
        self.services.read().unwrap_or_else(PoisonError::into_inner).get(service).copied()
    }

    fn check(&self, call: &mut Call<'_>) -> Result<Answer, Status> {
        let service = std::str::from_utf8(call.body())
            .map_err(|error| Status::invalid_argument(format!("the name of a service: {error}")))?;
        match self.get(service) {
            Some(true) => call.answer(&[]),
            Some(false) => Err(Status::unavailable(format!("{service:?} does not serve"))),
            None => Err(Status::not_found(format!("nothing is known of {service:?}"))),
        }
    }
}

impl Router {
    /// Adds the service `millstream.Health`, which tells what `health` was set to.
    pub fn health(self, health: &Health) -> Self {
        let health = health.clone();
        self.method("millstream.Health/check", move |call: &mut Call<'_>| health.check(call))
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_map().entries(services.iter()).finish()
    }
}
