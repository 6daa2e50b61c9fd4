//! Requests in flight, of one connection and in total; frames that are too long.

use std::sync::mpsc::channel;

use millstream::rpc::frame::Frame;
use millstream::rpc::{Code, FrameLimits, Server};

use crate::common::rpc::{Caller as _, Got, SimCaller, on_each, request, router};
use crate::common::wire::Wire;
use crate::common::{pattern, receive};

#[test]
fn a_connection_has_only_so_many_requests_in_flight() {
    let (later, replies) = channel();
    let server = Server::new().max_in_flight(2);
    let mut caller = SimCaller::new(1, server.serve(router(later)));
    for id in 1..=3 {
        caller.call(id, "test/later", b"");
    }
    assert_eq!(caller.next().verdict(), (3, true, Code::Unavailable));
    assert_eq!(server.stats().in_flight, 2);
    receive(&replies).send("one");
    assert_eq!(caller.next(), Got::ok(1, b"one"));
    caller.call(4, "test/later", b"");
    caller.send(Frame::Cancel { id: 2 });
    caller.call(5, "test/echo", b"");
    assert_eq!(caller.next().verdict(), (5, true, Code::Unavailable), "it is worked on");
    let cancelled = receive(&replies);
    assert!(cancelled.is_cancelled());
    drop(cancelled);
    caller.call(6, "test/echo", b"there is room again");
    assert_eq!(caller.next(), Got::ok(6, b"there is room again"));
    drop((caller, replies));
    assert_eq!(server.stats().in_flight, 0);
}

/// Neither cancels nor new connections have a server do more at a time than it allows.
#[test]
fn cancelled_calls_count_while_somebody_works_on_them() {
    let (later, replies) = channel();
    let server = Server::new().max_in_flight(2).max_in_flight_total(3);
    let mut caller = SimCaller::new(1, server.serve(router(later)));
    for most in [2, 3] {
        for id in 1..=100 {
            caller.call(id, "test/later", b"");
            caller.send(Frame::Cancel { id });
        }
        caller.pass(std::time::Duration::from_secs(1));
        assert_eq!(server.stats().in_flight, most);
        caller.peer = Wire::Plain.meet(&mut caller.simulation);
    }
    assert_eq!(replies.try_iter().count(), 3);
    assert_eq!(server.stats().in_flight, 0);
}

#[test]
fn a_server_has_only_so_many_requests_in_flight() {
    let (later, replies) = channel();
    let server = Server::new().max_in_flight_total(3);
    let mut first = SimCaller::new(1, server.serve(router(later.clone())));
    let mut second = SimCaller::new(2, server.serve(router(later)));
    for id in 1..=2 {
        first.call(id, "test/later", b"");
        first.pass(std::time::Duration::from_secs(1));
        second.call(id, "test/later", b"");
        second.pass(std::time::Duration::from_secs(1));
    }
    assert_eq!(second.next().verdict(), (2, true, Code::Unavailable));
    let first_reply = receive(&replies);
    first_reply.send("");
    assert_eq!(first.next(), Got::ok(1, b""));
    second.call(3, "test/echo", b"x");
    assert_eq!(second.next(), Got::ok(3, b"x"));
    drop((first, second, replies));
    let stats = server.stats();
    assert_eq!((stats.in_flight, stats.refused, stats.cancelled), (0, 1, 2));
    assert_eq!(stats.started, stats.ended);
}

#[test]
fn frames_that_are_too_long_are_passed_over() {
    let (later, _replies) = channel();
    let mut limits = FrameLimits::default();
    (limits.max_head, limits.max_body) = (64, 100);
    let server = Server::new().frame_limits(limits);
    on_each(
        &server,
        move || router(later.clone()),
        |caller| {
            let longest = pattern(100, 1);
            caller.call(1, "test/echo", &longest);
            assert_eq!(caller.next(), Got::ok(1, &longest));
            caller.call(2, "test/echo", &pattern(101, 1));
            assert_eq!(caller.next().verdict(), (2, true, Code::ResourceExhausted));
            caller.call(3, "test/echo", &pattern(1_000_000, 1));
            assert_eq!(caller.next().verdict(), (3, true, Code::ResourceExhausted));
            caller.send(Frame::Request(request(4, &"m".repeat(64), b"")));
            assert_eq!(caller.next().verdict(), (4, true, Code::ResourceExhausted));
            caller.send(Frame::Request(request(5, &"m".repeat(63), b"")));
            assert_eq!(caller.next().verdict(), (5, true, Code::Unimplemented));
        },
    );
}
