//! The codec, by cases and against a naive parser.

use millstream::OutputBuffer;

use super::*;

const PROTOCOL: Protocol = Protocol { max_payload: 1_000 };

fn decode(bytes: &[u8]) -> Result<Option<(Op<'_>, usize)>, ProtocolError> {
    let mut input = Input::from(bytes);
    let mut protocol = PROTOCOL;
    Ok(protocol.decode(&mut input)?.map(|op| (op, input.taken())))
}

/// The one operation that the bytes are.
fn whole(bytes: &[u8]) -> Op<'_> {
    let (op, taken) = decode(bytes).expect("it is right").expect("it is whole");
    assert_eq!(taken, bytes.len());
    op
}

fn published(bytes: &[u8]) -> (&[u8], Message<'_>) {
    match whole(bytes) {
        Op::Publish { subject, message } => (subject, message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn operations_are_taken_apart() {
    let (queue, sid) = (None, &b"1"[..]);
    assert_eq!(whole(b"SUB foo 1\r\n"), Op::Subscribe { subject: b"foo", queue, sid });
    assert_eq!(whole(b"sub\tfoo  1  \n"), Op::Subscribe { subject: b"foo", queue, sid });
    let queue = Some(&b"q"[..]);
    assert_eq!(whole(b"SUB foo q 1\r\n"), Op::Subscribe { subject: b"foo", queue, sid });
    assert_eq!(whole(b"UNSUB 1\r\n"), Op::Unsubscribe { sid, max: None });
    assert_eq!(whole(b"UNSUB 1 5\r\n"), Op::Unsubscribe { sid, max: Some(5) });
    for nothing in [&b"UNSUB 1 0\r\n"[..], b"UNSUB 1 x\r\n", b"UNSUB 1 -3\r\n"] {
        assert_eq!(whole(nothing), Op::Unsubscribe { sid, max: Some(0) });
    }
    assert_eq!(whole(b"CONNECT {\"a\": 1}\r\n"), Op::Connect(b"{\"a\": 1}"));
    assert_eq!(whole(b"CONNECT\r\n"), Op::Connect(b""));
    assert_eq!(whole(b"PING\r\n"), Op::Ping);
    assert_eq!(whole(b"ping  \n"), Op::Ping);
    assert_eq!(whole(b"PONG\r\n"), Op::Pong);
    assert_eq!(whole(b"+OK\r\n"), Op::Nothing);
    assert_eq!(whole(b"INFO {}\r\n"), Op::Nothing);
}

/// What is as in the message to a subscriber is not copied.
#[test]
fn a_message_is_borrowed() {
    for (bytes, reply, headers, tail) in [
        (&b"PUB foo 5\r\nhello\r\n"[..], &b""[..], 0, &b"5\r\nhello\r\n"[..]),
        (b"pub  foo \t 5\r\nhello\r\n", b"", 0, b"5\r\nhello\r\n"),
        (b"PUB foo bar 2\r\n\r\n\r\n", b"bar", 0, b"bar 2\r\n\r\n\r\n"),
        (b"PUB foo 0\r\n\r\n", b"", 0, b"0\r\n\r\n"),
        (b"HPUB foo 12 14\r\nNATS/1.0\r\n\r\nhi\r\n", b"", 12, b"12 14\r\nNATS/1.0\r\n\r\nhi\r\n"),
        (b"HPUB foo r 12 12\r\nNATS/1.0\r\n\r\n\r\n", b"r", 12, b"r 12 12\r\nNATS/1.0\r\n\r\n\r\n"),
    ] {
        let (subject, message) = published(bytes);
        assert_eq!(subject, b"foo");
        assert!(matches!(message.tail, Cow::Borrowed(_)), "{}", bytes.escape_ascii());
        assert_eq!((message.reply, message.headers, &*message.tail), (reply, headers, tail));
    }
}

/// What is not is made so.
#[test]
fn a_message_has_one_form() {
    for (bytes, tail) in [
        (&b"PUB foo 5\nhello\r\n"[..], &b"5\r\nhello\r\n"[..]),
        (b"PUB foo 5 \r\nhello\r\n", b"5\r\nhello\r\n"),
        (b"PUB foo bar\t2\r\nhi\r\n", b"bar 2\r\nhi\r\n"),
        (b"PUB foo bar  2\r\nhi\r\n", b"bar 2\r\nhi\r\n"),
        (b"HPUB foo bar  2 4\r\nhihi\r\n", b"bar 2 4\r\nhihi\r\n"),
        (b"HPUB foo bar 0 4\r\nhihi\r\n", b"bar 4\r\nhihi\r\n"),
        (b"HPUB foo 0 4\r\nhihi\r\n", b"4\r\nhihi\r\n"),
    ] {
        let (_, message) = published(bytes);
        assert_eq!(&*message.tail, tail, "{}", bytes.escape_ascii());
    }
}

#[test]
fn headers_can_be_left_out() {
    let (_, message) = published(b"HPUB foo r 12 14\r\nNATS/1.0\r\n\r\nhi\r\n");
    assert_eq!(message.without_headers(), b"r 2\r\nhi\r\n");
    let (_, message) = published(b"HPUB foo 12 12\r\nNATS/1.0\r\n\r\n\r\n");
    assert_eq!(message.without_headers(), b"0\r\n\r\n");
}

#[test]
fn what_is_wrong_is_told() {
    use ProtocolError::{Arguments, ControlLine, Payload, Unknown};
    let long = [b"SUB ", &b"a"[..].repeat(MAX_CONTROL_LINE)[..], b" 1\r\n"].concat();
    for (bytes, error) in [
        (&b"FOO\r\n"[..], Unknown),
        (b"\r\n", Unknown),
        (b"GET / HT", Unknown),
        (b"x", Unknown),
        (b"PUBS", Unknown),
        (b"MSG foo 1 2\r\nhi\r\n", Unknown),
        (b"PUB foo 2\r\nhello\r\n", Unknown),
        (b"PUB\r\n", Arguments),
        (b"PUB foo\r\n", Arguments),
        (b"PUB foo -5\r\n", Arguments),
        (b"PUB foo +5\r\n", Arguments),
        (b"PUB foo 99999999999999999999\r\n", Arguments),
        (b"PUB a b c 1\r\n", Arguments),
        (b"PUB a b c d e f 1\r\n", Arguments),
        (b"HPUB foo 1\r\n", Arguments),
        (b"HPUB foo 7 5\r\n", Arguments),
        (b"SUB foo\r\n", Arguments),
        (b"SUB foo q 1 2\r\n", Arguments),
        (b"UNSUB\r\n", Arguments),
        (b"UNSUB 1 2 3\r\n", Arguments),
        (b"PUB foo 1001\r\n", Payload),
        (&long, ControlLine),
    ] {
        assert_eq!(decode(bytes), Err(error), "{}", bytes.escape_ascii());
    }
    let endless = [b"SUB ", &b"a"[..].repeat(MAX_CONTROL_LINE + 1)[..]].concat();
    assert_eq!(decode(&endless), Err(ControlLine));
    let endless = [b"CONNECT ", &b"a"[..].repeat(MAX_CONNECT)[..]].concat();
    assert_eq!(decode(&endless), Err(ControlLine));
}

#[test]
fn replies_are_lines() {
    let mut buffer = OutputBuffer::new();
    for reply in
        [Reply::Info("{}"), Reply::Ok, Reply::Ping, Reply::Pong, Reply::Error("Stale Connection")]
    {
        let mut protocol = PROTOCOL;
        protocol.encode(reply, &mut buffer.output()).expect("all are right");
    }
    let lines = b"INFO {}\r\n+OK\r\nPING\r\nPONG\r\n-ERR 'Stale Connection'\r\n";
    assert_eq!(buffer.take(), lines);
}

/// An operation as text, or the error, by a parser that knows only whole lines.
fn naive(bytes: &[u8]) -> Option<(String, usize)> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let words: Vec<&[u8]> = line
        .split(|byte| *byte == b' ' || *byte == b'\t')
        .enumerate()
        .filter(|(place, word)| *place == 0 || !word.is_empty())
        .map(|(_, word)| word)
        .collect();
    let texts: Vec<String> = words.iter().map(|word| word.escape_ascii().to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let digits = |text: &str| {
        let all = text.len() < 10 && text.bytes().all(|byte| byte.is_ascii_digit());
        if all { text.parse::<usize>().ok() } else { None }
    };
    let failed = |error: ProtocolError| Some((error.to_string(), 0));
    let (subject, reply, headers, size) = match (texts[0].to_uppercase().as_str(), &texts[1..]) {
        ("PING", _) => return Some(("ping".into(), end + 1)),
        ("PONG", _) => return Some(("pong".into(), end + 1)),
        ("+OK" | "INFO", _) => return Some(("nothing".into(), end + 1)),
        ("CONNECT", _) => return Some(("connect".into(), end + 1)),
        ("SUB", [subject, sid]) => return Some((format!("sub {subject} - {sid}"), end + 1)),
        ("SUB", [subject, queue, sid]) => {
            return Some((format!("sub {subject} {queue} {sid}"), end + 1));
        }
        ("UNSUB", [sid]) => return Some((format!("unsub {sid} -"), end + 1)),
        ("UNSUB", [sid, max]) => {
            return Some((format!("unsub {sid} {}", digits(max).unwrap_or(0)), end + 1));
        }
        ("PUB", [subject, size]) => (subject, &"", "0", size),
        ("PUB", [subject, reply, size]) => (subject, reply, "0", size),
        ("HPUB", [subject, headers, size]) => (subject, &"", *headers, size),
        ("HPUB", [subject, reply, headers, size]) => (subject, reply, *headers, size),
        ("PUB" | "HPUB" | "SUB" | "UNSUB", _) => return failed(ProtocolError::Arguments),
        _ => return failed(ProtocolError::Unknown),
    };
    let (Some(headers), Some(size)) = (digits(headers), digits(size)) else {
        return failed(ProtocolError::Arguments);
    };
    if size > PROTOCOL.max_payload {
        return failed(ProtocolError::Payload);
    }
    if headers > size {
        return failed(ProtocolError::Arguments);
    }
    let payload = bytes.get(end + 1..end + 1 + size + 2)?;
    if !payload.ends_with(b"\r\n") {
        return failed(ProtocolError::Unknown);
    }
    let payload = payload.escape_ascii();
    Some((format!("pub {subject} {reply} {headers} {payload}"), end + 1 + size + 2))
}

fn shown(op: &Op<'_>) -> String {
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    match op {
        Op::Connect(_) => "connect".into(),
        Op::Ping => "ping".into(),
        Op::Pong => "pong".into(),
        Op::Nothing => "nothing".into(),
        Op::Subscribe { subject, queue, sid } => {
            format!("sub {} {} {}", text(subject), queue.map_or("-".into(), text), text(sid))
        }
        Op::Unsubscribe { sid, max } => {
            let max = max.map_or("-".to_owned(), |max| max.to_string());
            format!("unsub {} {max}", text(sid))
        }
        Op::Publish { subject, message } => {
            let Message { reply, size, headers, tail } = message;
            assert!(tail.len() > *size + 2);
            let line = tail.iter().position(|byte| *byte == b'\n').expect("a line");
            let payload = text(&tail[line + 1..]);
            format!("pub {} {} {headers} {payload}", text(subject), text(reply))
        }
    }
}

/// A stream of operations, some of which are broken.
fn stream(rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..rng.usize(1..20) {
        let blank = [" ", " ", " ", "  ", "\t"][rng.usize(..5)];
        let end = ["\r\n", "\r\n", "\r\n", "\n", " \r\n"][rng.usize(..5)];
        let size = [0, 1, 5, 64, 999][rng.usize(..5)];
        let headers = rng.usize(..=size);
        let payload: String = (0..size).map(|_| ['a', '\r', '\n', ' '][rng.usize(..4)]).collect();
        let reply = ["", "reply.to "][rng.usize(..2)];
        let line = match rng.u8(..8) {
            0 => format!("SUB{blank}a.b{blank}{}{end}", rng.u8(..)),
            1 => format!("sub a.* queue{blank}{}{end}", rng.u8(..)),
            2 => format!("UNSUB {}{blank}{}{end}", rng.u8(..), rng.u8(..)),
            3 => format!("PING{end}"),
            4 | 5 => format!("PUB a.b{blank}{reply}{size}{end}{payload}\r\n"),
            6 => format!("hpub a.b {reply}{headers}{blank}{size}{end}{payload}\r\n"),
            _ => format!("CONNECT {{}}{end}"),
        };
        bytes.extend_from_slice(line.as_bytes());
    }
    if rng.u8(..4) == 0 {
        let at = rng.usize(..bytes.len());
        bytes[at] = *rng.choice(b"\0 \r\n1P\xff").expect("one of them");
    }
    bytes
}

/// Decodes what comes in pieces of random length; what is not taken comes again.
fn in_pieces(bytes: &[u8], rng: &mut fastrand::Rng) -> Vec<String> {
    let (mut begin, mut end, mut shown_ops) = (0, 0, Vec::new());
    while end < bytes.len() {
        end = bytes.len().min(end + rng.usize(1..40));
        loop {
            match decode(&bytes[begin..end]) {
                Ok(None) => break,
                Ok(Some((op, taken))) => {
                    shown_ops.push(shown(&op));
                    begin += taken;
                }
                Err(error) => {
                    shown_ops.push(error.to_string());
                    return shown_ops;
                }
            }
        }
    }
    shown_ops
}

#[test]
fn any_pieces_give_what_a_naive_parser_gives() {
    for seed in 0..3_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let bytes = stream(&mut rng);
        let (mut rest, mut expected) = (&bytes[..], Vec::new());
        while let Some((op, taken)) = naive(rest) {
            expected.push(op);
            if taken == 0 {
                break;
            }
            rest = &rest[taken..];
        }
        let mut found = in_pieces(&bytes, &mut rng);
        // What can't become an operation is told before its line's end.
        let unknown = ProtocolError::Unknown.to_string();
        if found.len() > expected.len() && found.last() == Some(&unknown) {
            found.pop();
        }
        assert_eq!(found, expected, "seed {seed}: {}", bytes.escape_ascii());
    }
}

#[test]
fn garbage_is_an_error_or_nothing() {
    for seed in 0..3_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let bytes: Vec<u8> = (0..rng.usize(..60))
            .map(|_| *rng.choice(b"PUBSNGHCOECT+K 0159\t\r\n\r\n\0\xff").expect("one of them"))
            .collect();
        in_pieces(&bytes, &mut rng);
    }
}
