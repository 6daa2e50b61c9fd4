//! Telling which services and methods there are.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use super::router::Router;
use crate::rpc::call::Call;
use crate::rpc::status::Status;

impl Router {
    /// Adds the service `millstream.Reflection`, which lists services and methods, those that are
    /// added later and itself included.
    pub fn reflection(self) -> Self {
        let names = Arc::clone(&self.names);
        add_to(self, names)
    }
}

/// Adds the two methods, whose answers have one name a line, in order:
/// `millstream.Reflection/services` has the services, and `millstream.Reflection/methods` the
/// methods, of the service that the body names or, if it is empty, of all. A service that is not
/// there is [`Code::NotFound`](crate::rpc::Code::NotFound).
fn add_to(router: Router, names: Arc<RwLock<Vec<String>>>) -> Router {
    let all = Arc::clone(&names);
    router
        .method("millstream.Reflection/services", move |call: &mut Call<'_>| {
            let names = names.read().unwrap_or_else(PoisonError::into_inner);
            call.answer(lines(names.iter().map(|name| service_of(name))).as_bytes())
        })
        .method("millstream.Reflection/methods", move |call: &mut Call<'_>| {
            let names = all.read().unwrap_or_else(PoisonError::into_inner);
            let wanted = call.body();
            let is_wanted =
                |name: &&str| wanted.is_empty() || service_of(name).as_bytes() == wanted;
            let methods = lines(names.iter().map(String::as_str).filter(is_wanted));
            if methods.is_empty() {
                let service = wanted.escape_ascii();
                return Err(Status::not_found(format!("there is no service \"{service}\"")));
            }
            call.answer(methods.as_bytes())
        })
}

/// What stands before the last `/`.
fn service_of(method: &str) -> &str {
    method.rsplit_once('/').map_or(method, |(service, _)| service)
}

/// Each of them once, in order, each in a line.
fn lines<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: BTreeSet<&str> = names.collect();
    names.into_iter().flat_map(|name| [name, "\n"]).collect()
}
