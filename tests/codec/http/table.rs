//! The tables of `docs/http_requests.md`: each example is refused or served as they say, by the
//! codec however its bytes come, and by the server.

use millstream::Input;
use millstream::codec::Codec;
use millstream::http::{
    Answered, Exchange, Failure, HttpServer, Refusal, RequestCodec, RequestLimits, StatusCode,
};

use super::{World, refusal};

const PAGE: &str = include_str!("../../../docs/http_requests.md");

/// An example, and what comes of it.
pub(super) struct Row {
    pub(super) what: &'static str,
    pub(super) example: Vec<u8>,
    pub(super) result: Option<&'static str>,
}

/// The rows of the table in a section of a page, and what is in their cells.
pub(super) fn rows(page: &'static str, section: &str) -> Vec<Row> {
    let (_, rest) = page.split_once(section).expect("there is the section");
    let rows = rest.lines().skip(2).skip_while(|line| !line.starts_with("| what |"));
    let rows = rows.skip(2).take_while(|line| line.starts_with('|'));
    let row = |line: &'static str| {
        let mut cells = line.trim_matches('|').split(" | ").map(str::trim);
        let (what, example) = (cells.next().expect("a cell"), cells.next().expect("a cell"));
        let example = example.strip_prefix('`').and_then(|example| example.strip_suffix('`'));
        let example = unescape(example.expect("it is in backticks"));
        Row { what, example, result: cells.next() }
    };
    rows.map(row).collect()
}

/// The bytes that an example stands for.
fn unescape(example: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = example;
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        match first {
            '\\' => {
                let kind = rest.chars().next().expect("something is escaped");
                rest = &rest[1..];
                bytes.push(match kind {
                    'r' => b'\r',
                    'n' => b'\n',
                    't' => b'\t',
                    '0' => 0,
                    'x' => {
                        let (digits, behind) = rest.split_at(2);
                        rest = behind;
                        u8::from_str_radix(digits, 16).expect("two digits")
                    }
                    other => panic!("an unknown escape: {other}"),
                });
            }
            '{' => {
                let (repeated, behind) = rest.split_once('}').expect("it ends");
                rest = behind;
                let (repeated, count) = repeated.rsplit_once('*').expect("it is repeated");
                bytes.extend(unescape(repeated).repeat(count.parse().expect("a number")));
            }
            other => bytes.extend(other.to_string().bytes()),
        }
    }
    bytes
}

/// How the codec ends with these bytes in pieces of this length: with a refusal, or with how much
/// is left.
fn decode(bytes: &[u8], piece: usize) -> Result<usize, StatusCode> {
    let (mut codec, mut unread) = (RequestCodec::new(RequestLimits::default()), Vec::new());
    for piece in bytes.chunks(piece) {
        unread.extend_from_slice(piece);
        let mut input = Input::from(&unread[..]);
        while codec.decode(&mut input).map_err(Refusal::status)?.is_some() {}
        let taken = input.taken();
        unread.drain(..taken);
    }
    assert!(!codec.is_in_body(), "the request is not whole");
    Ok(unread.len())
}

fn handle(exchange: Exchange<'_>) -> Result<Answered, Failure> {
    Ok(exchange.respond(StatusCode::OK).close().empty())
}

#[test]
fn what_is_refused_has_its_status_and_closes() {
    let rows = rows(PAGE, "# What is refused");
    assert!(rows.len() > 80, "{} rows were found", rows.len());
    for Row { what, example: mut request, result } in rows {
        let code = result.and_then(|status| status.parse().ok()).expect("it has one");
        let status = StatusCode::new(code).expect("it is one");
        for piece in [1, 7, usize::MAX] {
            assert_eq!(decode(&request, piece), Err(status), "{what}, {piece} bytes at a time");
        }
        // What comes behind it is not served.
        request.extend(b"\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut world = World::new(0, HttpServer::new().serve(handle));
        assert_eq!(world.ask(&request), refusal(&status.to_string()), "{what}");
    }
}

#[test]
fn what_is_served_is_served() {
    let rows = rows(PAGE, "# What is served");
    assert!(rows.len() > 15, "{} rows were found", rows.len());
    let served = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    for Row { what, example: request, result } in rows {
        assert_eq!(result, None);
        for piece in [1, 7, usize::MAX] {
            assert_eq!(decode(&request, piece), Ok(0), "{what}, {piece} bytes at a time");
        }
        let mut world = World::new(0, HttpServer::new().serve(handle));
        assert_eq!(world.ask(&request), served, "{what}");
    }
}
