//! The protocol's page: its test vectors, decoded and encoded, and its tables of what others need
//! to know by number.

use std::fmt::Write;

use crate::check::encode;
use millstream::Input;
use millstream::codec::Codec;
use millstream::rpc::frame::{Frame, FrameCodec, FrameError};
use millstream::rpc::{Code, Format, MetadataView};

const PAGE: &str = include_str!("../../docs/rpc_protocol.md");

/// A frame with its bytes, from the page.
struct Vector {
    /// A line for each field; the first line is the kind.
    fields: String,
    bytes: Vec<u8>,
    /// Nobody sends it like that.
    only_received: bool,
}

fn vectors() -> Vec<Vector> {
    let (_, section) = PAGE.split_once("# Test vectors").expect("there is the section");
    let blocks = section.split("```text\n").skip(1).map(|block| block.split_once("```"));
    blocks.map(|block| vector(block.expect("a block ends").0)).collect()
}

fn vector(block: &str) -> Vector {
    let (fields, hex) = block.split_once("\n\n").expect("a blank line before the bytes");
    let digits: String = hex.split_whitespace().collect();
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    let bytes = (0..digits.len()).step_by(2).map(byte).collect();
    let only_received = fields.ends_with("\nonly received");
    let fields = fields.trim_end_matches("\nonly received").to_owned();
    Vector { fields, bytes, only_received }
}

/// A frame as the page writes it.
fn described(frame: &Frame<'_>) -> String {
    let mut text = String::new();
    match frame {
        Frame::Request(request) => {
            text += if request.one_way { "one-way" } else { "request" };
            line(&mut text, "id", request.id);
            line(&mut text, "flags", if request.is_retry { "retry" } else { "" });
            let timeout = request.timeout.map(|timeout| format!("{} ms", timeout.as_millis()));
            line(&mut text, "time", timeout.unwrap_or_default());
            line(&mut text, "method", String::from_utf8_lossy(request.method));
            rest(&mut text, request.metadata, request.format, request.body);
        }
        Frame::Response(response) => {
            text += "response";
            line(&mut text, "id", response.id);
            line(&mut text, "flags", if response.not_run { "not run" } else { "" });
            status(&mut text, response.code, response.message);
            rest(&mut text, response.metadata, response.format, response.body);
        }
        Frame::Cancel { id } => named(&mut text, "cancel", *id),
        Frame::Ping(id) => named(&mut text, "ping", *id),
        Frame::Pong(id) => named(&mut text, "pong", *id),
        Frame::GoAway { last, code, message } => {
            named(&mut text, "go-away", *last);
            status(&mut text, *code, message);
        }
    }
    text
}

fn named(text: &mut String, kind: &str, id: u64) {
    *text += kind;
    line(text, "id", id);
}

fn status(text: &mut String, code: Code, message: &str) {
    line(text, "status", if code == Code::Ok { "" } else { code.name() });
    line(text, "message", message);
}

fn rest(text: &mut String, metadata: MetadataView<'_>, format: Format, body: &[u8]) {
    for (key, value) in metadata.iter() {
        line(text, "metadata", format!("{key}={}", value.escape_ascii()));
    }
    for (name, number) in [("encoding", format.encoding), ("compression", format.compression)] {
        line(text, name, if number == 0 { String::new() } else { number.to_string() });
    }
    line(text, "body", body.escape_ascii());
}

/// Adds a field, unless it is empty.
fn line(text: &mut String, name: &str, value: impl std::fmt::Display) {
    let value = value.to_string();
    if !value.is_empty() {
        write!(text, "\n{name}: {value}").expect("text takes it");
    }
}

fn described_error(error: &FrameError) -> String {
    match error {
        FrameError::Refused { id, why, .. } => {
            format!("refused\nid: {id}\nstatus: {}", why.status().code())
        }
        _ => "no frame".to_owned(),
    }
}

#[test]
fn the_vectors_are_decoded_and_encoded() {
    let vectors = vectors();
    assert!(vectors.len() >= 12, "only {} were found", vectors.len());
    for Vector { fields, bytes, only_received } in &vectors {
        let mut input = Input::from(&bytes[..]);
        match FrameCodec::default().decode(&mut input) {
            Ok(Some(frame)) => {
                assert_eq!(&described(&frame), fields);
                assert!(input.is_empty(), "{fields}\nhas bytes behind it");
                let encoded = encode(&mut FrameCodec::default(), frame).expect("it is a frame");
                assert_eq!(encoded != *bytes, *only_received, "{fields}\n{encoded:02x?}");
            }
            Ok(None) => panic!("not a whole frame: {fields}"),
            Err(error) => assert_eq!(&described_error(&error), fields),
        }
    }
}

#[test]
fn there_is_a_vector_of_each_kind() {
    let found = vectors();
    for kind in 1..=7 {
        let is_it = |vector: &&Vector| vector.bytes[3] == kind && !vector.only_received;
        assert!(found.iter().any(|vector| is_it(&vector)), "none of kind {kind}");
    }
}

#[test]
fn the_codes_are_those_of_the_page() {
    for code in Code::ALL {
        let row = format!("| {} | {} |", code.number(), code.name());
        assert!(PAGE.contains(&row), "{row}");
    }
    assert!(!PAGE.contains(&format!("| {} |", Code::ALL.len())), "a code that isn't there");
}
