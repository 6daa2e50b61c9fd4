//! Frames that an end did not send.

use fastrand::Rng;
use millstream::OutputBuffer;
use millstream::codec::Codec;
use millstream::rpc::frame::{Frame, FrameCodec, Request, Response};
use millstream::rpc::{Code, Format, MetadataView};

use crate::plan::Bogus;

/// Ids from here on are none of calls.
const STRANGE: u64 = 1_000_000;

/// Now and then some frames; `last` is what was sent last, and `direction` 0 if the client seems to
/// send them.
pub fn frames(bogus: Option<Bogus>, direction: usize, last: &[u8], rng: &mut Rng) -> Vec<u8> {
    let Some(bogus) = bogus.filter(|_| rng.u8(..3) == 0) else { return Vec::new() };
    let (strange, known) = (STRANGE + rng.u64(..100), rng.u64(..40));
    let mut bytes = Vec::new();
    match bogus {
        Bogus::Kind => {
            bytes = sent(Frame::Cancel { id: strange });
            bytes[3] = rng.u8(8..);
        }
        Bogus::Strangers => {
            bytes.extend(sent(Frame::Response(response(strange))));
            bytes.extend(sent(Frame::Cancel { id: if direction == 0 { strange } else { known } }));
            bytes.extend(sent(Frame::Pong(known)));
        }
        Bogus::WrongWay if direction == 0 => {
            bytes = sent(Frame::GoAway { last: known, code: Code::Ok, message: "" });
        }
        Bogus::WrongWay => bytes = sent(Frame::Request(request(strange))),
        Bogus::Pings => (0..5).for_each(|id| bytes.extend(sent(Frame::Ping(id)))),
        Bogus::Refused if direction == 0 => {
            bytes = sent(Frame::Request(request(strange)));
            bytes[24] = 255; // Its name is longer than its head.
        }
        Bogus::Refused => {
            bytes = sent(Frame::Ping(known));
            bytes[6..8].copy_from_slice(&20_000_u16.to_be_bytes());
            bytes.resize(24 + 20_000, 0);
        }
        Bogus::Again => bytes = last.to_vec(),
    }
    bytes
}

fn sent(frame: Frame<'_>) -> Vec<u8> {
    let mut buffer = OutputBuffer::new();
    FrameCodec::default().encode(frame, &mut buffer.output()).expect("it is a frame");
    buffer.take()
}

fn request(id: u64) -> Request<'static> {
    Request {
        id,
        one_way: false,
        is_retry: false,
        timeout: None,
        method: b"a/b",
        metadata: MetadataView::default(),
        format: Format::RAW,
        body: b"",
    }
}

fn response(id: u64) -> Response<'static> {
    Response {
        id,
        not_run: false,
        code: Code::Ok,
        message: "",
        metadata: MetadataView::default(),
        format: Format::RAW,
        body: b"nobody's",
    }
}
