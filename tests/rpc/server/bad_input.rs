//! Each malformed or unexpected frame has its outcome, and the server goes on with the other ones.

use std::sync::mpsc::channel;

use millstream::rpc::frame::{Frame, Response};
use millstream::rpc::{Call, Code, Format, Handler, MetadataView, Router, Server, Status};

use crate::common::rpc::{Caller, Got, SimCaller, bytes_of, on_each, request, router};

/// Makes a test try something on each transport, with a request behind it that must be answered.
fn goes_on_after(test: impl Fn(&mut dyn Caller)) {
    let (later, _replies) = channel();
    on_each(
        &Server::new(),
        move || router(later.clone()),
        |caller| {
            test(caller);
            caller.call(1000, "test/echo", b"and on");
            assert_eq!(caller.next(), Got::ok(1000, b"and on"));
        },
    );
}

/// Makes a test try something that ends the connection with this code.
fn ends_with(code: Code, last: u64, test: impl Fn(&mut dyn Caller)) {
    let (later, replies) = channel();
    on_each(
        &Server::new(),
        move || router(later.clone()),
        |caller| {
            test(caller);
            assert_eq!(caller.next(), Got::GoAway { last, code });
            assert_eq!(caller.next(), Got::End);
            replies.try_iter().for_each(drop);
        },
    );
}

/// A request's bytes with one of them replaced.
fn with_byte(at: usize, byte: u8) -> Vec<u8> {
    let mut bytes = bytes_of(Frame::Request(request(1, "test/echo", b"body")));
    bytes[at] = byte;
    bytes
}

#[test]
fn what_is_no_rpc_ends_the_connection() {
    ends_with(Code::InvalidArgument, 0, |caller| {
        caller.send_bytes(b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n");
    });
    ends_with(Code::Unimplemented, 0, |caller| caller.send_bytes(&with_byte(2, 2)));
}

#[test]
fn ids_that_do_not_rise_end_the_connection() {
    ends_with(Code::InvalidArgument, 0, |caller| caller.call(0, "test/echo", b""));
    ends_with(Code::InvalidArgument, 7, |caller| {
        caller.call(7, "test/echo", b"");
        assert_eq!(caller.next(), Got::ok(7, b""));
        caller.call(7, "test/echo", b"");
    });
    ends_with(Code::InvalidArgument, 7, |caller| {
        caller.call(7, "test/later", b"");
        caller.call(6, "test/echo", b"");
    });
}

#[test]
fn unknown_kinds_are_refused_and_passed_over() {
    for kind in [0, 8, 15, 16, 255] {
        goes_on_after(|caller| {
            caller.send_bytes(&with_byte(3, kind));
            assert_eq!(caller.next().verdict(), (1, true, Code::Unimplemented), "kind {kind}");
        });
    }
}

#[test]
fn unknown_flags_are_skipped() {
    goes_on_after(|caller| {
        caller.send_bytes(&with_byte(4, 0xfe));
        assert_eq!(caller.next(), Got::ok(1, b"body"));
    });
}

#[test]
fn malformed_heads_are_refused() {
    // The method's name: none, longer than the head.
    for byte in [0, 200] {
        goes_on_after(|caller| {
            caller.send_bytes(&with_byte(24, byte));
            assert_eq!(caller.next().verdict(), (1, true, Code::InvalidArgument));
        });
    }
    // A name that is not UTF-8 is that of no method.
    goes_on_after(|caller| {
        caller.send_bytes(&with_byte(25, 0xff));
        assert_eq!(caller.next().verdict(), (1, true, Code::Unimplemented));
    });
    // A name that is shorter than the head: what is behind it is not metadata.
    goes_on_after(|caller| {
        caller.send_bytes(&with_byte(24, 8));
        assert_eq!(caller.next().verdict(), (1, true, Code::InvalidArgument));
    });
    // No head at all.
    goes_on_after(|caller| {
        let mut bytes = bytes_of(Frame::Ping(1));
        bytes[3] = 1;
        caller.send_bytes(&bytes);
        assert_eq!(caller.next().verdict(), (1, true, Code::InvalidArgument));
    });
}

#[test]
fn what_a_server_does_not_wait_for_is_skipped() {
    goes_on_after(|caller| {
        caller.send(Frame::Cancel { id: 5 });
        caller.send(Frame::Pong(3));
        caller.send(Frame::GoAway { last: 0, code: Code::Ok, message: "bye" });
        caller.send(Frame::GoAway { last: 7, code: Code::InvalidArgument, message: "wrong" });
        caller.send(Frame::Response(Response {
            id: 9,
            not_run: false,
            code: Code::Ok,
            message: "",
            metadata: MetadataView::default(),
            format: Format::RAW,
            body: b"for whom?",
        }));
    });
}

/// Of several rules of the protocol's page that match, the first one counts.
#[test]
fn the_first_rule_that_matches_counts() {
    let with = |changes: &[(usize, u8)]| {
        let mut bytes = with_byte(0, b'M');
        changes.iter().for_each(|(at, byte)| bytes[*at] = *byte);
        bytes
    };
    // Another version of an unknown kind; what is behind is not looked at.
    ends_with(Code::Unimplemented, 0, |caller| caller.send_bytes(&with(&[(2, 9), (3, 9)])));
    // An unknown kind whose head and body are too long: 65,289 and 4,026,531,844 bytes.
    let (later, _replies) = channel();
    let server = Server::new();
    on_each(
        &server,
        move || router(later.clone()),
        |caller| {
            caller.send_bytes(&with(&[(3, 9), (6, 0xff), (8, 0xf0)]));
            assert_eq!(caller.next().verdict(), (1, true, Code::Unimplemented));
        },
    );
    // A head that is too long comes before such a body.
    let (later, _replies) = channel();
    on_each(
        &server,
        move || router(later.clone()),
        |caller| {
            caller.send_bytes(&with(&[(6, 0xff), (8, 0xf0)]));
            let Got::Response { code, message, .. } = caller.next() else { panic!() };
            assert_eq!(code, Code::ResourceExhausted);
            assert!(message.contains("head"), "{message}");
        },
    );
    // An id that does not rise comes before what is malformed, and before what is too long.
    for change in [(24, 200), (8, 0xf0)] {
        ends_with(Code::InvalidArgument, 1, |caller| {
            caller.call(1, "test/echo", b"");
            assert_eq!(caller.next(), Got::ok(1, b""));
            caller.send_bytes(&with(&[change]));
        });
    }
    // The requests in flight come before the method.
    let (later, _replies) = channel();
    let busy = Server::new().max_in_flight(0);
    on_each(
        &busy,
        move || router(later.clone()),
        |caller| {
            caller.call(1, "test/nowhere", b"");
            assert_eq!(caller.next().verdict(), (1, true, Code::Unavailable));
        },
    );
    // The method comes before the compression.
    goes_on_after(|caller| {
        caller.send_bytes(&with(&[(5, 0xf0), (25, b'x')]));
        let Got::Response { code: Code::Unimplemented, not_run: true, message, .. } = caller.next()
        else {
            panic!()
        };
        assert!(message.contains("no method"), "{message}");
        let mut bytes = with(&[(5, 0xf0)]);
        bytes[23] = 2; // Its id.
        caller.send_bytes(&bytes);
        let Got::Response { code: Code::Unimplemented, not_run: true, message, .. } = caller.next()
        else {
            panic!()
        };
        assert!(message.contains("no compression"), "{message}");
    });
}

#[test]
fn a_flood_of_pings_is_answered_in_order_and_others_have_their_turn() {
    goes_on_after(|caller| {
        let pings: Vec<u8> = (1..=5000).flat_map(|id| bytes_of(Frame::Ping(id))).collect();
        caller.send_bytes(&pings);
        for id in 1..=5000 {
            assert_eq!(caller.next(), Got::Pong(id));
        }
    });
}

#[test]
fn a_frame_that_is_cut_off_is_not_run() {
    let (later, _replies) = channel();
    let server = Server::new();
    on_each(
        &server,
        move || router(later.clone()),
        |caller| {
            let bytes = bytes_of(Frame::Request(request(1, "test/echo", b"body")));
            caller.send_bytes(&bytes[..bytes.len() - 1]);
            caller.end();
            assert_eq!(caller.next(), Got::End);
        },
    );
    assert_eq!(server.stats().started, 0);
}

/// What one router doesn't know and another handler runs was run, however that ends.
#[test]
fn what_another_handler_runs_was_run() {
    let mut router = Router::new();
    let fallback = move |call: &mut Call<'_>| {
        router.handle(call).map_err(|_| Status::unavailable("half of it is done"))
    };
    let mut caller = SimCaller::new(1, Server::new().serve(fallback));
    caller.call(1, "test/elsewhere", b"");
    assert_eq!(caller.next().verdict(), (1, false, Code::Unavailable));
}
