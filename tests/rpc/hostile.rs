//! What hostile or broken peers send to an RPC server, and to a client.
#![cfg(feature = "internals")]

use std::time::{Duration, Instant};

use crate::cases::{client, server};
use crate::common::corpus::replay;
use crate::common::seeds::for_each_seed;
use fastrand::Rng;
use millstream::rpc::frame::{Request, Response};
use millstream::rpc::{BareClient, BareServer, Format, MetadataView, Server};
use millstream::{Input, OutputBuffer};

/// How many cases a plain `cargo test` tries.
const SEEDS: u64 = 3_000;

#[test]
fn any_bytes_to_a_server() {
    for_each_seed(SEEDS, |seed| server::Case::draw(&mut Rng::with_seed(seed)).check());
}

#[test]
fn the_fuzzers_inputs_to_a_server() {
    replay("rpc_server", |data| server::Case::read(data).check());
}

#[test]
fn any_bytes_to_a_client() {
    for_each_seed(SEEDS, |seed| client::Case::draw(&mut Rng::with_seed(seed)).check());
}

#[test]
fn the_fuzzers_inputs_to_a_client() {
    replay("rpc_client", |data| client::Case::read(data).check());
}

/// A frame that takes long, of which something comes all the time, is not silence.
#[test]
fn slow_peers_are_not_silent_ones() {
    let (mut now, limits) = (Instant::now(), server::limits());
    let (interval, timeout) = (Duration::from_millis(20), Duration::from_millis(10));
    let server = Server::new().frame_limits(limits).keepalive(interval, timeout);
    let mut server = BareServer::new(now, &server, server::Methods::default());
    let mut client = BareClient::new(now, limits, 1, usize::MAX, Some((interval, timeout)));
    let request = Request {
        id: 0,
        one_way: false,
        is_retry: false,
        timeout: None,
        method: b"a", // Answered with its body.
        metadata: MetadataView::default(),
        format: Format::RAW,
        body: &[7; 100],
    };
    let mut buffer = OutputBuffer::new();
    buffer.set_now(now);
    let deadline = now + Duration::from_secs(60);
    client.start(deadline, request, (), &mut buffer.output()).expect("it begins");

    let request = buffer.take();
    for end in 1..=request.len() {
        now += Duration::from_millis(8);
        buffer.set_now(now);
        let mut input = Input::from(&request[..end]);
        assert!(server.receive(&mut input, &mut buffer.output()));
        assert!(server.on_time(&mut buffer.output()), "it gave up after {end} bytes");
    }
    let response = buffer.take();
    let (mut unread, mut ended) = (Vec::new(), 0);
    for byte in response {
        now += Duration::from_millis(8);
        buffer.set_now(now);
        unread.push(byte);
        let mut input = Input::from(&unread[..]);
        let note = |(), result: Result<Response<'_>, _>| {
            ended += 1;
            assert_eq!(result.expect("it is answered").body, [7; 100]);
        };
        assert!(client.receive(&mut input, &mut buffer.output(), note));
        unread = input.peek().to_vec();
        let nothing = |(), result: Result<Response<'_>, _>| panic!("it ended: {result:?}");
        assert!(client.on_time(&mut buffer.output(), nothing), "it gave up");
    }
    assert_eq!(ended, 1);
}

/// Nor is who sends what is passed over.
#[test]
fn a_peer_that_is_passed_over_is_not_silent() {
    let (now, second) = (Instant::now(), Duration::from_secs(1));
    let server = Server::new().frame_limits(server::limits()).keepalive(10 * second, 5 * second);
    let mut server = BareServer::new(now, &server, server::Methods::default());
    let mut buffer = OutputBuffer::new();
    let mut receive = |time, bytes: &[u8]| {
        buffer.set_now(now + time);
        assert!(server.receive(&mut Input::from(bytes), &mut buffer.output()));
        assert!(server.on_time(&mut buffer.output()), "it gave up after {time:?}");
    };
    let mut header = server::request(1, &mut Rng::with_seed(1));
    header[8] = 1; // 16 MiB
    receive(Duration::ZERO, &header);
    for seconds in 1..60 {
        receive(seconds * second, &[0; 100]);
    }
}
