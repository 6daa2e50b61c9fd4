//! Keep-alive, idleness, half-close, and the orderly end.

use std::sync::mpsc::channel;
use std::time::Duration;

use millstream::Engine;
use millstream::rpc::frame::{Frame, Request};
use millstream::rpc::{Call, Code, Reply, Server, Status};

use crate::common::rpc::{
    Caller as _, Got, SimCaller, TcpCaller, bytes_of, on_each, request, router,
};
use crate::common::wire::{Far as _, Wire};
use crate::common::{pattern, receive};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_ping_is_answered() {
    let (later, _replies) = channel();
    on_each(
        &Server::new(),
        move || router(later.clone()),
        |caller| {
            caller.send(Frame::Ping(77));
            assert_eq!(caller.next(), Got::Pong(77));
        },
    );
}

#[test]
fn a_peer_that_answers_pings_stays_and_one_that_does_not_goes() {
    let (later, replies) = channel();
    let server = Server::new().keepalive(10 * SECOND, 5 * SECOND);
    let mut caller = SimCaller::new(1, server.serve(router(later)));
    caller.call(1, "test/later", b"");
    for _ in 0..3 {
        assert_eq!(caller.next_within(9 * SECOND), None);
        assert_eq!(caller.next_within(2 * SECOND), Some(Got::Ping(0)));
        caller.send(Frame::Pong(0));
    }
    let reply = receive(&replies);
    assert!(!reply.is_cancelled());
    assert_eq!(caller.next_within(12 * SECOND), Some(Got::Ping(0)));
    assert_eq!(caller.next_within(4 * SECOND), None);
    let end = caller.next_within(2 * SECOND);
    assert_eq!(end, Some(Got::GoAway { last: 1, code: Code::Unavailable }));
    assert_eq!(caller.next(), Got::End);
    assert!(reply.is_cancelled());
}

#[test]
fn an_idle_connection_is_closed_and_one_that_waits_for_a_reply_is_not() {
    let (later, replies) = channel();
    let server = Server::new().idle_timeout(10 * SECOND);
    let mut caller = SimCaller::new(1, server.serve(router(later)));
    caller.call(1, "test/later", b"");
    assert_eq!(caller.next_within(60 * SECOND), None);
    receive(&replies).send("");
    assert_eq!(caller.next(), Got::ok(1, b""));
    assert_eq!(caller.next_within(9 * SECOND), None);
    assert_eq!(caller.next_within(2 * SECOND), Some(Got::GoAway { last: 1, code: Code::Ok }));
    assert_eq!(caller.next(), Got::End);
    // One that never sent anything.
    let mut silent = SimCaller::new(2, server.serve(router(channel().0)));
    assert_eq!(silent.next_within(9 * SECOND), None);
    assert_eq!(silent.next_within(2 * SECOND), Some(Got::GoAway { last: 0, code: Code::Ok }));
    assert_eq!(silent.next(), Got::End);
}

#[test]
fn a_peer_that_ends_its_side_gets_the_answers_it_waits_for() {
    let (later, replies) = channel();
    on_each(
        &Server::new(),
        move || router(later.clone()),
        |caller| {
            caller.call(1, "test/later", b"");
            caller.call(2, "test/echo", b"x");
            assert_eq!(caller.next(), Got::ok(2, b"x"));
            caller.end();
            assert_eq!(caller.next(), Got::Ping(0), "is there still somebody?");
            receive(&replies).send("late");
            assert_eq!(caller.next(), Got::ok(1, b"late"));
            assert_eq!(caller.next(), Got::End);
        },
    );
}

/// What the system does for a process that was killed, too.
#[test]
fn a_caller_that_closes_its_socket_is_seen() {
    let (later, replies) = channel();
    let server = Server::new();
    let engine = crate::common::TestEngine::start(Engine::builder().reactors(1), {
        let server = server.clone();
        move |_| server.serve(router(later.clone()))
    });
    let mut caller = TcpCaller::new(Wire::Plain, &engine);
    caller.call(1, "test/later", b"");
    let reply = receive(&replies);
    drop(caller);
    crate::common::eventually("nobody waits any more", || reply.is_cancelled());
    reply.send("to nobody");
}

#[test]
fn a_caller_that_is_gone_is_seen() {
    let (later, replies) = channel();
    let server = Server::new();
    let mut caller = SimCaller::new(1, server.serve(router(later)));
    caller.call(1, "test/later", b"");
    caller.pass(SECOND);
    let reply = receive(&replies);
    assert!(!reply.is_cancelled());
    let SimCaller { peer, simulation, .. } = &mut caller;
    std::mem::replace(peer, Wire::Plain.meet(simulation)).reset();
    caller.pass(SECOND);
    assert!(reply.is_cancelled());
    assert_eq!(server.stats().in_flight, 1);
    reply.send("to nobody");
    assert_eq!(server.stats().in_flight, 0);
    caller.call(1, "test/echo", b"the other connection");
    assert_eq!(caller.next(), Got::ok(1, b"the other connection"));
}

#[test]
fn a_stop_lets_what_is_in_flight_finish_and_takes_nothing_new() {
    let (later, replies) = channel();
    let server = Server::new();
    let mut caller = SimCaller::new(1, server.serve(router(later)));
    caller.call(4, "test/later", b"");
    caller.pass(SECOND);
    caller.simulation.stop(60 * SECOND).expect("it runs");
    assert_eq!(caller.next(), Got::GoAway { last: 4, code: Code::Ok });
    caller.call(5, "test/echo", b"");
    assert_eq!(caller.next().verdict(), (5, true, Code::Unavailable));
    assert_eq!(caller.next_within(30 * SECOND), None, "it waits for the reply");
    receive(&replies).send("in time");
    assert_eq!(caller.next(), Got::ok(4, b"in time"));
    assert_eq!(caller.next(), Got::End);
}

#[test]
fn a_stop_ends_at_its_deadline() {
    let (later, replies) = channel();
    let server = Server::new();
    let mut caller = SimCaller::new(1, server.serve(router(later)));
    caller.call(1, "test/later", b"");
    caller.pass(SECOND);
    caller.simulation.stop(10 * SECOND).expect("it runs");
    assert_eq!(caller.next(), Got::GoAway { last: 1, code: Code::Ok });
    assert_eq!(caller.next_within(9 * SECOND), None);
    assert_eq!(caller.next_within(2 * SECOND), Some(Got::End));
    assert!(receive(&replies).is_cancelled());
    assert_eq!(server.stats().in_flight, 0);
}

#[test]
fn a_real_engine_stops_when_its_calls_have_ended() {
    let (later, replies) = channel();
    let server = Server::new();
    let engine = crate::common::TestEngine::start(Engine::builder().reactors(2), {
        let server = server.clone();
        move |_| server.serve(router(later.clone()))
    });
    let mut callers: Vec<_> = (0..4).map(|_| TcpCaller::new(Wire::Plain, &engine)).collect();
    for caller in &mut callers {
        caller.call(1, "test/later", b"");
    }
    let waiting: Vec<_> = (0..4).map(|_| receive(&replies)).collect();
    engine.stop(crate::common::DEADLINE).expect("it runs");
    for caller in &mut callers {
        assert_eq!(caller.next(), Got::GoAway { last: 1, code: Code::Ok });
    }
    for reply in waiting {
        reply.send("done");
    }
    for caller in &mut callers {
        assert_eq!(caller.next(), Got::ok(1, b"done"));
        assert_eq!(caller.next(), Got::End);
    }
}

/// It can't answer a ping any more.
#[test]
fn a_peer_that_ended_its_side_is_not_lost_by_keepalive() {
    let (later, replies) = channel();
    let server = Server::new().keepalive(10 * SECOND, 5 * SECOND);
    let mut caller = SimCaller::new(1, server.serve(router(later)));
    caller.call(1, "test/later", b"");
    caller.end();
    for _ in 0..3 {
        assert_eq!(caller.next_within(11 * SECOND), Some(Got::Ping(0)), "it asks if it is there");
    }
    receive(&replies).send("late");
    assert_eq!(caller.next(), Got::ok(1, b"late"));
    assert_eq!(caller.next(), Got::End);
}

/// Pings stand behind the response, and pongs are not read before there is less of it.
#[test]
fn a_peer_that_reads_slowly_is_not_lost_by_keepalive() {
    let (later, replies) = channel();
    let server = Server::new().keepalive(10 * SECOND, 5 * SECOND);
    let mut caller = SimCaller::new(1, server.serve(router(later)));
    caller.call(1, "test/later", b"");
    caller.pass(SECOND);
    let body = pattern(300_000, 1);
    receive(&replies).send(body.clone());
    let mut received = Vec::new();
    // A header, and the length of no message.
    while received.len() < 26 + body.len() {
        assert!(!caller.peer.ended(), "after {} bytes", received.len());
        caller.pass(SECOND / 10);
        received.extend(caller.peer.receive());
    }
    assert_eq!(received[26..][..body.len()], body);
}

#[test]
fn a_connection_is_idle_from_the_end_of_its_last_call_on() {
    let (later, replies) = channel();
    let server = Server::new().idle_timeout(10 * SECOND);
    for cancels in [true, false] {
        let mut caller = SimCaller::new(1, server.serve(router(later.clone())));
        let timeout = Some(20 * SECOND);
        caller.send(Frame::Request(Request { timeout, ..request(1, "test/later", b"") }));
        assert_eq!(caller.next_within(19 * SECOND), None);
        let _reply = receive(&replies);
        if cancels {
            caller.send(Frame::Cancel { id: 1 });
        } else {
            assert!(caller.next_within(2 * SECOND).is_some());
        }
        assert_eq!(caller.next_within(9 * SECOND), None);
        assert_eq!(caller.next_within(2 * SECOND), Some(Got::GoAway { last: 1, code: Code::Ok }));
    }
}

#[test]
fn later_than_the_clock_can_tell_is_never() {
    let never = Duration::MAX;
    for server in [Server::new().idle_timeout(never), Server::new().keepalive(never, never)] {
        let mut caller = SimCaller::new(1, server.serve(router(channel().0)));
        caller.call(1, "test/echo", b"x");
        assert_eq!(caller.next(), Got::ok(1, b"x"));
    }
}

#[test]
fn all_calls_end_when_a_hook_panics() {
    crate::common::silence_expected_panics();
    let (later, replies) = channel::<Reply>();
    let server = Server::new();
    let handler = move |call: &mut Call<'_>| {
        call.on_end(|_| std::panic::panic_any(crate::common::FragilePayload));
        let (answer, reply) = call.answer_later();
        later.send(reply).map_err(|_| Status::internal("the test is over"))?;
        Ok(answer)
    };
    let mut caller = SimCaller::new(1, server.serve(handler));
    for id in 1..=5 {
        caller.call(id, "any", b"");
    }
    caller.pass(SECOND);
    let SimCaller { peer, simulation, .. } = &mut caller;
    std::mem::replace(peer, Wire::Plain.meet(simulation)).reset();
    caller.pass(SECOND);
    for _ in 0..5 {
        assert!(receive(&replies).is_cancelled());
    }
    let stats = server.stats();
    assert_eq!((stats.in_flight, stats.ended), (0, 5));
}

/// Neither keep-alive nor a timeout for silence ends what a byte now and then keeps open.
#[test]
fn a_frame_that_is_never_whole_ends_its_connection() {
    let begun = bytes_of(Frame::Request(request(2, "test/echo", &[7; 1000])));
    let mut too_long = begun.clone();
    too_long[8] = 0x7f; // The length of its body: it is passed over.
    for frame in [begun, too_long] {
        let (later, replies) = channel();
        let server = Server::new().keepalive(10 * SECOND, 5 * SECOND);
        let builder = Engine::builder().read_timeout(20 * SECOND);
        let mut caller = SimCaller::with(1, builder, server.serve(router(later)));
        caller.call(1, "test/later", b"");
        let reply = caller.reply(&replies);
        let mut bytes = frame.iter();
        let (mut seconds, mut last) = (0, None);
        while last != Some(Got::End) {
            if let Some(byte) = bytes.next() {
                let _ = caller.peer.send(&[*byte]); // It may have closed.
            }
            seconds += 1;
            assert!(seconds < 80, "it is open after {seconds} seconds: {last:?}");
            last = caller.next_within(SECOND).or(last);
            if seconds == 58 {
                assert!(!reply.is_cancelled());
            }
        }
        assert!((58..64).contains(&seconds), "it closed after {seconds} seconds");
        assert!(reply.is_cancelled());
    }
}

#[test]
fn a_frame_has_its_time_over_a_socket_as_well() {
    let (later, _replies) = channel();
    let server = Server::new().frame_timeout(Duration::from_millis(100));
    on_each(
        &server,
        move || router(later.clone()),
        |caller| {
            caller.call(1, "test/echo", b"whole");
            assert_eq!(caller.next(), Got::ok(1, b"whole"));
            caller.send_bytes(&bytes_of(Frame::Request(request(2, "test/echo", b"")))[..30]);
            assert_eq!(caller.next(), Got::GoAway { last: 1, code: Code::Unavailable });
            assert_eq!(caller.next(), Got::End);
        },
    );
}

/// A connection may take long to close; what works for its calls does not have to wait for that.
#[test]
fn replies_are_cancelled_when_it_is_decided_that_their_connection_closes() {
    let (later, replies) = channel();
    let server = Server::new();
    let builder = Engine::builder().read_timeout(10 * SECOND).close_timeout(60 * SECOND);
    let mut caller = SimCaller::with(1, builder, server.serve(router(later)));
    caller.call(1, "test/later", b"");
    let reply = caller.reply(&replies);
    caller.pass(9 * SECOND);
    assert!(!reply.is_cancelled());
    caller.pass(2 * SECOND);
    assert!(reply.is_cancelled());
    assert_eq!(caller.simulation.open_connections(), 1, "the peer has not closed");
    reply.send("too late");
    assert_eq!(server.stats().ended, 1);
}
