//! The client of a service, in all forms of a call, and what it makes of a server that answers
//! nonsense.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use millstream::codec::Codec;
use millstream::rpc::frame::{Frame, FrameCodec, Response};
use millstream::rpc::{
    Answer, Call, Client, Code, Encoding, Format, Handler, MetadataView, Middleware, Router,
    Status, TypedRequest, typed,
};
use millstream::{Input, OutputBuffer};

use super::service::{Kept, Numbers, NumbersClient};
use super::{assert_at_rest, serve};
use crate::common::{DEADLINE, receive};

fn connect(address: SocketAddr) -> Client {
    Client::builder().address(address.to_string()).timeout(DEADLINE).build().expect("a client")
}

/// Every call has ended.
fn assert_done(client: &Client) {
    let stats = client.stats();
    assert_eq!(stats.started, stats.succeeded + stats.failed, "{stats:?}");
    client.stop(DEADLINE).expect("it ends in time");
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future without a runtime.
fn block_on<F: IntoFuture>(future: F) -> F::Output {
    let mut future = pin!(future.into_future());
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let end = Instant::now() + DEADLINE;
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let left = end.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "the call ends in time");
        thread::park_timeout(left);
    }
}

/// A layer that can neither be cloned nor printed.
struct Passes;

impl Middleware for Passes {
    fn handle(&self, call: &mut Call<'_>, next: &mut impl Handler) -> Result<Answer, Status> {
        next.handle(call)
    }
}

#[test]
fn a_client_of_a_service_is_cloned_whatever_its_layers_are() {
    let (engine, server) = serve(|| Router::new().service(Kept::default().into_service()));
    let builder = Client::builder().address(engine.address().to_string()).timeout(DEADLINE);
    let client = builder.layer(Passes).build().expect("a client");
    let numbers = NumbersClient::new(client.clone(), Encoding::Postcard);
    assert_eq!(numbers.clone().push(5).call().expect("it is kept"), 1);
    let shown = format!("{numbers:?}");
    assert!(shown.starts_with("NumbersClient { client: Client"), "{shown}");
    client.stop(DEADLINE).expect("it ends in time");
    assert_at_rest(&server);
}

#[test]
fn a_method_is_called_in_every_form() {
    let (engine, server) = serve(|| Router::new().service(Kept::default().into_service()));
    let client = connect(engine.address());
    for encoding in Encoding::ALL {
        let numbers = NumbersClient::new(client.clone(), *encoding);
        assert_eq!(numbers.push(5).call(), Ok(1), "{encoding}");
        assert_eq!(block_on(numbers.push(-7).start()), Ok(2));
        assert_eq!(block_on(async { numbers.sum().await }), Ok((-2, 2)));
        let (done, results) = mpsc::channel();
        numbers.repeat(2, true).call_then(move |numbers| {
            let _ = done.send(numbers);
        });
        assert_eq!(receive(&results), Ok(vec![-7, 5, -7, 5]));
        numbers.push(1).send().expect("there is room");
        assert_eq!(numbers.sum().call(), Ok((-1, 3)));
        assert_eq!(numbers.clear().call(), Ok(()));
        assert_eq!(numbers.clone().sum().encoding(Encoding::Json).call(), Ok((0, 0)));
    }
    assert_done(&client);
    assert_at_rest(&server);
}

#[test]
fn a_status_arrives_in_every_form() {
    let (engine, server) = serve(|| Router::new().service(Kept(vec![1, 2, 3]).into_service()));
    let client = connect(engine.address());
    let numbers = NumbersClient::new(client.clone(), Encoding::Postcard);
    let status = numbers.push(4).call().expect_err("there is no room");
    assert_eq!(status.to_string(), "RESOURCE_EXHAUSTED: 3 numbers are kept already");
    assert_eq!(block_on(numbers.push(4)), Err(status.clone()));
    let (done, results) = mpsc::channel();
    numbers.push(4).call_then(move |result| {
        let _ = done.send(result);
    });
    assert_eq!(receive(&results), Err(status));
    let status = numbers.fail_later("rain".to_owned()).call().expect_err("it fails");
    assert_eq!(status.to_string(), "ABORTED: rain");
    assert_done(&client);
    assert_at_rest(&server);
}

#[test]
fn what_is_particular_about_a_call_arrives() {
    let (engine, server) = serve(|| {
        Router::new().method(
            "test/see",
            typed(|call: &mut Call<'_>, (): ()| {
                let tenant = call.metadata().get("tenant").unwrap_or_default().to_vec();
                let timeout = call.timeout().map(|timeout| timeout.as_secs());
                Ok((tenant, timeout, call.format().encoding))
            }),
        )
    });
    let client = connect(engine.address());
    let request: TypedRequest<'_, _, _, (Vec<u8>, Option<u64>, u8)> =
        TypedRequest::new(&client, "test/see", (), Encoding::Json);
    let seen = request
        .encoding(Encoding::MessagePack)
        .metadata("tenant", "blue")
        .expect("good metadata")
        .timeout(Duration::from_millis(4999))
        .call();
    assert_eq!(seen, Ok((b"blue".to_vec(), Some(4), 2)));
    let numbers = NumbersClient::new(client.clone(), Encoding::Json);
    let is_idempotent = |text: String| text.contains("idempotent: true");
    assert!(is_idempotent(format!("{:?}", numbers.sum())));
    assert!(is_idempotent(format!("{:?}", numbers.repeat(1, false))));
    assert!(!is_idempotent(format!("{:?}", numbers.push(1))));
    assert!(!is_idempotent(format!("{:?}", numbers.fail_later(String::new()))));
    assert_done(&client);
    assert_at_rest(&server);
}

#[test]
fn a_request_that_can_not_be_written_is_not_sent() {
    type Places = std::collections::BTreeMap<(u8, u8), u8>;
    let (engine, server) = serve(Router::new);
    let client = connect(engine.address());
    let request = || -> TypedRequest<'_, _, Places, ()> {
        let places = Places::from([((1, 2), 3)]);
        TypedRequest::new(&client, "test/map", places, Encoding::Json)
    };
    let text = "INTERNAL: the request can't be written: the value can't be written as JSON: key must be a string";
    assert_eq!(request().call().expect_err("no JSON").to_string(), text);
    assert_eq!(request().send().expect_err("no JSON").to_string(), text);
    let mut calling = request().start();
    assert_eq!(block_on(&mut calling).expect_err("no JSON").to_string(), text);
    let text = "INTERNAL: the call has ended already";
    assert_eq!(block_on(calling).expect_err("it has ended").to_string(), text);
    assert_eq!(client.stats().started, 0);
    assert_eq!(server.stats().started, 0);
    assert_done(&client);
}

/// Listens, and answers each request in this way; tells what came.
struct Parrot {
    address: SocketAddr,
    requests: Receiver<(Format, Vec<u8>)>,
    thread: JoinHandle<()>,
}

impl Parrot {
    /// Of one connection, until its end.
    fn start(answers: Vec<(Format, Vec<u8>)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (sender, requests) = mpsc::channel();
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client comes");
            stream.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
            let (mut codec, mut received) = (FrameCodec::default(), Vec::new());
            let mut answers = answers.into_iter();
            loop {
                let mut input = Input::from(&*received);
                if let Some(frame) = codec.decode(&mut input).expect("a good frame") {
                    let Frame::Request(request) = frame else { panic!("{frame:?}") };
                    let _ = sender.send((request.format, request.body.to_vec()));
                    let (format, body) = answers.next().expect("no more requests");
                    let answer = respond(request.id, format, &body);
                    let taken = input.taken();
                    received.drain(..taken);
                    stream.write_all(&answer).expect("it is read");
                    continue;
                }
                let mut chunk = [0; 4096];
                match stream.read(&mut chunk).expect("something in time") {
                    0 => break,
                    count => received.extend_from_slice(&chunk[..count]),
                }
            }
        });
        Parrot { address, requests, thread }
    }

    fn end(self) {
        self.thread.join().expect("all went well");
    }
}

fn respond(id: u64, format: Format, body: &[u8]) -> Vec<u8> {
    let (metadata, code, message) = (MetadataView::default(), Code::Ok, "");
    let response = Response { id, not_run: false, code, message, metadata, format, body };
    let mut buffer = OutputBuffer::new();
    FrameCodec::default().encode(Frame::Response(response), &mut buffer.output()).expect("a frame");
    buffer.take()
}

#[test]
fn a_response_that_makes_no_sense_is_an_internal_error() {
    let cases: [(Format, &[u8], &str); 4] = [
        (Format::RAW, b"7", "its encoding is none of those that are built in"),
        (Encoding::Json.format(), b"-7", "the bytes are not the value as JSON: invalid value"),
        (Encoding::Postcard.format(), b"", "the bytes are not the value as postcard: Hit the end"),
        (
            Format { encoding: 3, compression: 9 },
            b"7",
            "UNIMPLEMENTED: no compression of number 9 is built in here",
        ),
    ];
    let answers = cases.iter().map(|(format, body, _)| (*format, body.to_vec()));
    let parrot = Parrot::start(answers.collect());
    let client = connect(parrot.address);
    for (_, _, why) in cases {
        let request: TypedRequest<'_, _, _, u8> =
            TypedRequest::new(&client, "a/b", (), Encoding::Json);
        let status = request.call().expect_err("no number").to_string();
        let text = format!("INTERNAL: the response can't be read: {why}");
        assert!(status.starts_with(&text), "{status:?} is not {text:?}");
        assert_eq!(receive(&parrot.requests), (Encoding::Json.format(), b"null".to_vec()));
    }
    assert_done(&client);
    parrot.end();
}

#[cfg(all(feature = "deflate", feature = "lz4"))]
#[test]
fn compression_goes_both_ways() {
    use millstream::rpc::{Compression, FrameLimits, Request};

    use crate::typed::compression::built_in::KINDS;

    let mut limits = FrameLimits::default();
    limits.max_body = 100_000;
    let body = vec![7; 100_000];
    for ((number, pack, unpack), compression) in
        KINDS.into_iter().zip([Compression::Deflate, Compression::Lz4])
    {
        let format = Format { encoding: 0, compression: number };
        let parrot = Parrot::start(vec![
            (format, pack(&body)),
            (Format::RAW, Vec::new()),
            (format, pack(&[7; 100_001])),
            (format, b"\0\0\0\x01".to_vec()),
        ]);
        let client = Client::builder()
            .address(parrot.address.to_string())
            .frame_limits(limits)
            .build()
            .expect("a client");
        let call = |body: Vec<u8>| {
            let request = Request::new("a/b").body(body.clone()).compression(compression);
            let result = client.call(request);
            let (sent, packed) = receive(&parrot.requests);
            assert_eq!((sent, unpack(&packed)), (format, body), "{compression:?}");
            result
        };
        let response = call(body.clone()).expect("good bytes");
        assert_eq!((response.format, &response.body[..]), (Format::RAW, &body[..]));
        let response = call(Vec::new()).expect("no bytes");
        assert_eq!((response.format, &response.body[..]), (Format::RAW, &[][..]));
        let read = "INTERNAL: the response can't be read: ";
        let bomb = "RESOURCE_EXHAUSTED: a body has 100001 bytes when it is not compressed any more; the limit is 100000";
        let status = call(b"short".to_vec()).expect_err("a bomb");
        assert_eq!(status.to_string(), format!("{read}{bomb}"));
        let status = call(body.clone()).expect_err("no stream");
        assert!(status.to_string().starts_with(&format!("{read}INVALID_ARGUMENT: ")), "{status}");
        assert_done(&client);
        parrot.end();
    }

    let (engine, server) = serve(|| Router::new().service(Kept(vec![5; 1000]).into_service()));
    let client = connect(engine.address());
    for encoding in Encoding::ALL {
        let numbers = NumbersClient::new(client.clone(), *encoding);
        for compression in [Compression::Deflate, Compression::Lz4] {
            let repeated = numbers.repeat(20, false).compression(compression).call();
            assert_eq!(repeated.map(|numbers| numbers.len()), Ok(20_000));
        }
    }
    assert_done(&client);
    assert_at_rest(&server);
}
