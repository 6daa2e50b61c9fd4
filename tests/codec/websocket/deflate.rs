//! Compressed messages (RFC 7692).

use fastrand::Rng;
use millstream::sim::Faults;
use millstream::websocket::{
    Broadcast, Message, MessageBuffers, MessageLimits, PerMessageDeflate, PreparedMessage,
    ProtocolError, SlowSubscriber, WebSocketCodec, WebSocketRole, WebSocketServer,
};
use millstream::{Builder, Input, OutputBuffer};

use super::{Client, Event, HANDSHAKE, SECOND, closed, text, world, world_with};
use crate::check::websocket::{Told, tell};
use crate::common::seeds::for_each_seed;

/// All that messages can refer to.
fn with_context() -> PerMessageDeflate {
    PerMessageDeflate::new().min_size(0).send_context(true).receive_context(true)
}

fn codec(role: WebSocketRole, deflate: PerMessageDeflate) -> WebSocketCodec {
    WebSocketCodec::new(role, MessageLimits::default()).deflate(deflate)
}

/// What a codec reads that is given a stream in pieces.
fn read_in(
    codec: &mut WebSocketCodec,
    stream: &[u8],
    piece: usize,
) -> Result<Vec<Told>, ProtocolError> {
    let mut buffers = MessageBuffers::new();
    let (mut told, mut unread) = (Vec::new(), Vec::new());
    for piece in stream.chunks(piece) {
        unread.extend_from_slice(piece);
        let mut input = Input::from(&unread[..]);
        while let Some(message) = codec.decode(&mut input, &mut buffers)? {
            told.push(tell(message));
        }
        let taken = input.taken();
        unread.drain(..taken);
    }
    Ok(told)
}

fn read(stream: &[u8]) -> Result<Vec<Told>, ProtocolError> {
    read_in(&mut codec(WebSocketRole::Client, with_context()), stream, usize::MAX)
}

/// RFC 7692, section 7.2.3, and what others send for an empty message.
#[test]
fn the_examples_of_the_rfc_are_read() {
    let hello = || text("Hello");
    for (stream, told) in [
        (&b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00"[..], vec![hello()]),
        (b"\x41\x03\xf2\x48\xcd\x80\x04\xc9\xc9\x07\x00", vec![hello()]),
        (b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\0\xc1\x05\xf2\0\x11\0\0", vec![hello(), hello()]),
        (b"\xc1\x0b\0\x05\0\xfa\xff\x48\x65\x6c\x6c\x6f\0", vec![hello()]),
        (b"\xc1\x08\xf3\x48\xcd\xc9\xc9\x07\0\0", vec![hello()]),
        (b"\xc1\x07\xf3\x48\xcd\xc9\xc9\x07\0\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\0", vec![hello(); 2]),
        (b"\xc1\x0d\xf2\x48\x05\0\0\0\xff\xff\xca\xc9\xc9\x07\0", vec![hello()]),
        (b"\xc1\x01\0\xc2\0\x41\0\x80\0", vec![text(""), Told::Binary(Vec::new()), text("")]),
        (b"\x41\x03\xf2\x48\xcd\x89\0\x80\x04\xc9\xc9\x07\0", vec![Told::Ping(vec![]), hello()]),
        // One that is not compressed is not part of the context.
        (
            b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\0\x81\x01x\xc1\x05\xf2\0\x11\0\0",
            vec![hello(), text("x"), hello()],
        ),
    ] {
        for piece in [1, 2, 3, usize::MAX] {
            let mut codec = codec(WebSocketRole::Client, with_context());
            let read = read_in(&mut codec, stream, piece);
            assert_eq!(read.as_ref(), Ok(&told), "{} by {piece}", stream.escape_ascii());
        }
    }
}

#[test]
fn the_bit_is_for_the_first_frame_of_a_message() {
    let bits = Err(ProtocolError::ReservedBits { bits: 0x40 });
    for stream in [&b"\xc9\0"[..], b"\xc8\0", b"\x01\x01a\xc0\x01a", b"\x41\x01\xf2\xc0\x01a"] {
        assert_eq!(read(stream), bits, "{}", stream.escape_ascii());
    }
    assert_eq!(read(b"\xe1\0"), Err(ProtocolError::ReservedBits { bits: 0x60 }));
    assert_eq!(read(b"\xa1\0"), Err(ProtocolError::ReservedBits { bits: 0x20 }));
    let mut plain = WebSocketCodec::new(WebSocketRole::Client, MessageLimits::default());
    assert_eq!(read_in(&mut plain, b"\xc1\x01\0", 9), bits, "nothing was agreed on");
}

#[test]
fn what_is_not_deflate_is_refused() {
    for stream in [
        &b"\xc1\x03\xff\xff\xff"[..],    // No such kind of block.
        b"\xc1\x05\x00\x01\x00\x00\x00", // A length that is not repeated.
        b"\xc1\x05\xf2\x00\x11\x00\x00", // A reference to before the beginning.
        b"\x41\x01\x07\x80\x02\x07\x07",
    ] {
        let read = read(stream);
        assert_eq!(read, Err(ProtocolError::NotDeflate), "{}", stream.escape_ascii());
    }
    assert_eq!(ProtocolError::NotDeflate.close_code().number(), 1007);
    // Where no context is kept, there is none to refer to.
    let stream = b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\0\xc1\x05\xf2\0\x11\0\0";
    let mut alone = codec(WebSocketRole::Client, PerMessageDeflate::new());
    assert_eq!(read_in(&mut alone, stream, usize::MAX), Err(ProtocolError::NotDeflate));
}

/// Each stream that ends takes work, so few may add nothing to a message.
#[test]
fn a_message_of_empty_streams_is_refused() {
    let message = |deflated: &[u8]| match u16::try_from(deflated.len()) {
        Ok(length) => [b"\xc2\x7e", &length.to_be_bytes()[..], deflated].concat(),
        Err(_) => [b"\xc2\x7f", &(deflated.len() as u64).to_be_bytes()[..], deflated].concat(),
    };
    let empty = b"\x03\0";
    let few = message(&empty.repeat(1_000));
    let many = message(&empty.repeat(1 << 19));
    let small = with_context().receive_window(9);
    for deflate in [PerMessageDeflate::new(), with_context(), small] {
        for piece in [4_096, usize::MAX] {
            let mut codec = codec(WebSocketRole::Client, deflate);
            let twice = [&few[..], &few].concat();
            let told = read_in(&mut codec, &twice, piece);
            assert_eq!(told, Ok(vec![Told::Binary(Vec::new()); 2]), "they count by message");
            assert_eq!(read_in(&mut codec, &many, piece), Err(ProtocolError::NotDeflate));
        }
    }
    // Those that add something don't count.
    let one_byte = b"\x4b\x04\0".repeat(5_000);
    assert_eq!(read(&message(&one_byte)), Ok(vec![Told::Binary(b"a".repeat(5_000))]));
}

fn written(codec: &mut WebSocketCodec, message: Message<'_>) -> Vec<u8> {
    let mut output = OutputBuffer::new();
    codec.encode(message, &mut output.output()).expect("it can be sent");
    output.take()
}

/// The limit is for what becomes of a message, and holds while it is decompressed.
#[test]
fn a_small_message_does_not_become_a_large_one() {
    let zeros = vec![0; 1 << 24];
    let mut writer = codec(WebSocketRole::Client, PerMessageDeflate::new().level(9));
    let bomb = written(&mut writer, Message::Binary(&zeros));
    assert!(bomb.len() < 20_000, "{} bytes", bomb.len());
    let mut limits = MessageLimits::default();
    limits.message = 100_000;
    let reader = || WebSocketCodec::new(WebSocketRole::Server, limits).deflate(with_context());
    for piece in [100, usize::MAX] {
        let read = read_in(&mut reader(), &bomb, piece);
        assert_eq!(read, Err(ProtocolError::MessageTooLong { max: 100_000 }));
    }
    let longest = written(&mut writer, Message::Binary(&zeros[..100_000]));
    assert_eq!(read_in(&mut reader(), &longest, 100).map(|told| told.len()), Ok(1));
    let longer = written(&mut writer, Message::Binary(&zeros[..100_001]));
    assert!(read_in(&mut reader(), &longer, usize::MAX).is_err());
}

#[test]
fn a_compressed_text_is_checked_as_it_comes() {
    let mut writer = codec(WebSocketRole::Server, with_context().level(0));
    let stream = written(&mut writer, Message::Binary(b"abc\xff and what follows"));
    let as_text = [&[0xc1], &stream[1..]].concat();
    assert_eq!(stream[0], 0xc2, "it is compressed, even if that makes it longer");
    assert_eq!(read(&as_text), Err(ProtocolError::NotUtf8));
    assert_eq!(read(&as_text[..12]), Err(ProtocolError::NotUtf8), "not only at its end");
}

#[test]
fn a_message_is_compressed_if_that_is_worth_it() {
    let deflate = PerMessageDeflate::new().min_size(100);
    let mut writer = codec(WebSocketRole::Server, deflate);
    let mut is_compressed =
        |payload: &[u8]| written(&mut writer, Message::Binary(payload))[0] & 0x40 != 0;
    assert!(is_compressed(&[7; 100]) && !is_compressed(&[7; 99]) && !is_compressed(b""));
    let mut random = vec![0; 10_000];
    Rng::with_seed(0).fill(&mut random);
    assert!(!is_compressed(&random), "it would become longer");
    // With a context, others make it shorter.
    let mut writer = codec(WebSocketRole::Server, with_context());
    let first = written(&mut writer, Message::Binary(&random)).len();
    let second = written(&mut writer, Message::Binary(&random)).len();
    assert!(first >= 10_000 && second < 300, "{first} and {second} bytes");
}

/// Whatever is agreed on, what one end writes the other one reads; also with a window that is no
/// larger than it has to be, which holds only as much as was agreed on.
#[test]
fn what_is_written_is_read() {
    for_each_seed(150, |seed| {
        let mut rng = Rng::with_seed(seed);
        let (bits, level, context) = (rng.u8(9..=15), rng.u32(..=9), rng.bool());
        let deflate = PerMessageDeflate::new().min_size(rng.usize(..100)).level(level);
        let writes = deflate.send_window(bits).send_context(context);
        let reads = deflate.receive_window(bits).receive_context(context || rng.bool());
        let (one, other) = *rng
            .choice(&[
                (WebSocketRole::Server, WebSocketRole::Client),
                (WebSocketRole::Client, WebSocketRole::Server),
            ])
            .expect("there are two");
        let (mut writer, mut reader) = (codec(one, writes), codec(other, reads));
        for _ in 0..rng.usize(1..6) {
            let payload = repetitive(&mut rng);
            let message = match str::from_utf8(&payload) {
                Ok(text) => Message::Text(text),
                Err(_) => Message::Binary(&payload),
            };
            let stream = written(&mut writer, message);
            let piece = *rng.choice(&[10, 200, 5_000, usize::MAX]).expect("some");
            let came = read_in(&mut reader, &stream, piece).expect("it is right");
            assert!(came == [tell(message)], "{} bytes by {piece}", payload.len());
        }
    });
}

/// Bytes of which many came before, in various distances.
fn repetitive(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    let size = *rng.choice(&[0, 1, 100, 2_000, 50_000]).expect("some");
    while bytes.len() < size {
        let length = rng.usize(1..=40);
        match rng.u8(..3) {
            0 => bytes.extend((0..length).map(|_| rng.alphanumeric() as u8)),
            1 if rng.u8(..40) == 0 => bytes.extend((0..length).map(|_| rng.u8(..))),
            _ if !bytes.is_empty() => {
                let from = rng.usize(..bytes.len());
                let to = bytes.len().min(from + length);
                bytes.extend_from_within(from..to);
            }
            _ => {}
        }
    }
    bytes
}

/// The server's answer to an offer, or its status if it refuses the handshake.
fn answer(deflate: PerMessageDeflate, offer: &str) -> String {
    let mut world = world(WebSocketServer::new().deflate(deflate));
    let mut peer = world.sim.connect().expect("it listens");
    world.sim.send_all(&mut peer, offering(offer).as_bytes()).expect("it is received");
    let head = world.head(&mut peer);
    let answer = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Extensions: "));
    match &head[9..12] {
        "101" => answer.unwrap_or("none").to_owned(),
        status => status.to_owned(),
    }
}

fn offering(offer: &str) -> String {
    let end = format!("\r\nSec-WebSocket-Extensions: {offer}\r\n\r\n");
    HANDSHAKE.replace("\r\n\r\n", &end)
}

const ALONE: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

#[test]
fn what_is_agreed_on() {
    let small = with_context().send_window(11).receive_window(10);
    for (deflate, offer, expected) in [
        (PerMessageDeflate::new(), "permessage-deflate", ALONE),
        (PerMessageDeflate::new(), "permessage-deflate; client_max_window_bits", ALONE),
        (with_context(), "permessage-deflate", "permessage-deflate"),
        (with_context(), "Permessage-Deflate;client_max_window_bits", "permessage-deflate"),
        (
            with_context(),
            "permessage-deflate ; server_no_context_takeover",
            "permessage-deflate; server_no_context_takeover",
        ),
        (
            with_context(),
            "permessage-deflate; client_no_context_takeover",
            "permessage-deflate; client_no_context_takeover",
        ),
        (
            with_context(),
            "permessage-deflate; server_max_window_bits=10; client_max_window_bits=\"12\"",
            "permessage-deflate; server_max_window_bits=10; client_max_window_bits=12",
        ),
        (
            with_context(),
            "permessage-deflate; server_max_window_bits = 15; client_max_window_bits=8",
            "permessage-deflate; server_max_window_bits=15; client_max_window_bits=8",
        ),
        (
            small,
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; server_max_window_bits=11; client_max_window_bits=10",
        ),
        // The client's window can't be chosen.
        (small, "permessage-deflate", "none"),
        // The window of 8 bits is none that can be compressed with, but the next offer is taken.
        (
            with_context(),
            "permessage-deflate; server_max_window_bits=8, permessage-deflate",
            "permessage-deflate",
        ),
    ] {
        assert_eq!(answer(deflate, offer), expected, "{offer}");
    }
}

/// RFC 7692, section 7.1: such offers are declined.
#[test]
fn offers_that_are_wrong_are_declined() {
    for parameters in [
        "server_no_context_takeover; server_no_context_takeover",
        "client_no_context_takeover; client_no_context_takeover",
        "server_max_window_bits=10; server_max_window_bits=10",
        "client_max_window_bits; client_max_window_bits",
        "client_max_window_bits; client_max_window_bits=10",
        "server_max_window_bits",
        "server_max_window_bits=7",
        "server_max_window_bits=16",
        "server_max_window_bits=010",
        "server_max_window_bits=+10",
        "server_max_window_bits=1O",
        "client_max_window_bits=16",
        "client_max_window_bits=300",
        "server_no_context_takeover=1",
        "client_no_context_takeover=true",
        "unknown",
        "unknown=1",
    ] {
        let offer = format!("permessage-deflate; {parameters}");
        assert_eq!(answer(with_context(), &offer), "none", "{offer}");
        let second = format!("{offer}, x-unknown; a=b, permessage-deflate");
        assert_eq!(answer(with_context(), &second), "permessage-deflate", "{second}");
    }
    assert_eq!(answer(with_context(), "x-webkit-deflate-frame"), "none");
    assert_eq!(answer(with_context(), ", permessage-deflate,,"), "permessage-deflate");
    let lines = "x-unknown\r\nSec-WebSocket-Extensions: permessage-deflate";
    assert_eq!(answer(with_context(), lines), "permessage-deflate");
}

/// RFC 6455, section 9.1: what is not a list of extensions fails the handshake.
#[test]
fn a_field_that_is_not_a_list_is_refused() {
    for offer in [
        "permessage-deflate; ",
        "permessage-deflate client_max_window_bits",
        "permessage-deflate; =10",
        "permessage-deflate; server_max_window_bits=",
        "permessage-deflate; server_max_window_bits=\"10",
        "permessage-deflate; server_max_window_bits=\"1 0\"",
        "=",
        "\"permessage-deflate\"",
    ] {
        assert_eq!(answer(with_context(), offer), "400", "{offer}");
    }
}

/// A client that has agreed on compression, and the server's half of the agreement.
fn agreed(world: &mut super::World<impl millstream::http::Handler>, offer: &str) -> Client {
    let mut client = Client::new(world.sim.connect().expect("it listens"));
    let request = offering(offer);
    world.sim.send_all(&mut client.peer, request.as_bytes()).expect("it is received");
    let head = world.head(&mut client.peer);
    let keeps = |name| !head.contains(name);
    let deflate = PerMessageDeflate::new()
        .min_size(0)
        .send_context(keeps("client_no_context_takeover"))
        .receive_context(keeps("server_no_context_takeover"));
    client.codec = client.codec.deflate(deflate);
    client
}

#[test]
fn messages_are_compressed_in_both_directions() {
    for (context, expected) in [(false, 600), (true, 150)] {
        let deflate = PerMessageDeflate::new().send_context(context).receive_context(context);
        let server = WebSocketServer::new().deflate(deflate);
        let mut world = world_with(1, Faults::harmless(), Builder::default(), server);
        let mut client = agreed(&mut world, "permessage-deflate");
        let mut rng = Rng::with_seed(2);
        let long: String = (0..300).map(|_| rng.alphanumeric()).collect::<String>().repeat(2);
        let before = client.came;
        for _ in 0..3 {
            world.send(&mut client, Message::Text(&long));
            assert_eq!(world.receive_for(&mut client, 20 * SECOND), [text(&long)]);
        }
        let each = (client.came - before) / 3;
        assert!(each < expected, "{each} bytes for each message of 600");
        world.send(&mut client, Message::Text("short"));
        assert_eq!(world.receive_for(&mut client, 20 * SECOND), [text("short")]);
        world.sim.send_all(&mut client.peer, b"\xc1\x83\0\0\0\0\xff\xff\xff").expect("received");
        let told = world.receive_for(&mut client, 20 * SECOND);
        assert_eq!(told, [closed(1007, "a message is not compressed as it says")]);
    }
}

/// One message for connections that have agreed on different things.
#[test]
fn one_message_goes_to_all() {
    let mut world = world(WebSocketServer::new().deflate(with_context()));
    let mut clients = vec![world.client()];
    for offer in [
        "permessage-deflate; server_no_context_takeover",
        "permessage-deflate; server_no_context_takeover",
        "permessage-deflate; server_no_context_takeover; server_max_window_bits=9",
        "permessage-deflate",
    ] {
        clients.push(agreed(&mut world, offer));
    }
    let broadcast = Broadcast::new(SlowSubscriber::Skip);
    while let Ok(event) = world.events.try_recv() {
        if let Event::Opened(remote) = event {
            broadcast.subscribe(remote);
        }
    }
    let long = "one for all, ".repeat(1_000);
    for _ in 0..2 {
        assert_eq!(broadcast.send(&PreparedMessage::text(&long)), 5);
        for (number, client) in clients.iter_mut().enumerate() {
            let before = client.came;
            assert!(world.receive(client) == [text(&long)], "client {number}");
            let came = client.came - before;
            assert_eq!(came < 1_000, number > 0, "client {number}: {came} bytes");
        }
    }
}
