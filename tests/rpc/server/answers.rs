//! Every way to answer, and that there is exactly one answer.

use std::sync::mpsc::{Sender, channel};
use std::thread;

use millstream::rpc::frame::{Frame, Request};
use millstream::rpc::{Call, Code, Metadata, Reply, Router, Server, Status};

use crate::common::rpc::Caller as _;
use crate::common::rpc::{Got, SimCaller, on_each, request, router};
use crate::common::{FragilePayload, pattern, receive};

#[test]
fn every_way_to_answer_brings_the_same_bytes() {
    let (later, _replies) = channel();
    on_each(
        &Server::new(),
        move || router(later.clone()),
        |caller| {
            let mut id = 0;
            for method in ["test/echo", "test/shared", "test/in_place"] {
                for length in [0, 1, 64, 1000, 16 * 1024, 100_000] {
                    id += 1;
                    let body = pattern(length, id);
                    caller.call(id, method, &body);
                    assert_eq!(caller.next(), Got::ok(id, &body), "{method}, {length} bytes");
                }
            }
        },
    );
}

#[test]
fn many_requests_in_one_piece_are_answered_in_order() {
    let (later, _replies) = channel();
    on_each(
        &Server::new(),
        move || router(later.clone()),
        |caller| {
            let mut bytes = Vec::new();
            for id in 1..=3000 {
                let body = format!("body {id}");
                bytes.extend(crate::common::rpc::bytes_of(Frame::Request(request(
                    id,
                    "test/echo",
                    body.as_bytes(),
                ))));
            }
            caller.send_bytes(&bytes);
            for id in 1..=3000 {
                assert_eq!(caller.next(), Got::ok(id, format!("body {id}").as_bytes()));
            }
        },
    );
}

#[test]
fn replies_come_from_any_thread_in_any_order() {
    let (later, replies) = channel::<Reply>();
    on_each(
        &Server::new(),
        move || router(later.clone()),
        |caller| {
            for id in [3, 7, 9] {
                caller.call(id, "test/later", b"");
            }
            let [first, second, third] = [(); 3].map(|()| caller.reply(&replies));
            let replier = thread::spawn(move || {
                third.send("third");
                second.fail(Status::aborted("second"));
                drop(first);
            });
            replier.join().expect("it does not panic");
            assert_eq!(caller.next(), Got::ok(9, b"third"));
            assert_eq!(caller.next().verdict(), (7, false, Code::Aborted));
            assert_eq!(caller.next().verdict(), (3, false, Code::Internal), "it was dropped");
            caller.call(10, "test/echo", b"and on");
            assert_eq!(caller.next(), Got::ok(10, b"and on"));
        },
    );
}

#[test]
fn errors_have_their_code_and_message() {
    let (later, _replies) = channel();
    on_each(
        &Server::new(),
        move || router(later.clone()),
        |caller| {
            caller.call(1, "test/fail", b"");
            let Got::Response { code, message, not_run, .. } = caller.next() else { panic!() };
            assert_eq!((code, &*message, not_run), (Code::NotFound, "nothing here", false));
            caller.call(2, "test/missing", b"");
            assert_eq!(caller.next().verdict(), (2, true, Code::Unimplemented));
            caller.call(3, "test/twice", b"");
            assert_eq!(caller.next(), Got::ok(3, b"first"), "the first answer stands");
            caller.call(4, "test/echo", b"x");
            assert_eq!(caller.next(), Got::ok(4, b"x"));
        },
    );
}

#[test]
fn metadata_goes_both_ways() {
    let (later, _replies) = channel();
    on_each(
        &Server::new(),
        move || router(later.clone()),
        |caller| {
            let mut metadata = Metadata::new();
            metadata.insert("tenant", "blue").expect("it is a pair");
            metadata.insert("bytes", [0, 255]).expect("it is a pair");
            let view = metadata.view();
            caller.send(Frame::Request(Request {
                metadata: view,
                ..request(1, "test/metadata", b"b")
            }));
            let Got::Response { metadata: returned, body, .. } = caller.next() else { panic!() };
            assert_eq!((returned, &*body), (metadata, &b"b"[..]));
        },
    );
}

#[test]
fn one_way_requests_are_run_and_not_answered() {
    let (tell, told) = channel();
    let router = move || {
        let tell: Sender<Vec<u8>> = tell.clone();
        let (later, _) = channel();
        router(later).method("test/note", move |call: &mut Call<'_>| {
            assert!(call.is_one_way());
            tell.send(call.body().to_vec()).map_err(|_| Status::internal("the test is over"))?;
            call.answer(b"nobody reads this")
        })
    };
    on_each(&Server::new(), router, |caller| {
        let one_way = |id, method| Request { one_way: true, ..request(id, method, b"note") };
        caller.send(Frame::Request(one_way(1, "test/note")));
        caller.send(Frame::Request(one_way(2, "test/fail")));
        caller.send(Frame::Request(one_way(3, "test/missing")));
        caller.send(Frame::Request(one_way(4, "test/later")));
        caller.call(5, "test/echo", b"x");
        assert_eq!(caller.next(), Got::ok(5, b"x"), "and nothing before it");
        assert_eq!(receive(&told), b"note");
    });
}

#[test]
fn a_panic_closes_its_connection_and_ends_its_call() {
    crate::common::silence_expected_panics();
    let (tell, told) = channel();
    let router = Router::new().method("test/panic", move |call: &mut Call<'_>| {
        let tell: Sender<Option<Code>> = tell.clone();
        call.on_end(move |end| {
            let _ = tell.send(end.status.map(Status::code));
        });
        std::panic::panic_any(FragilePayload)
    });
    let server = Server::new();
    let mut caller = SimCaller::new(1, server.serve(router));
    caller.call(1, "test/panic", b"");
    assert_eq!(caller.next(), Got::End);
    let stats = server.stats();
    assert_eq!((stats.started, stats.ended, stats.failed), (1, 1, 1));
    assert_eq!(receive(&told), Some(Code::Internal));
}

#[test]
fn hooks_are_called_once_and_the_last_one_first() {
    let (tell, told) = channel();
    let (later, replies) = channel::<Reply>();
    let handler = move |call: &mut Call<'_>| {
        for name in ["first", "second"] {
            let tell: Sender<(&str, Option<Code>)> = tell.clone();
            call.on_end(move |end| {
                let _ = tell.send((name, end.status.map(Status::code)));
            });
        }
        match call.body() {
            b"now" => call.answer(b""),
            b"fail" => Err(Status::aborted("")),
            _ => {
                let (answer, reply) = call.answer_later();
                let _ = later.send(reply);
                Ok(answer)
            }
        }
    };
    let mut caller = SimCaller::new(2, Server::new().serve(handler));
    let expect = |code| {
        assert_eq!(receive(&told), ("second", code));
        assert_eq!(receive(&told), ("first", code));
        assert!(told.try_recv().is_err());
    };
    caller.call(1, "any", b"now");
    caller.next();
    expect(None);
    caller.call(2, "any", b"fail");
    caller.next();
    expect(Some(Code::Aborted));
    caller.call(3, "any", b"later");
    caller.pass(std::time::Duration::from_secs(1));
    assert!(told.try_recv().is_err(), "it has not ended");
    receive(&replies).send("");
    caller.next();
    expect(None);
    caller.call(4, "any", b"later");
    caller.pass(std::time::Duration::from_secs(1));
    caller.send(Frame::Cancel { id: 4 });
    caller.pass(std::time::Duration::from_secs(1));
    expect(Some(Code::Cancelled));
    let reply = receive(&replies);
    assert!(reply.is_cancelled());
    reply.send("too late");
    caller.call(5, "any", b"now");
    assert_eq!(caller.next(), Got::ok(5, b""));
}
