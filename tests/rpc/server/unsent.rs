//! Answers for which there is no room in the output: they wait their turn, within limits, and the
//! connection goes on.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use millstream::rpc::frame::{Frame, Request};
use millstream::rpc::{Call, Client, Code, Format, MethodOptions, Reply, Router, Server, Status};
use millstream::{Builder, Engine, EventHandler};

use crate::common::rpc::{Caller, Got, SimCaller, bytes_of, on_each_with, request};
use crate::common::wire::Far as _;
use crate::common::{TestEngine, pattern, receive};

const CAP: usize = 256 * 1024;
const SIZE: usize = 64 * 1024;
const COUNT: u64 = 40;

/// An engine that keeps little output, whatever it is asked meanwhile.
fn small() -> Builder {
    Engine::builder().output_cap(CAP).pause_reading_at_high_water(false)
}

/// One that stops reading while much output waits, as engines do.
fn small_and_pausing() -> Builder {
    Engine::builder().output_cap(CAP)
}

/// Methods whose answer is as long as the body tells.
fn router(later: Sender<Reply>) -> Router {
    Router::new()
        .method("large/copied", |call: &mut Call<'_>| {
            let body = body_for(call.body());
            call.answer(&body)
        })
        .method("large/shared", |call: &mut Call<'_>| {
            let body = body_for(call.body());
            call.answer_bytes(body)
        })
        .method("large/in_place", |call: &mut Call<'_>| {
            let body = body_for(call.body());
            let mut rest = body.chunks(1000);
            call.answer_with(Format::RAW, |writer| {
                // What is taken here is gone: it is written once.
                for piece in rest.by_ref() {
                    writer.write_all(piece).map_err(|error| Status::internal(error.to_string()))?;
                }
                Ok(())
            })
        })
        .method("large/later", move |call: &mut Call<'_>| {
            let (answer, reply) = call.answer_later();
            later.send(reply).map_err(|_| Status::internal("the test is over"))?;
            Ok(answer)
        })
        .method("large/fail", |_: &mut Call<'_>| Err(Status::aborted("m".repeat(4000))))
}

fn body_for(request: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(request).expect("a number");
    pattern(text.parse().expect("a number"), 1)
}

fn replies(caller: &mut dyn Caller, later: &Receiver<Reply>, count: u64) -> Vec<Reply> {
    for id in 1..=count {
        caller.call(id, "large/later", b"");
    }
    (0..count).map(|_| caller.reply(later)).collect()
}

/// The test's end of a channel that several runs use.
fn shared<T>() -> (Sender<T>, Mutex<Receiver<T>>) {
    let (sender, receiver) = channel();
    (sender, Mutex::new(receiver))
}

#[test]
fn late_answers_wait_for_room() {
    let (later, known) = shared();
    on_each_with(
        small,
        &Server::new(),
        move || router(later.clone()),
        |caller| {
            let replies = replies(caller, &known.lock().expect("one run at a time"), COUNT);
            let body = pattern(SIZE, 1);
            let sent = body.clone();
            let replier = thread::spawn(move || {
                replies.into_iter().for_each(|reply| reply.send(sent.clone()));
            });
            replier.join().expect("it does not panic");
            for id in 1..=COUNT {
                assert_eq!(caller.next(), Got::ok(id, &body), "answer {id}");
            }
            caller.call(100, "large/copied", b"3");
            assert_eq!(caller.next(), Got::ok(100, &pattern(3, 1)));
        },
    );
}

#[test]
fn answers_at_once_wait_for_room() {
    let (later, _known) = shared();
    for builder in [small, small_and_pausing] {
        let later = later.clone();
        on_each_with(
            builder,
            &Server::new(),
            move || router(later.clone()),
            |caller| {
                let methods = ["large/copied", "large/shared", "large/in_place"];
                let mut bytes = Vec::new();
                for (id, method) in (1..=COUNT).zip(methods.into_iter().cycle()) {
                    let length = SIZE.to_string();
                    let request = request(id, method, length.as_bytes());
                    bytes.extend(bytes_of(Frame::Request(request)));
                }
                caller.send_bytes(&bytes);
                let mut answered: Vec<Got> = (0..COUNT).map(|_| caller.next()).collect();
                answered.sort_by_key(|got| got.verdict().0);
                let body = pattern(SIZE, 1);
                for (id, got) in (1..).zip(answered) {
                    assert_eq!(got, Got::ok(id, &body), "answer {id}");
                }
            },
        );
    }
}

#[test]
fn an_answer_that_never_fits_fails_its_call_alone() {
    let (later, known) = shared();
    let server = Server::new();
    on_each_with(
        small,
        &server,
        move || router(later.clone()),
        |caller| {
            let long = CAP.to_string();
            for (id, method) in (1..).zip(["large/copied", "large/shared", "large/in_place"]) {
                caller.call(id, method, long.as_bytes());
                assert_eq!(caller.next().verdict(), (id, false, Code::ResourceExhausted));
            }
            caller.call(4, "large/later", b"");
            caller.reply(&known.lock().expect("one run at a time")).send(vec![0; CAP]);
            assert_eq!(caller.next().verdict(), (4, false, Code::ResourceExhausted));
            caller.call(5, "large/shared", SIZE.to_string().as_bytes());
            assert_eq!(caller.next(), Got::ok(5, &pattern(SIZE, 1)));
        },
    );
}

/// An answer that fits when nothing else waits comes when nothing else does.
#[test]
fn the_largest_answer_waits_for_all_others() {
    let (later, known) = shared();
    on_each_with(
        || small().water_marks(CAP / 2, CAP),
        &Server::new(),
        move || router(later.clone()),
        |caller| {
            let replies = replies(caller, &known.lock().expect("one run at a time"), 4);
            let length = CAP - CAP / 8 - 100;
            for reply in replies {
                reply.send(vec![7; length]);
            }
            for id in 1..=4 {
                assert_eq!(caller.next(), Got::ok(id, &vec![7; length]));
            }
        },
    );
}

#[test]
fn what_waits_is_bounded_on_a_connection_and_in_total() {
    let most = 10 * (SIZE + 1000);
    let limited =
        [Server::new().max_unsent_answers(most), Server::new().max_unsent_answers_total(most)];
    for server in limited {
        let (later, known) = channel();
        let mut caller = SimCaller::with(7, small_and_pausing(), server.serve(router(later)));
        let replies = replies(&mut caller, &known, COUNT);
        replies.into_iter().for_each(|reply| reply.send(pattern(SIZE, 1)));
        let (mut came, mut exhausted) = (0, 0);
        for _ in 1..=COUNT {
            match caller.next() {
                Got::Response { code: Code::Ok, body, .. } => {
                    assert!(body == pattern(SIZE, 1));
                    came += 1;
                }
                Got::Response { code: Code::ResourceExhausted, .. } => exhausted += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!((10..20).contains(&came) && exhausted == COUNT - came, "{came} came");
        caller.call(1000, "large/copied", b"1");
        assert_eq!(caller.next().verdict(), (1000, false, Code::Ok));
        let stats = server.stats();
        assert_eq!((stats.started, stats.ended, stats.unsent_bytes), (COUNT + 1, COUNT + 1, 0));
    }
}

#[test]
fn errors_wait_as_well() {
    let (later, known) = shared();
    on_each_with(
        small,
        &Server::new(),
        move || router(later.clone()),
        |caller| {
            let replies = replies(caller, &known.lock().expect("one run at a time"), 200);
            for reply in replies {
                reply.fail(Status::aborted("m".repeat(4000)));
            }
            for id in 201..=400 {
                caller.call(id, "large/fail", b"");
            }
            let mut answered: Vec<_> = (0..400).map(|_| caller.next().verdict()).collect();
            answered.sort_unstable();
            for (id, verdict) in (1..).zip(answered) {
                assert_eq!(verdict, (id, false, Code::Aborted));
            }
        },
    );
}

/// A connection on which answers wait of which none is read.
fn stuck(timeout: Option<Duration>) -> (SimCaller<impl EventHandler>, Server) {
    let server = Server::new();
    let (caller, _later) = stuck_on(&server, timeout);
    (caller, server)
}

/// The same, and the replies that are still to be taken.
fn stuck_on(
    server: &Server,
    timeout: Option<Duration>,
) -> (SimCaller<impl EventHandler + use<>>, Receiver<Reply>) {
    let (later, known) = channel();
    let mut caller = SimCaller::with(3, small(), server.serve(router(later)));
    for id in 1..=COUNT {
        caller.send(Frame::Request(Request { timeout, ..request(id, "large/later", b"") }));
    }
    let replies: Vec<_> = (0..COUNT).map(|_| caller.reply(&known)).collect();
    replies.into_iter().for_each(|reply| reply.send(vec![7; SIZE]));
    caller.pass(Duration::from_millis(500));
    assert!(server.stats().unsent_bytes > 20 * SIZE, "they wait: {:?}", server.stats());
    (caller, known)
}

/// Sends a frame, and receives nothing meanwhile.
fn send_only(caller: &mut SimCaller<impl EventHandler>, frame: Frame<'_>) {
    let bytes = bytes_of(frame);
    assert_eq!(caller.peer.send(&bytes), bytes.len());
    caller.pass(Duration::from_millis(1));
}

#[test]
fn a_call_whose_answer_waits_takes_up_one_place() {
    let server = Server::new().max_in_flight(COUNT as usize + 1);
    let (mut caller, known) = stuck_on(&server, None);
    send_only(&mut caller, Frame::Request(request(COUNT + 1, "large/later", b"")));
    let reply = caller.reply(&known);
    assert_eq!(server.stats().in_flight, 1, "nobody works on the others any more");
    drop(reply);
}

#[test]
fn a_call_that_is_cancelled_gives_its_place_back_while_others_wait() {
    let server = Server::new().max_in_flight(COUNT as usize);
    let (mut caller, known) = stuck_on(&server, None);
    (2..=COUNT).for_each(|id| send_only(&mut caller, Frame::Cancel { id }));
    let more = COUNT + 1..2 * COUNT;
    for id in more.clone() {
        send_only(&mut caller, Frame::Request(request(id, "large/later", b"")));
    }
    let replies: Vec<Reply> = more.map(|_| caller.reply(&known)).collect();
    assert_eq!(server.stats().refused, 0);
    drop(replies);
}

/// Whatever becomes of a second answer, the first one is sent.
#[test]
fn an_answer_that_waits_is_the_only_one() {
    let (later, known) = channel();
    let twice = move |call: &mut Call<'_>| {
        let answer = call.answer(&pattern(SIZE, 2))?;
        let (_, reply) = call.answer_later();
        later.send(reply).map_err(|_| Status::internal("the test is over"))?;
        Ok(answer)
    };
    let router = Router::new().method("large/twice", twice);
    let mut caller = SimCaller::with(5, small(), Server::new().serve(router));
    (1..=COUNT).for_each(|id| caller.call(id, "large/twice", b""));
    let replies: Vec<Reply> = (0..COUNT).map(|_| caller.reply(&known)).collect();
    assert!(replies.iter().all(Reply::is_cancelled), "nobody waits for these");
    replies.into_iter().for_each(|reply| reply.send("another one"));
    let mut answered: Vec<Got> = (0..COUNT).map(|_| caller.next()).collect();
    answered.sort_by_key(|got| got.verdict().0);
    for (id, got) in (1..).zip(answered) {
        assert_eq!(got, Got::ok(id, &pattern(SIZE, 2)));
    }
}

/// The deadline of an answer that waits is the call's, also where its method has set it.
#[test]
fn an_answer_at_once_waits_no_longer_than_its_method_allows() {
    let options = MethodOptions::new().timeout(Duration::from_secs(5));
    let large = |call: &mut Call<'_>| call.answer(&pattern(SIZE, 1));
    let router = Router::new().method_with("large/brief", options, large);
    let server = Server::new();
    let mut caller = SimCaller::with(9, small(), server.serve(router));
    for id in 1..=COUNT {
        send_only(&mut caller, Frame::Request(request(id, "large/brief", b"")));
    }
    caller.pass(Duration::from_secs(1));
    assert!(server.stats().unsent_bytes > 20 * SIZE, "they wait: {:?}", server.stats());
    caller.pass(Duration::from_secs(5));
    assert!(server.stats().unsent_bytes < SIZE, "none is kept: {:?}", server.stats());
}

#[test]
fn an_answer_that_waits_for_too_long_makes_room() {
    let (mut caller, server) = stuck(Some(Duration::from_secs(5)));
    caller.pass(Duration::from_secs(6));
    assert!(server.stats().unsent_bytes < SIZE, "none is kept: {:?}", server.stats());
    let codes: Vec<_> = (0..COUNT).map(|_| caller.next().verdict().2).collect();
    let count = |wanted| codes.iter().filter(|code| **code == wanted).count();
    let (came, expired) = (count(Code::Ok), count(Code::DeadlineExceeded));
    assert!(came < 20 && came + expired == codes.len(), "{codes:?}");
    caller.call(100, "large/copied", b"1");
    assert_eq!(caller.next(), Got::ok(100, &pattern(1, 1)));
}

#[test]
fn an_answer_that_is_cancelled_makes_room() {
    let (mut caller, server) = stuck(None);
    (1..=COUNT).for_each(|id| send_only(&mut caller, Frame::Cancel { id }));
    caller.pass(Duration::from_secs(1));
    assert_eq!(server.stats().unsent_bytes, 0);
    assert_eq!(server.stats().ended, COUNT);
}

#[test]
fn answers_that_wait_end_with_their_connection() {
    let (caller, server) = stuck(None);
    drop(caller);
    let stats = server.stats();
    assert_eq!((stats.unsent_bytes, stats.ended), (0, COUNT));
}

#[test]
fn a_server_that_stops_sends_what_waits() {
    let (mut caller, _server) = stuck(None);
    caller.simulation.stop(Duration::from_secs(30)).expect("it runs");
    let (mut answers, mut went_away) = (0, false);
    loop {
        match caller.next() {
            Got::Response { code: Code::Ok, .. } => answers += 1,
            Got::GoAway { last: COUNT, code: Code::Ok } => went_away = true,
            Got::End => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((answers, went_away), (COUNT, true));
}

#[test]
fn pings_are_answered_while_answers_wait() {
    let (mut caller, _server) = stuck(None);
    send_only(&mut caller, Frame::Ping(77));
    caller.pass(Duration::from_secs(1));
    let mut answers = 0;
    while caller.next() != Got::Pong(77) {
        answers += 1;
    }
    assert!(answers < COUNT, "it comes before those that still wait");
}

/// Within all default limits, over both ends.
#[test]
fn many_large_answers_come_at_the_same_time() {
    const LARGE: usize = 1024 * 1024;
    let (later, known) = channel();
    let later = Mutex::new(later);
    let engine = TestEngine::start(Engine::builder().reactors(1), move |_| {
        let later = later.lock().expect("nobody panics with it").clone();
        Server::new().serve(router(later))
    });
    let client = Client::builder().address(engine.address().to_string()).build();
    let client = client.expect("it starts");
    let (ended, ends) = channel();
    for _ in 0..80 {
        let ended = ended.clone();
        client.call_then(millstream::rpc::Request::new("large/later"), move |result| {
            let _ = ended.send(result);
        });
    }
    let body = millstream::Bytes::from(pattern(LARGE, 1));
    let replies: Vec<_> = (0..80).map(|_| receive(&known)).collect();
    replies.into_iter().for_each(|reply| reply.send(body.clone()));
    for _ in 0..80 {
        let response = receive(&ends).expect("it is answered");
        assert!(response.body == body, "another body");
    }
    assert_eq!(client.stats().connected, 1);
    client.stop(Duration::from_secs(10)).expect("it stops");
}
