//! Health and reflection.

use std::sync::mpsc::channel;

use millstream::rpc::{Code, Health, Server};

use crate::common::rpc::{Got, on_each, router};

#[test]
fn health_is_what_was_set() {
    let health = Health::new();
    let (later, _replies) = channel();
    let shown = health.clone();
    let router = move || router(later.clone()).health(&shown);
    on_each(&Server::new(), router, |caller| {
        let check = "millstream.Health/check";
        caller.call(1, check, b"");
        assert_eq!(caller.next(), Got::ok(1, b""), "the server as a whole");
        caller.call(2, check, b"never.Heard");
        assert_eq!(caller.next().verdict(), (2, false, Code::NotFound));
        health.set("demo.Service", false);
        caller.call(3, check, b"demo.Service");
        assert_eq!(caller.next().verdict(), (3, false, Code::Unavailable));
        health.set("demo.Service", true);
        caller.call(4, check, b"demo.Service");
        assert_eq!(caller.next(), Got::ok(4, b""));
        caller.call(5, check, b"\xff");
        assert_eq!(caller.next().verdict(), (5, false, Code::InvalidArgument));
    });
}

#[test]
fn reflection_lists_services_and_methods() {
    let (later, _replies) = channel();
    let router = move || router(later.clone()).reflection().health(&Health::new());
    on_each(&Server::new(), router, |caller| {
        caller.call(1, "millstream.Reflection/services", b"");
        let services = b"millstream.Health\nmillstream.Reflection\ntest\n";
        assert_eq!(caller.next(), Got::ok(1, services));
        caller.call(2, "millstream.Reflection/methods", b"millstream.Reflection");
        let methods = b"millstream.Reflection/methods\nmillstream.Reflection/services\n";
        assert_eq!(caller.next(), Got::ok(2, methods));
        caller.call(3, "millstream.Reflection/methods", b"no.Such");
        assert_eq!(caller.next().verdict(), (3, false, Code::NotFound));
        caller.call(4, "millstream.Reflection/methods", b"");
        let Got::Response { body, .. } = caller.next() else { panic!() };
        let all = String::from_utf8(body).expect("names");
        assert_eq!(all.lines().count(), 10);
        assert!(all.lines().is_sorted() && all.contains("test/echo\n"));
    });
}
