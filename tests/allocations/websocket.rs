//! In the steady state a message of WebSocket allocates nothing from the heap: neither reading it,
//! in whatever parts it comes, nor writing it.

use millstream::websocket::{
    Message, MessageBuffers, MessageLimits, WebSocketCodec, WebSocketRole,
};
use millstream::{Input, OutputBuffer};
use stats_alloc::Region;

use crate::ALLOCATOR;
use crate::common::alone::alone;

/// How often a function allocates in a hundred rounds, after a few that are not counted: the least
/// of some counts, since the test's harness may allocate, too.
fn allocations(mut round: impl FnMut()) -> usize {
    (0..10).for_each(|_| round());
    let count = |_| {
        let region = Region::new(ALLOCATOR);
        (0..100).for_each(|_| round());
        let change = region.change();
        change.allocations + change.reallocations
    };
    (0..5).map(count).min().unwrap_or(usize::MAX)
}

fn codec(role: WebSocketRole) -> WebSocketCodec {
    WebSocketCodec::new(role, MessageLimits::default())
}

#[test]
fn writing_a_message_allocates_nothing() {
    alone(|| {
        for role in [WebSocketRole::Server, WebSocketRole::Client] {
            let (mut codec, mut output) = (codec(role), OutputBuffer::new());
            let mut written = Vec::with_capacity(1_000);
            let count = allocations(|| {
                codec.encode(Message::Text("hello"), &mut output.output()).expect("it is sent");
                written.clear();
                output.write_to(&mut written).expect("there is memory");
            });
            assert_eq!(count, 0, "{role:?}");
        }
    });
}

#[test]
fn reading_a_message_allocates_nothing() {
    alone(|| {
        let long = "x".repeat(100_000);
        for (writer, reader) in [
            (WebSocketRole::Server, WebSocketRole::Client),
            (WebSocketRole::Client, WebSocketRole::Server),
        ] {
            for (text, piece) in [("hello", 100), ("hello", 1), (&long, 1 << 20), (&long, 999)] {
                let mut output = OutputBuffer::new();
                codec(writer).encode(Message::Text(text), &mut output.output()).expect("sent");
                let stream = output.take();
                let (mut codec, mut buffers) = (codec(reader), MessageBuffers::new());
                let count = allocations(|| {
                    let (mut start, mut end) = (0, 0);
                    let mut came = None;
                    while end < stream.len() {
                        end = (end + piece).min(stream.len());
                        let mut input = Input::from(&stream[start..end]);
                        let read = codec.decode(&mut input, &mut buffers).expect("it is right");
                        came = read.map(|message| message == Message::Text(text));
                        start += input.taken();
                    }
                    assert_eq!(came, Some(true));
                });
                let length = text.len();
                assert_eq!(count, 0, "{reader:?}: {length} bytes in pieces of {piece}");
            }
        }
    });
}
