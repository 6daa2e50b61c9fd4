//! The codec: against a naive reader, which is shared with the fuzzer; the RFC's examples; and what
//! is refused.

use fastrand::Rng;
use millstream::websocket::{
    Close, CloseCode, EncodeError, Message, MessageBuffers, MessageLimits, ProtocolError,
    WebSocketCodec, WebSocketRole,
};
use millstream::{Input, OutputBuffer};

use crate::check::websocket::{Case, Told, random_case, read_all};
use crate::common::corpus::replay;
use crate::common::seeds::for_each_seed;

#[test]
fn random_messages_are_read_as_a_naive_reader_reads_them() {
    for_each_seed(3_000, |seed| {
        let (options, stream) = random_case(&mut Rng::with_seed(seed));
        Case { options, seed, stream: &stream }.check();
    });
}

#[test]
fn the_fuzzers_inputs_are_read_as_a_naive_reader_reads_them() {
    replay("websocket", |bytes| Case::read(bytes).check());
}

/// RFC 6455, section 5.7.
#[test]
fn the_examples_of_the_rfc() {
    let hello = || Told::Text("Hello".into());
    let (client, server) = (WebSocketRole::Client, WebSocketRole::Server);
    let long = |head: &[u8], length: usize| [head, &vec![7; length]].concat();
    for (role, stream, told) in [
        (client, b"\x81\x05Hello".to_vec(), hello()),
        (server, b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58".to_vec(), hello()),
        (client, b"\x01\x03Hel\x80\x02lo".to_vec(), hello()),
        (client, b"\x89\x05Hello".to_vec(), Told::Ping(b"Hello".into())),
        (
            server,
            b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58".to_vec(),
            Told::Pong(b"Hello".into()),
        ),
        (client, long(b"\x82\x7e\x01\x00", 256), Told::Binary(vec![7; 256])),
        (client, long(b"\x82\x7f\0\0\0\0\0\x01\0\0", 65536), Told::Binary(vec![7; 65536])),
    ] {
        assert_eq!(read_all(role, &stream), Ok(vec![told]));
    }
}

fn written(role: WebSocketRole, message: Message<'_>) -> Result<Vec<u8>, EncodeError> {
    let mut output = OutputBuffer::new();
    WebSocketCodec::new(role, MessageLimits::default())
        .encode(message, &mut output.output())
        .map(|()| output.take())
}

#[test]
fn a_server_writes_the_examples_of_the_rfc() {
    let write = |message| written(WebSocketRole::Server, message).expect("it can be sent");
    assert_eq!(write(Message::Text("Hello")), b"\x81\x05Hello");
    assert_eq!(write(Message::Ping(b"Hello")), b"\x89\x05Hello");
    assert!(write(Message::Binary(&[7; 256])).starts_with(b"\x82\x7e\x01\x00\x07"));
    assert!(write(Message::Binary(&[7; 65536])).starts_with(b"\x82\x7f\0\0\0\0\0\x01\0\0\x07"));
    assert_eq!(write(Message::Close(None)), b"\x88\0");
    let close = Close { code: CloseCode::GOING_AWAY, reason: "bye" };
    assert_eq!(write(Message::Close(Some(close))), b"\x88\x05\x03\xe9bye");
}

#[test]
fn what_a_client_writes_is_masked_anew_each_time() {
    let text = "x".repeat(100_000);
    let [one, two] =
        [(); 2].map(|()| written(WebSocketRole::Client, Message::Text(&text)).expect("sent"));
    assert_eq!(one[..2], [0x81, 0xff]);
    assert_ne!(one, two, "the keys differ");
    for stream in [one, two] {
        assert_eq!(read_all(WebSocketRole::Server, &stream), Ok(vec![Told::Text(text.clone())]));
    }
}

#[test]
fn control_frames_are_short() {
    for role in [WebSocketRole::Server, WebSocketRole::Client] {
        let is_sent = |message: Message<'_>| written(role, message).is_ok();
        assert!(is_sent(Message::Ping(&[0; 125])) && is_sent(Message::Pong(&[0; 125])));
        assert!(!is_sent(Message::Ping(&[0; 126])) && !is_sent(Message::Pong(&[0; 126])));
        let reason = |length| "x".repeat(length);
        let close =
            |reason: &str| is_sent(Message::Close(Some(Close { code: CloseCode::NORMAL, reason })));
        assert!(close(&reason(123)) && !close(&reason(124)));
    }
}

#[test]
fn limits_are_exact() {
    let mut limits = MessageLimits::default();
    (limits.frame, limits.message) = (10, 15);
    let read = |stream: &[u8]| {
        let mut codec = WebSocketCodec::new(WebSocketRole::Client, limits);
        let (mut input, mut buffers) = (Input::from(stream), MessageBuffers::new());
        codec.decode(&mut input, &mut buffers).map(|message| message.is_some())
    };
    let frame = |first: u8, length: u8| [&[first, length][..], &vec![7; length.into()]].concat();
    assert_eq!(read(&frame(0x82, 10)), Ok(true));
    let too_long = ProtocolError::FrameTooLong { length: 11, max: 10 };
    assert_eq!(read(&[0x82, 11]), Err(too_long), "before its payload comes");
    assert_eq!(read(&[frame(2, 10), frame(0x80, 5)].concat()), Ok(true));
    let head = [0x80, 6];
    let too_long = ProtocolError::MessageTooLong { max: 15 };
    assert_eq!(read(&[&frame(2, 10)[..], &head].concat()), Err(too_long));
    assert_eq!(too_long.close_code(), CloseCode::TOO_LONG);
    // A frame of 2^63 - 1 bytes takes no memory either.
    let most = [&[0x82, 127][..], &(u64::MAX >> 1).to_be_bytes()].concat();
    assert!(matches!(read(&most), Err(ProtocolError::FrameTooLong { .. })));
}

/// Autobahn's 6.4: what can't become a text is found before the message, or even the frame, ends.
#[test]
fn bytes_that_no_text_has_are_found_at_once() {
    let mut codec = WebSocketCodec::new(WebSocketRole::Client, MessageLimits::default());
    let mut buffers = MessageBuffers::new();
    let mut read = |bytes: &[u8]| codec.decode(&mut Input::from(bytes), &mut buffers).map(|_| ());
    assert_eq!(read(b"\x01\x7e\x01\x00"), Ok(()));
    assert_eq!(read("κόσμε".as_bytes()), Ok(()));
    assert_eq!(read(b"\xf4"), Ok(()), "it may go on with 0x8f");
    assert_eq!(read(b"\x90"), Err(ProtocolError::NotUtf8));
    assert_eq!(read(b"\x89\0"), Ok(()), "nothing behind it is read");
    assert_eq!(ProtocolError::NotUtf8.close_code(), CloseCode::INVALID_DATA);
}

#[test]
fn a_text_does_not_end_within_a_character() {
    for stream in [&b"\x81\x01\xc3"[..], b"\x01\x01\xc3\x80\0", b"\x01\x01\xc3\x80\x01a"] {
        assert_eq!(read_all(WebSocketRole::Client, stream), Err(ProtocolError::NotUtf8));
    }
    let parts = b"\x01\x01\xc3\x89\0\x80\x01\xa4";
    assert_eq!(
        read_all(WebSocketRole::Client, parts),
        Ok(vec![Told::Ping(Vec::new()), Told::Text("ä".into())])
    );
}

#[test]
fn what_may_not_be_sent_is_refused() {
    let ends = |stream: &[u8]| read_all(WebSocketRole::Client, stream).expect_err("it is refused");
    for (stream, error) in [
        (&b"\xc1\0"[..], ProtocolError::ReservedBits { bits: 0x40 }),
        (b"\x83\0", ProtocolError::Opcode { opcode: 3 }),
        (b"\x8b\0", ProtocolError::Opcode { opcode: 11 }),
        (b"\x81\x7e\0\x7d", ProtocolError::Length { length: 125 }),
        (b"\x81\x7f\0\0\0\0\0\0\xff\xff", ProtocolError::Length { length: 0xffff }),
        (b"\x81\x7f\x80\0\0\0\0\x01\0\0", ProtocolError::Length { length: (1 << 63) | 0x1_0000 }),
        (b"\x81\x80\0\0\0\0", ProtocolError::Masked),
        (b"\x09\0", ProtocolError::ControlNotFinal),
        (b"\x89\x7e\0\x7e", ProtocolError::ControlTooLong { length: 126 }),
        (b"\x80\0", ProtocolError::NothingToContinue),
        (b"\x01\0\x01\0", ProtocolError::WithinMessage),
        (b"\x88\x01\x03", ProtocolError::HalfCode),
        (b"\x88\x02\x03\xed", ProtocolError::Code { code: 1005 }),
        (b"\x88\x03\x03\xe8\xff", ProtocolError::NotUtf8),
    ] {
        assert_eq!(ends(stream), error, "{}", stream.escape_ascii());
    }
    assert_eq!(read_all(WebSocketRole::Server, b"\x81\0"), Err(ProtocolError::NotMasked));
}

#[test]
fn nothing_is_read_behind_a_close() {
    let stream = b"\x81\x01a\x88\0\x81\x01b\xff\xff";
    assert_eq!(
        read_all(WebSocketRole::Client, stream),
        Ok(vec![Told::Text("a".into()), Told::Close(None)])
    );
}
