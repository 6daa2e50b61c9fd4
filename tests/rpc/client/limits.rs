//! What limits a client, and what happens there.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use millstream::Backoff;
use millstream::rpc::{Code, Request, RetryPolicy, Status};
use socket2::{Domain, Socket, Type};

use super::puppet::{self, Seen, Stage};
use super::{ask, begin, block_on, builder, code, echo, finish, receive};
use crate::common::{eventually, pattern};

use crate::common::wire::Wire;

with_and_without_tls! {
    without_a_server_calls_that_wait_for_one_end_at_their_deadline_and_in_bounds
    a_call_fails_at_once_where_nobody_listens
    all_addresses_are_tried_before_a_call_fails
    a_call_fails_only_while_an_address_is_left_alone
    so_many_calls_are_in_flight_and_the_others_wait
    a_cancelled_call_makes_room_for_one_that_waits
    large_requests_wait_for_room_and_all_arrive
    more_requests_than_may_wait_are_refused_and_the_others_arrive
    an_upload_that_is_slower_than_its_deadline_is_completed_and_cancelled
    what_is_too_long_is_refused_and_the_connection_goes_on
    a_stopped_client_refuses_calls
}

/// An address where nobody listens, nor will: a socket that does not listen has the port until the
/// process ends.
fn nowhere() -> String {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("there is a socket");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).expect("a port is free");
    let address = socket.local_addr().expect("it is bound").as_socket().expect("it is one");
    std::mem::forget(socket);
    address.to_string()
}

fn without_a_server_calls_that_wait_for_one_end_at_their_deadline_and_in_bounds(wire: Wire) {
    let backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(20));
    let builder = builder(wire, nowhere()).max_open(3, 100).reconnect(backoff).wait_for_ready(true);
    let client = builder.build().expect("it starts");
    let short = Duration::from_millis(300);
    let begun = Instant::now();
    let waiting: Vec<_> =
        (0..3).map(|_| begin(&client, echo(vec![0; 20]).timeout(short))).collect();
    assert_eq!(code(&client.call(echo(""))), Code::ResourceExhausted, "one call too many");
    for ended in waiting {
        let status = receive(&ended).expect_err("nobody is there");
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert!(status.message().contains("cannot connect"), "{status}");
    }
    assert!(begun.elapsed() >= short);
    let status = client.call(echo(vec![0; 100])).expect_err("it is too much");
    assert_eq!(status.code(), Code::ResourceExhausted, "too many bytes");
    let stats = finish(&client);
    assert!(stats.connect_failures > 1, "it tries again: {stats:?}");
    assert_eq!((stats.failed, stats.connected), (5, 0));
}

fn a_call_fails_at_once_where_nobody_listens(wire: Wire) {
    let long = Backoff::new(Duration::from_secs(600), Duration::from_secs(600));
    let (builder, hour) = (builder(wire, nowhere()).address(nowhere()), Duration::from_secs(3600));
    let client = builder.reconnect(long).timeout(hour).build().expect("it starts");
    for _ in 0..3 {
        for request in [echo(""), echo("").idempotent(true)] {
            let status = receive(&begin(&client, request)).expect_err("nobody is there");
            assert_eq!(status.code(), Code::Unavailable);
            assert!(status.message().contains("cannot connect"), "{status}");
        }
    }
    let waiting = begin(&client, echo("").wait_for_ready(true).timeout(Duration::from_millis(50)));
    assert_eq!(code(&receive(&waiting)), Code::DeadlineExceeded);
    let stats = finish(&client);
    assert_eq!((stats.connect_failures, stats.retried), (2, 0), "each address was tried once");
}

/// One that can't be reached costs no call as long as it is not known that no other can.
fn all_addresses_are_tried_before_a_call_fails(wire: Wire) {
    let stage = Stage::new(wire);
    let builder = builder(wire, nowhere()).address(stage.address()).address(nowhere());
    let client = builder.build().expect("it starts");
    for _ in 0..10 {
        client.call(echo("")).expect("it is answered");
    }
    finish(&client);
}

/// A client that failed at once finds a server that has come since.
fn a_call_fails_only_while_an_address_is_left_alone(wire: Wire) {
    let backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(20));
    let unused = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = unused.local_addr().expect("it is bound").to_string();
    drop(unused);
    let client = builder(wire, address.clone()).reconnect(backoff).build().expect("it starts");
    assert_eq!(code(&client.call(echo(""))), Code::Unavailable);
    let _stage = Stage::at(wire, &address, true);
    eventually("it is answered", || client.call(echo("")).is_ok());
    finish(&client);
}

fn so_many_calls_are_in_flight_and_the_others_wait(wire: Wire) {
    let stage = Stage::new(wire);
    let client = builder(wire, stage.address()).max_in_flight(2).build().expect("it starts");
    let calls: Vec<_> = ["a", "b", "c"].map(|body| client.start(ask(body))).into();
    let (first, second) = (stage.request(), stage.request());
    assert_eq!(client.stats().in_flight, 3);
    first.answer(b"");
    let third = stage.request();
    assert_eq!((&*second.body, &*third.body), (&b"b"[..], &b"c"[..]));
    second.answer(b"");
    third.answer(b"");
    for calling in calls {
        block_on(calling).expect("it is answered");
    }
    finish(&client);
}

fn a_cancelled_call_makes_room_for_one_that_waits(wire: Wire) {
    let stage = Stage::new(wire);
    let client = builder(wire, stage.address()).max_in_flight(1).build().expect("it starts");
    let first = client.start(ask("first"));
    stage.request();
    let second = client.start(ask("second"));
    let third = client.start(ask("third"));
    drop(second);
    drop(first);
    let asked = stage.request();
    assert_eq!(asked.body, b"third");
    asked.answer(b"");
    block_on(third).expect("it is answered");
    finish(&client);
}

fn large_requests_wait_for_room_and_all_arrive(wire: Wire) {
    const LEN: usize = 300_000;
    let stage = Stage::new(wire);
    let client = builder(wire, stage.address()).max_unsent(64 * 1024).build().expect("it starts");
    let bodies: Vec<Vec<u8>> = (0..60).map(|seed| pattern(LEN, seed)).collect();
    let calls: Vec<_> = bodies.iter().map(|body| client.start(echo(body.clone()))).collect();
    for (calling, body) in calls.into_iter().zip(&bodies) {
        let response = block_on(calling).expect("it is answered");
        assert!(response.body == body, "an echo is another one");
    }
    finish(&client);
}

/// A server that reads nothing for a while costs those calls that are too much, at once, and no
/// connection.
fn more_requests_than_may_wait_are_refused_and_the_others_arrive(wire: Wire) {
    const LEN: usize = 1024 * 1024;
    let stage = Stage::new(wire);
    let client = builder(wire, stage.address()).build().expect("it starts");
    client.call(echo("")).expect("it is answered");
    let peer = stage.next(|seen| match seen {
        Seen::Open(peer) => Some(peer),
        _ => None,
    });
    let (paused, is_paused) = std::sync::mpsc::channel();
    puppet::send(&peer, move |conn| {
        conn.pause_reading();
        let _ = paused.send(());
    });
    receive(&is_paused);
    let body = pattern(LEN, 3);
    let ended: Vec<_> = (0..80).map(|_| begin(&client, echo(body.clone()))).collect();
    puppet::send(&peer, |conn| {
        conn.resume_reading();
    });
    let (mut came, mut refused) = (0, 0);
    for ended in ended {
        match receive(&ended) {
            Ok(response) => {
                assert!(response.body == body, "an echo is another one");
                came += 1;
            }
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                refused += 1;
            }
        }
    }
    assert_eq!((came, refused), (63, 17), "64 MiB may be open, heads included");
    assert_eq!(finish(&client).connected, 1);
}

/// A request whose deadline comes while it is being sent ends in time; its frame is completed, and
/// cancelled.
fn an_upload_that_is_slower_than_its_deadline_is_completed_and_cancelled(wire: Wire) {
    let stage = Stage::new(wire);
    let client = builder(wire, stage.address()).build().expect("it starts");
    client.call(echo("")).expect("it is answered");
    let peer = stage.next(|seen| match seen {
        Seen::Open(peer) => Some(peer),
        _ => None,
    });
    let (paused, is_paused) = std::sync::mpsc::channel();
    puppet::send(&peer, move |conn| {
        conn.pause_reading();
        let _ = paused.send(());
    });
    receive(&is_paused);
    let body = pattern(8 * 1024 * 1024, 5);
    let request = Request::new("t/ask").body(body.clone()).timeout(Duration::from_millis(300));
    assert_eq!(code(&client.call(request)), Code::DeadlineExceeded);
    puppet::send(&peer, |conn| {
        conn.resume_reading();
    });
    let asked = stage.request();
    assert!(asked.body == body, "the frame was cut");
    let cancelled = stage.next(|seen| match seen {
        Seen::Cancel(id) => Some(id),
        _ => None,
    });
    assert_eq!(cancelled, asked.id);
    assert_eq!(client.call(echo("goes on")).expect("it is answered").body, "goes on");
    assert_eq!(finish(&client).connected, 1);
}

fn what_is_too_long_is_refused_and_the_connection_goes_on(wire: Wire) {
    let mut limits = millstream::rpc::FrameLimits::default();
    (limits.max_head, limits.max_body) = (100, 1000);
    let stage = Stage::new(wire);
    let builder = builder(wire, stage.address()).frame_limits(limits).retry(RetryPolicy::never());
    let client = builder.build().expect("it starts");
    let status = client.call(echo(vec![0; 1001])).expect_err("it is too long");
    assert_eq!(status.message(), "the body of the request has 1001 bytes, at most 1000 may be");
    let long = echo("").metadata("key", [0; 100]).expect("it is metadata");
    assert_eq!(code(&client.call(long)), Code::ResourceExhausted);
    let name = "m".repeat(256);
    assert_eq!(code(&client.call(Request::new(name))), Code::InvalidArgument);

    let ended = begin(&client, ask(""));
    stage.request().answer(&[0; 1001]);
    let status = receive(&ended).expect_err("the response is too long");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert_eq!(client.call(echo(vec![1; 1000])).expect("it is answered").body, vec![1; 1000]);
    assert_eq!(finish(&client).connected, 1);
}

fn a_stopped_client_refuses_calls(wire: Wire) {
    let stage = Stage::new(wire);
    let client = builder(wire, stage.address()).build().expect("it starts");
    client.call(echo("")).expect("it is answered");
    finish(&client);
    let stopped = Status::unavailable("the client has stopped");
    assert_eq!(client.call(echo("")), Err(stopped.clone()));
    assert_eq!(receive(&begin(&client, echo(""))), Err(stopped.clone()));
    assert_eq!(block_on(client.start(echo(""))), Err(stopped));
    eventually("all are counted", || client.stats().failed == 3);
    finish(&client);
}
