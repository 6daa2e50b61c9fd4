//! Services that are made of traits.

use std::thread;

use millstream::rpc::{Call, Code, Encoding, Format, Router, Status, TypedReply};

use super::peer::Peer;
use super::{assert_at_rest, serve};

millstream::rpc::service! {
    /// Keeps numbers.
    pub(crate) trait Numbers in "test.Numbers" {
        /// Keeps one.
        fn push(number: i64) -> usize;
        /// Their sum, and their number.
        idempotent fn sum() -> (i64, usize);
        /// Forgets them.
        fn clear();
        /// The numbers, each this many times.
        ///
        /// It takes a while.
        idempotent later fn repeat(times: u8, reverse: bool) -> Vec<i64>;
        later fn fail_later(why: String);
        /// Returns what came along as `name`, and sends it back as metadata.
        fn name(call: u8,) -> Vec<u8>;
    }

    /// Calls [`Numbers`].
    pub(crate) struct NumbersClient;
}

#[derive(Debug, PartialEq)]
pub(crate) struct TooMany(usize);

impl From<TooMany> for Status {
    fn from(TooMany(most): TooMany) -> Status {
        Status::resource_exhausted(format!("{most} numbers are kept already"))
    }
}

#[derive(Default)]
pub(crate) struct Kept(pub(crate) Vec<i64>);

impl Numbers for Kept {
    type Error = TooMany;

    fn push(&mut self, _call: &mut Call<'_>, number: i64) -> Result<usize, TooMany> {
        if self.0.len() == 3 {
            return Err(TooMany(3));
        }
        self.0.push(number);
        Ok(self.0.len())
    }

    fn sum(&mut self, _call: &mut Call<'_>) -> Result<(i64, usize), TooMany> {
        Ok((self.0.iter().sum(), self.0.len()))
    }

    fn clear(&mut self, _call: &mut Call<'_>) -> Result<(), TooMany> {
        self.0.clear();
        Ok(())
    }

    fn repeat(&mut self, _: &mut Call<'_>, times: u8, reverse: bool, reply: TypedReply<Vec<i64>>) {
        let mut numbers = self.0.repeat(times.into());
        thread::spawn(move || {
            if reverse {
                numbers.reverse();
            }
            reply.send(&numbers);
        });
    }

    fn fail_later(&mut self, _call: &mut Call<'_>, why: String, reply: TypedReply<()>) {
        thread::spawn(move || reply.fail(Status::aborted(why)));
    }

    fn name(&mut self, call: &mut Call<'_>, arg: u8) -> Result<Vec<u8>, TooMany> {
        call.outgoing().insert("name", [arg]).expect("good metadata");
        Ok(call.method().as_bytes().to_vec())
    }
}

#[test]
fn the_methods_of_a_trait_are_those_of_a_service() {
    let (engine, server) =
        serve(|| Router::new().service(Kept::default().into_service()).reflection());
    let mut peer = Peer::new(&engine);
    let json = |peer: &mut Peer, method: &str, body: &str| {
        let ended = peer.call_raw(method, Encoding::Json.format(), body.as_bytes());
        (ended.code, String::from_utf8(ended.body).expect("JSON is text"))
    };
    let ok = |body: &str| (Code::Ok, body.to_owned());
    assert_eq!(json(&mut peer, "test.Numbers/push", "[5]"), ok("1"));
    assert_eq!(json(&mut peer, "test.Numbers/push", "[-7]"), ok("2"));
    assert_eq!(json(&mut peer, "test.Numbers/sum", "null"), ok("[-2,2]"));
    assert_eq!(json(&mut peer, "test.Numbers/repeat", "[2,true]"), ok("[-7,5,-7,5]"));
    assert_eq!(json(&mut peer, "test.Numbers/clear", "null"), ok("null"));
    assert_eq!(json(&mut peer, "test.Numbers/repeat", "[2,false]"), ok("[]"));
    let bad = (Code::InvalidArgument, String::new());
    assert_eq!(json(&mut peer, "test.Numbers/push", "[]"), bad);
    assert_eq!(json(&mut peer, "test.Numbers/push", "[1,2]"), bad);

    let ended = peer.call_raw("millstream.Reflection/methods", Format::RAW, b"test.Numbers");
    let names = ["clear", "fail_later", "name", "push", "repeat", "sum"];
    let lines: String = names.iter().map(|name| format!("test.Numbers/{name}\n")).collect();
    assert_eq!(String::from_utf8_lossy(&ended.body), lines);
    assert_at_rest(&server);
}

#[test]
fn errors_of_a_trait_become_statuses() {
    let (engine, server) = serve(|| Router::new().service(Kept(vec![1, 2, 3]).into_service()));
    let mut peer = Peer::new(&engine);
    for encoding in Encoding::ALL {
        let ended = peer.call("test.Numbers/push", *encoding, &(4,));
        let message = "3 numbers are kept already";
        assert_eq!((ended.code, &*ended.message), (Code::ResourceExhausted, message));
        let ended = peer.call("test.Numbers/fail_later", *encoding, &("rain",));
        assert_eq!((ended.code, &*ended.message), (Code::Aborted, "rain"));
    }
    assert_at_rest(&server);
}

#[test]
fn a_method_of_a_trait_sees_its_call() {
    let (engine, _server) = serve(|| Router::new().service(Kept::default().into_service()));
    let ended = Peer::new(&engine).call("test.Numbers/name", Encoding::Postcard, &(9_u8,));
    assert_eq!(ended.metadata, [("name".to_owned(), vec![9])]);
    let name = Encoding::Postcard.decode::<Vec<u8>>(&ended.body);
    assert_eq!(name.expect("bytes"), b"test.Numbers/name");
}
