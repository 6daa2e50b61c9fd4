//! Typed calls over real connections: every encoding, answers at once and later, errors that become
//! statuses, services made of traits, bodies that make no sense, and compression.

mod client;

mod compression;
mod peer;
mod service;
mod wire;

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::thread;

use crate::common::{TestEngine, receive};
use millstream::Engine;
use millstream::rpc::{
    Call, Code, Encoding, Format, Router, Server, Status, TypedReply, typed, typed_later,
};
use peer::Peer;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    item: String,
    count: u32,
    note: Option<String>,
}

fn order() -> Order {
    Order { item: "tea".to_owned(), count: 3, note: None }
}

/// A server with the methods that a router has.
fn serve(router: impl Fn() -> Router + Send + Sync + 'static) -> (TestEngine, Server) {
    let server = Server::new();
    let of_reactors = server.clone();
    let engine = TestEngine::start(Engine::builder(), move |_| of_reactors.serve(router()));
    (engine, server)
}

/// Everything that was started has ended.
fn assert_at_rest(server: &Server) {
    let stats = server.stats();
    assert_eq!(stats.in_flight, 0, "{stats:?}");
    assert_eq!(stats.started, stats.ended, "{stats:?}");
}

fn double(_call: &mut Call<'_>, mut order: Order) -> Result<Order, Status> {
    order.count = order.count.checked_mul(2).ok_or(Status::out_of_range("too many"))?;
    order.note = Some("twice".to_owned());
    Ok(order)
}

#[test]
fn an_answer_is_encoded_as_its_request() {
    let (engine, server) = serve(|| Router::new().method("shop/double", typed(double)));
    let mut peer = Peer::new(&engine);
    for encoding in Encoding::ALL {
        let ended = peer.call("shop/double", *encoding, &order());
        assert_eq!((ended.code, ended.format), (Code::Ok, encoding.format()), "{encoding}");
        let answer: Order = encoding.decode(&ended.body).expect("an order");
        assert_eq!(answer, Order { count: 6, note: Some("twice".to_owned()), ..order() });
    }
    let ended = peer.call_raw(
        "shop/double",
        Encoding::Json.format(),
        br#" {"count": 1, "later": true, "item": "tea"} "#,
    );
    assert_eq!(ended.body, br#"{"item":"tea","count":2,"note":"twice"}"#);
    assert_at_rest(&server);
}

#[test]
fn a_later_answer_comes_from_any_thread() {
    let (engine, server) = serve(|| {
        Router::new().method(
            "shop/double",
            typed_later(|call, order: Order, mut reply: TypedReply<Order>| {
                assert_eq!(call.deadline(), reply.deadline());
                assert!(!reply.is_cancelled());
                reply.metadata().insert("kitchen", "west").expect("good metadata");
                let mut answer = order;
                thread::spawn(move || match answer.count.checked_mul(2) {
                    _ if answer.item.is_empty() => drop(reply),
                    None => reply.fail(Status::out_of_range("too many")),
                    Some(count) => {
                        answer.count = count;
                        reply.send(&answer);
                    }
                });
            }),
        )
    });
    let mut peer = Peer::new(&engine);
    for encoding in Encoding::ALL {
        let ended = peer.call("shop/double", *encoding, &order());
        assert_eq!((ended.code, ended.format), (Code::Ok, encoding.format()), "{encoding}");
        assert_eq!(ended.metadata, [("kitchen".to_owned(), b"west".to_vec())]);
        assert_eq!(encoding.decode::<Order>(&ended.body).expect("an order").count, 6);
    }
    let many = Order { count: u32::MAX, ..order() };
    let ended = peer.call("shop/double", Encoding::Postcard, &many);
    assert_eq!((ended.code, &*ended.message), (Code::OutOfRange, "too many"));
    let nothing = Order { item: String::new(), ..order() };
    let ended = peer.call("shop/double", Encoding::Postcard, &nothing);
    let message = "the call was given up without an answer";
    assert_eq!((ended.code, &*ended.message), (Code::Internal, message));
    assert_at_rest(&server);
}

#[test]
fn a_one_way_call_is_run_without_an_answer() {
    let (sender, orders) = mpsc::channel();
    let (engine, _server) = serve(move || {
        let (now, later) = (sender.clone(), sender.clone());
        Router::new()
            .method("shop/double", typed(double))
            .method(
                "shop/now",
                typed(move |_, order: Order| {
                    now.send(order).map_err(|_| Status::internal("nobody listens"))
                }),
            )
            .method(
                "shop/later",
                typed_later(move |_, order: Order, reply: TypedReply<Order>| {
                    reply.send(&order);
                    let _ = later.send(order);
                }),
            )
    });
    let mut peer = Peer::new(&engine);
    let mut body = Vec::new();
    Encoding::Json.encode(&order(), &mut body).expect("it can be written");
    for method in ["shop/now", "shop/later"] {
        peer.send(method, Encoding::Json.format(), &body, true);
        assert_eq!(receive(&orders), order());
    }
    // Nothing was answered to them: the next response is this call's.
    assert_eq!(peer.call("shop/double", Encoding::Json, &order()).code, Code::Ok);
}

#[test]
fn an_encoding_that_is_not_built_in_is_unimplemented() {
    let (engine, server) = serve(|| Router::new().method("shop/double", typed(double)));
    let mut peer = Peer::new(&engine);
    for encoding in [0, 4, 15] {
        let ended = peer.call_raw("shop/double", Format { encoding, compression: 0 }, b"{}");
        assert_eq!(ended.code, Code::Unimplemented);
        let message = format!("no encoding of values of number {encoding} is built in here");
        assert_eq!(ended.message, message);
    }
    assert_eq!(peer.call("shop/double", Encoding::Json, &order()).code, Code::Ok);
    assert_at_rest(&server);
}

#[test]
fn a_request_that_is_not_what_the_method_takes_is_refused_with_the_reason() {
    let (engine, server) = serve(|| Router::new().method("shop/double", typed(double)));
    let mut peer = Peer::new(&engine);
    for (encoding, body, reason) in [
        (Encoding::Json, &b"{"[..], "EOF while parsing an object at line 1 column 1"),
        (Encoding::Json, br#"{"item":"tea"}"#, "missing field `count` at line 1 column 14"),
        (
            Encoding::Json,
            br#"{"item":"tea","count":1} 2"#,
            "trailing characters at line 1 column 26",
        ),
        (Encoding::Postcard, b"\x03te", "Hit the end of buffer, expected more data"),
        (Encoding::Postcard, b"\x01t\x01\x00rest", "4 bytes are behind its end"),
        (Encoding::MessagePack, b"\x81\xa4item", "IO error while reading marker"),
        (Encoding::MessagePack, b"\x93\xa1t\x01\xc0\x91", "there are bytes behind its end"),
    ] {
        let ended = peer.call_raw("shop/double", encoding.format(), body);
        assert_eq!(ended.code, Code::InvalidArgument, "{encoding}: {body:?}");
        let message =
            format!("the request can't be read: the bytes are not the value as {encoding}: ");
        let told = ended.message.strip_prefix(&message).unwrap_or(&ended.message);
        assert!(told.starts_with(reason), "{encoding}: {told:?} is not {reason:?}");
    }
    assert_at_rest(&server);
}

#[test]
fn a_response_that_can_not_be_written_is_the_servers_fault() {
    type Places = BTreeMap<(u8, u8), u8>;
    let places = || Places::from([((1, 2), 3)]);
    let (engine, server) = serve(move || {
        Router::new().method("map/now", typed(move |_, (): ()| Ok(places()))).method(
            "map/later",
            typed_later(move |_, (): (), reply: TypedReply<Places>| reply.send(&places())),
        )
    });
    let mut peer = Peer::new(&engine);
    for method in ["map/now", "map/later"] {
        let ended = peer.call(method, Encoding::Json, &());
        let message = "the response can't be written: the value can't be written as JSON: key must be a string";
        assert_eq!((ended.code, &*ended.message), (Code::Internal, message));
        assert_eq!(ended.body, b"", "{method}: no part of it may be there");
        assert_eq!(peer.call(method, Encoding::Postcard, &()).body, [1, 1, 2, 3]);
    }
    assert_at_rest(&server);
}
