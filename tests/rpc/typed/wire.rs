//! What arguments and results are on the wire, as the protocol's page has it, and how methods grow.

use millstream::rpc::{Arguments, Code, Encoding, Format, Router, Status};

use super::peer::Peer;
use super::{assert_at_rest, serve};

millstream::rpc::service! {
    /// As it is now.
    pub(crate) trait Wire in "wire.Wire" {
        fn nothing();
        fn one(count: u8) -> u8;
        fn two(text: String, count: u8) -> String;
        /// The second argument and the third were added later.
        fn grown(text: String, times: Option<u8>, end: Option<String>) -> String;
    }

    pub(crate) struct WireClient;
}

struct Plain;

impl Wire for Plain {
    type Error = Status;

    fn nothing(&mut self, _: &mut millstream::rpc::Call<'_>) -> Result<(), Status> {
        Ok(())
    }

    fn one(&mut self, _: &mut millstream::rpc::Call<'_>, count: u8) -> Result<u8, Status> {
        Ok(count)
    }

    fn two(
        &mut self,
        _: &mut millstream::rpc::Call<'_>,
        text: String,
        count: u8,
    ) -> Result<String, Status> {
        Ok(text.repeat(count.into()))
    }

    fn grown(
        &mut self,
        _: &mut millstream::rpc::Call<'_>,
        text: String,
        times: Option<u8>,
        end: Option<String>,
    ) -> Result<String, Status> {
        Ok(text.repeat(times.unwrap_or(1).into()) + &end.unwrap_or_default())
    }
}

#[test]
fn arguments_and_results_are_what_the_page_says() {
    let (engine, server) = serve(|| Router::new().service(Plain.into_service()));
    let mut peer = Peer::new(&engine);
    let calls: [(Encoding, &str, &[u8], &[u8]); 9] = [
        (Encoding::Postcard, "nothing", b"", b""),
        (Encoding::Postcard, "one", b"\x07", b"\x07"),
        (Encoding::Postcard, "two", b"\x01a\x02", b"\x02aa"),
        (Encoding::MessagePack, "nothing", b"\x90", b"\xc0"),
        (Encoding::MessagePack, "one", b"\x91\x07", b"\x07"),
        (Encoding::MessagePack, "two", b"\x92\xa1a\x02", b"\xa2aa"),
        (Encoding::Json, "nothing", b"[]", b"null"),
        (Encoding::Json, "one", b"[7]", b"7"),
        (Encoding::Json, "two", b"[\"a\",2]", b"\"aa\""),
    ];
    for (encoding, method, request, response) in calls {
        let ended = peer.call_raw(&format!("wire.Wire/{method}"), encoding.format(), request);
        assert_eq!((ended.code, &*ended.body), (Code::Ok, response), "{encoding}, {method}");
    }
    for (encoding, none) in [(Encoding::MessagePack, &b"\xc0"[..]), (Encoding::Json, b"null")] {
        let ended = peer.call_raw("wire.Wire/nothing", encoding.format(), none);
        assert_eq!(ended.code, Code::Ok, "{encoding}");
        let ended = peer.call_raw("wire.Wire/one", encoding.format(), none);
        assert_eq!(ended.code, Code::InvalidArgument, "{encoding}");
    }
    assert_at_rest(&server);
    // What the client of a service sends is the same.
    for encoding in Encoding::ALL {
        let mut body = Vec::new();
        encoding.encode(&Arguments(()), &mut body).expect("it can be written");
        let expected = calls.iter().find(|call| (call.0, call.1) == (*encoding, "nothing"));
        assert_eq!(Some(&*body), expected.map(|call| call.2));
        encoding.encode(&Arguments(("a".to_owned(), 2_u8)), &mut body).expect("it can be written");
        let expected = calls.iter().find(|call| (call.0, call.1) == (*encoding, "two"));
        assert!(body.ends_with(expected.expect("it is there").2));
    }
}

#[test]
fn what_is_behind_a_value_is_refused() {
    let (engine, server) = serve(|| Router::new().service(Plain.into_service()));
    let mut peer = Peer::new(&engine);
    for (encoding, method, body) in [
        (Encoding::Postcard, "nothing", &b"\0"[..]),
        (Encoding::Postcard, "one", b"\x07\x07"),
        (Encoding::MessagePack, "nothing", b"\x90\xc0"),
        (Encoding::MessagePack, "nothing", b"\x91\x07"),
        (Encoding::MessagePack, "one", b"\x92\x07\x07"),
        (Encoding::MessagePack, "one", b"\x91\x07\x07"),
        (Encoding::Json, "nothing", b"[7]"),
        (Encoding::Json, "one", b"[7,7]"),
        (Encoding::Json, "one", b"[7]7"),
    ] {
        let ended = peer.call_raw(&format!("wire.Wire/{method}"), encoding.format(), body);
        assert_eq!(ended.code, Code::InvalidArgument, "{encoding}, {method}: {body:?}: {ended:?}");
    }
    let spaces = peer.call_raw("wire.Wire/one", Encoding::Json.format(), b" [ 7 ] \n");
    assert_eq!(spaces.body, b"7", "white space is no value");
    assert_at_rest(&server);
}

#[test]
fn arguments_that_were_added_later_may_be_missing() {
    let (engine, server) = serve(|| Router::new().service(Plain.into_service()));
    let mut peer = Peer::new(&engine);
    let mut grown =
        |encoding: Encoding, body: &[u8]| peer.call_raw("wire.Wire/grown", encoding.format(), body);
    for body in [&b"[\"a\"]"[..], b"[\"a\",null]", b"[\"a\",null,null]", b"[\"a\",1,\"\"]"] {
        assert_eq!(grown(Encoding::Json, body).body, b"\"a\"");
    }
    assert_eq!(grown(Encoding::Json, b"[\"a\",2,\"b\"]").body, b"\"aab\"");
    assert_eq!(grown(Encoding::MessagePack, b"\x91\xa1a").body, b"\xa1a");
    assert_eq!(grown(Encoding::MessagePack, b"\x92\xa1a\x02").body, b"\xa2aa");
    for (encoding, body) in [
        (Encoding::Json, &b"[]"[..]),
        (Encoding::MessagePack, b"\x90"),
        (Encoding::Postcard, b""),
        (Encoding::Postcard, b"\x01a"),
    ] {
        let ended = grown(encoding, body);
        assert_eq!(ended.code, Code::InvalidArgument, "{encoding}: {ended:?}");
    }
    assert!(grown(Encoding::Json, b"[]").message.contains("there are 0 arguments in place of 3"));
    assert_at_rest(&server);
}

#[test]
fn a_body_of_no_encoding_is_unimplemented_for_values() {
    let (engine, _server) = serve(|| Router::new().service(Plain.into_service()));
    let ended = Peer::new(&engine).call_raw("wire.Wire/nothing", Format::RAW, b"");
    assert_eq!(ended.code, Code::Unimplemented);
}
