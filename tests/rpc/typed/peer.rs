//! A caller that writes and reads frames by itself.

use std::io::Read;
use std::net::TcpStream;

use millstream::codec::Codec;
#[cfg(all(feature = "deflate", feature = "lz4"))]
use millstream::rpc::Metadata;
use millstream::rpc::frame::{Frame, FrameCodec, Request};
use millstream::rpc::{Code, Encoding, Format, MetadataView};
use millstream::{Input, OutputBuffer};
use serde::Serialize;

use crate::common::TestEngine;

/// How a call ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) not_run: bool,
    pub(crate) format: Format,
    pub(crate) metadata: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

pub(crate) struct Peer {
    stream: TcpStream,
    codec: FrameCodec,
    last: u64,
    received: Vec<u8>,
}

impl Peer {
    pub(crate) fn new(engine: &TestEngine) -> Self {
        let (codec, received) = (FrameCodec::default(), Vec::new());
        Peer { stream: engine.connect(), codec, last: 0, received }
    }

    /// Calls with a value, and waits for the end.
    pub(crate) fn call(
        &mut self,
        method: &str,
        encoding: Encoding,
        value: &impl Serialize,
    ) -> Ended {
        let mut body = Vec::new();
        encoding.encode(value, &mut body).expect("it can be written");
        self.call_raw(method, encoding.format(), &body)
    }

    /// Calls, and waits for the end.
    pub(crate) fn call_raw(&mut self, method: &str, format: Format, body: &[u8]) -> Ended {
        let id = self.send(method, format, body, false);
        let (answered, ended) = self.receive();
        assert_eq!(answered, id, "{ended:?}");
        ended
    }

    /// Sends a request; returns its id.
    pub(crate) fn send(&mut self, method: &str, format: Format, body: &[u8], one_way: bool) -> u64 {
        self.send_request(method, format, MetadataView::default(), body, one_way)
    }

    /// Sends a request with metadata; returns its id.
    #[cfg(all(feature = "deflate", feature = "lz4"))]
    pub(crate) fn send_with(
        &mut self,
        method: &str,
        format: Format,
        pairs: &[(&str, &str)],
        body: &[u8],
    ) -> u64 {
        let mut metadata = Metadata::new();
        for (key, value) in pairs {
            metadata.insert(key, value).expect("it is metadata");
        }
        self.send_request(method, format, metadata.view(), body, false)
    }

    fn send_request(
        &mut self,
        method: &str,
        format: Format,
        metadata: MetadataView<'_>,
        body: &[u8],
        one_way: bool,
    ) -> u64 {
        self.last += 1;
        let id = self.last;
        let (is_retry, timeout) = (false, None);
        let request = Request {
            id,
            one_way,
            is_retry,
            timeout,
            method: method.as_bytes(),
            metadata,
            format,
            body,
        };
        let mut buffer = OutputBuffer::new();
        self.codec.encode(Frame::Request(request), &mut buffer.output()).expect("a frame");
        buffer.write_to(&mut self.stream).expect("it is read");
        id
    }

    /// Waits for the next response.
    pub(crate) fn receive(&mut self) -> (u64, Ended) {
        loop {
            let mut input = Input::from(&*self.received);
            let frame = self.codec.decode(&mut input).expect("a good frame");
            if let Some(frame) = frame {
                let Frame::Response(response) = frame else { panic!("{frame:?} is no response") };
                let metadata = response.metadata.iter();
                let ended = Ended {
                    code: response.code,
                    message: response.message.to_owned(),
                    not_run: response.not_run,
                    format: response.format,
                    metadata: metadata.map(|(key, value)| (key.into(), value.into())).collect(),
                    body: response.body.to_vec(),
                };
                let (id, taken) = (response.id, input.taken());
                self.received.drain(..taken);
                return (id, ended);
            }
            let mut chunk = [0; 64 * 1024];
            let count = self.stream.read(&mut chunk).expect("something comes in time");
            assert!(count > 0, "the connection ended");
            self.received.extend_from_slice(&chunk[..count]);
        }
    }
}
