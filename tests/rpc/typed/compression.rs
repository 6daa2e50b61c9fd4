//! Compressed bodies.

use millstream::rpc::{Call, Code, Format, Router};

use super::peer::Peer;
use super::{assert_at_rest, serve};

#[test]
fn a_compression_that_is_not_built_in_is_unimplemented() {
    let (engine, server) =
        serve(|| Router::new().method("a/b", |call: &mut Call<'_>| call.answer(call.body())));
    let mut peer = Peer::new(&engine);
    let mut unknown = vec![3, 15];
    if cfg!(not(feature = "deflate")) {
        unknown.push(1);
    }
    if cfg!(not(feature = "lz4")) {
        unknown.push(2);
    }
    for compression in &unknown {
        let format = Format { encoding: 0, compression: *compression };
        let ended = peer.call_raw("a/b", format, b"\0\0\0\x01abc");
        let message = format!("no compression of number {compression} is built in here");
        assert_eq!((ended.code, ended.message), (Code::Unimplemented, message));
        assert!(ended.not_run);
    }
    assert_eq!(peer.call_raw("a/b", Format::RAW, b"abc").body, b"abc");
    assert_eq!(server.stats().refused, unknown.len() as u64);
    assert_at_rest(&server);
}

#[cfg(all(feature = "deflate", feature = "lz4"))]
pub(crate) mod built_in {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use millstream::codec::{Codec, Compressed, Compression, Deflate, LengthField, Lz4};
    use millstream::rpc::{
        Answer, Authenticate, Client, Encoding, FrameLimits, Handler, Request, Server, Status,
        TypedReply, typed, typed_later,
    };
    use millstream::{Bytes, Engine, Input, OutputBuffer};

    use super::*;
    use crate::common::{TestEngine, pattern};

    pub(crate) type Convert = fn(&[u8]) -> Vec<u8>;

    /// The numbers of the compressions, and what makes and reads such bodies.
    pub(crate) const KINDS: [(u8, Convert, Convert); 2] = [
        (1, |body| pack(Deflate::new(), body), |body| unpack(Deflate::new(), body)),
        (2, |body| pack(Lz4::new(), body), |body| unpack(Lz4::new(), body)),
    ];
    /// What a frame of [`Compressed`] has in front of the body: its length, and a marker.
    const IN_FRONT: usize = 5;

    /// Compresses by the codec that does it for other protocols.
    fn pack(algorithm: impl Compression, body: &[u8]) -> Vec<u8> {
        let mut buffer = OutputBuffer::new();
        let mut codec = Compressed::new(LengthField::new(), algorithm).threshold(0);
        codec.encode(body, &mut buffer.output()).expect("it is not too long");
        buffer.take().split_off(IN_FRONT)
    }

    fn unpack<A: Compression>(algorithm: A, body: &[u8]) -> Vec<u8> {
        let mut buffer = OutputBuffer::new();
        let marked = [&[A::MARKER], body].concat();
        LengthField::new().encode(&marked, &mut buffer.output()).expect("it is not too long");
        let mut codec = Compressed::new(LengthField::new(), algorithm);
        let frame = buffer.take();
        let payload = codec.decode(&mut Input::from(&*frame)).expect("it is not damaged");
        payload.expect("a whole frame").into_owned()
    }

    fn raw(compression: u8) -> Format {
        Format { encoding: 0, compression }
    }

    /// What answers with the body in all the ways there are.
    fn echoes() -> Router {
        Router::new()
            .method("echo/copied", |call: &mut Call<'_>| call.answer(call.body()))
            .method("echo/shared", |call: &mut Call<'_>| {
                call.answer_bytes(Bytes::copy_from_slice(call.body()))
            })
            .method("echo/in_place", |call: &mut Call<'_>| {
                let body = call.body();
                call.answer_with(call.format(), |out| {
                    out.write_all(body).map_err(|error| Status::internal(error.to_string()))
                })
            })
            .method("echo/later", |call: &mut Call<'_>| {
                let (answer, reply) = call.answer_later();
                let body = call.body().to_vec();
                thread::spawn(move || reply.send(body));
                Ok(answer)
            })
            .method("typed/now", typed(|_, text: String| Ok(text)))
            .method(
                "typed/later",
                typed_later(|_, text: String, reply: TypedReply<_>| reply.send(&text)),
            )
    }

    #[test]
    fn an_answer_is_compressed_as_its_request_was() {
        let (engine, server) = serve(echoes);
        let mut peer = Peer::new(&engine);
        let body = b"as long as it is wide ".repeat(1000);
        for (number, pack, unpack) in KINDS {
            let packed = pack(&body);
            assert!(packed.len() < body.len() / 10);
            for method in ["echo/copied", "echo/shared", "echo/in_place", "echo/later"] {
                let ended = peer.call_raw(method, raw(number), &packed);
                assert_eq!((ended.code, ended.format), (Code::Ok, raw(number)), "{method}");
                assert_eq!(unpack(&ended.body), body, "{method}");
                assert_eq!(peer.call_raw(method, Format::RAW, &body).body, body, "{method}");
            }
            for method in ["typed/now", "typed/later"] {
                let format = Format { compression: number, ..Encoding::Json.format() };
                let text = format!("\"{}\"", "so long ".repeat(1000)).into_bytes();
                let ended = peer.call_raw(method, format, &pack(&text));
                assert_eq!((ended.code, ended.format), (Code::Ok, format), "{method}");
                assert_eq!(unpack(&ended.body), text, "{method}");
            }
        }
        assert_at_rest(&server);
    }

    #[test]
    fn what_is_short_or_gains_nothing_is_answered_as_it_is() {
        let server = Server::new().compress_from(100);
        let of_reactors = server.clone();
        let engine = TestEngine::start(Engine::builder(), move |_| of_reactors.serve(echoes()));
        let mut peer = Peer::new(&engine);
        for (number, pack, unpack) in KINDS {
            for method in ["echo/copied", "echo/shared", "echo/in_place", "echo/later"] {
                let ended = peer.call_raw(method, raw(number), &pack(&[7; 99]));
                assert_eq!((ended.format, ended.body), (Format::RAW, vec![7; 99]), "{method}");
                let ended = peer.call_raw(method, raw(number), &pack(&[7; 100]));
                assert_eq!(ended.format, raw(number), "{method}");
                assert_eq!(unpack(&ended.body), [7; 100], "{method}");
            }
        }
        // It is sent compressed at level 0, which makes it a little longer.
        let noise = pattern(2000, 7);
        let stored = pack_at_level_0(&noise);
        let ended = peer.call_raw("echo/copied", raw(1), &stored);
        assert_eq!((ended.format, ended.body), (Format::RAW, noise));
        assert_at_rest(&server);
    }

    /// DEFLATE's blocks that are stored (RFC 1951, 3.2.4).
    fn pack_at_level_0(body: &[u8]) -> Vec<u8> {
        let (length, short) = (body.len() as u32, body.len() as u16);
        let head = [&length.to_be_bytes()[..], &[1], &short.to_le_bytes(), &(!short).to_le_bytes()];
        [&head.concat(), body].concat()
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_run() {
        let runs = Arc::new(AtomicUsize::new(0));
        let limits = {
            let mut limits = FrameLimits::default();
            limits.max_body = 10_000;
            limits
        };
        let server = Server::new().frame_limits(limits);
        let (of_reactors, of_methods) = (server.clone(), Arc::clone(&runs));
        let engine = TestEngine::start(Engine::builder(), move |_| {
            let runs = Arc::clone(&of_methods);
            of_reactors.serve(Router::new().method("a/b", move |call: &mut Call<'_>| {
                runs.fetch_add(1, Ordering::Relaxed);
                call.answer(&call.body().len().to_be_bytes())
            }))
        });
        let mut peer = Peer::new(&engine);
        for (number, pack, _) in KINDS {
            let too_long = |length: usize| {
                let message = format!(
                    "a body has {length} bytes when it is not compressed any more; the limit is 10000"
                );
                (Code::ResourceExhausted, message)
            };
            let packed = pack(&[0; 10_001]);
            let mut liar = packed.clone();
            liar[..4].copy_from_slice(&10_000_u32.to_be_bytes());
            let mut endless = packed.clone();
            endless[..4].copy_from_slice(&u32::MAX.to_be_bytes());
            let most = if number == 1 { 4 * 258 } else { 255 };
            let tiny = [&9_999_u32.to_be_bytes()[..], &[0]].concat();
            let impossible =
                format!("a compressed body says that it has 9999 bytes; it has at most {most}");
            let cut = "a compressed body of 3 bytes ends before its length".to_owned();
            for (body, (code, message)) in [
                (packed, too_long(10_001)),
                (endless, too_long(u32::MAX as usize)),
                (liar, (Code::InvalidArgument, "a compressed body is damaged: ".to_owned())),
                (tiny, (Code::InvalidArgument, impossible)),
                (b"\0\0\0".to_vec(), (Code::InvalidArgument, cut)),
            ] {
                let ended = peer.call_raw("a/b", raw(number), &body);
                assert_eq!(ended.code, code, "{ended:?}");
                assert!(ended.message.starts_with(&message), "{ended:?} is not {message:?}");
                assert!(ended.not_run);
            }
            let ended = peer.call_raw("a/b", raw(number), &pack(&[0; 10_000]));
            assert_eq!(ended.body, 10_000_usize.to_be_bytes());
        }
        assert_eq!(runs.load(Ordering::Relaxed), KINDS.len());
        assert_at_rest(&server);
    }

    /// Lets those calls pass that have a token, and notes what it sees of the others' bodies.
    fn door() -> Authenticate<impl Fn(&mut Call<'_>) -> Result<(), Status> + Clone> {
        Authenticate::with(|call: &mut Call<'_>| match call.metadata().get("token") {
            Some(b"sesame") => Ok(()),
            Some(b"look") => Err(Status::aborted(format!("{} bytes", call.body().len()))),
            _ => Err(Status::unauthenticated("there is no token")),
        })
    }

    /// Runs calls without a router.
    struct Bare(Arc<AtomicUsize>);

    impl Handler for Bare {
        fn handle(&mut self, call: &mut Call<'_>) -> Result<Answer, Status> {
            self.0.fetch_add(1, Ordering::Relaxed);
            call.answer(&call.body().len().to_be_bytes())
        }
    }

    #[test]
    fn a_body_is_decompressed_behind_the_layers() {
        let runs = Arc::new(AtomicUsize::new(0));
        let server = Server::new().layer(door());
        let (of_router, of_bare) = (server.clone(), server.clone());
        let in_router = Arc::clone(&runs);
        let with_router = TestEngine::start(Engine::builder(), move |_| {
            let mut bare = Bare(Arc::clone(&in_router));
            let method = move |call: &mut Call<'_>| bare.handle(call);
            of_router.serve(Router::new().method("a/b", method))
        });
        let in_bare = Arc::clone(&runs);
        let without = TestEngine::start(Engine::builder(), move |_| {
            of_bare.serve(Bare(Arc::clone(&in_bare)))
        });
        for (engine, has_router) in [(&with_router, true), (&without, false)] {
            let mut peer = Peer::new(engine);
            for (number, pack, _) in KINDS {
                let good = pack(&[7; 5000]);
                let damaged = [&good[..4], &[0xff; 30]].concat();
                let mut ended = |method: &str, token: &str, body: &[u8]| {
                    peer.send_with(method, raw(number), &[("token", token)], body);
                    let (_, ended) = peer.receive();
                    ended
                };
                let refused = ended("a/b", "none", &damaged);
                assert_eq!((refused.code, refused.not_run), (Code::Unauthenticated, false));
                assert_eq!(ended("a/b", "look", &good).message, "5000 bytes");
                assert_eq!(ended("a/b", "look", &damaged).message, "0 bytes");
                let unreadable = ended("a/b", "sesame", &damaged);
                assert_eq!((unreadable.code, unreadable.not_run), (Code::InvalidArgument, true));
                if has_router {
                    let nowhere = ended("a/c", "sesame", &damaged);
                    assert_eq!((nowhere.code, nowhere.not_run), (Code::Unimplemented, true));
                }
                assert_eq!(runs.swap(0, Ordering::Relaxed), 0, "nothing was run");
                assert_eq!(ended("a/b", "sesame", &good).body, 5000_usize.to_be_bytes());
                assert_eq!(runs.swap(0, Ordering::Relaxed), 1);
            }
        }
        assert_eq!(server.stats().in_flight, 0);
    }

    #[test]
    fn a_client_looks_at_its_limits_before_it_compresses() {
        let (engine, server) = serve(echoes);
        let mut limits = FrameLimits::default();
        limits.max_body = 10_000;
        let builder = Client::builder().address(engine.address().to_string());
        let builder = builder.frame_limits(limits).max_open(10, 15_000);
        let client = builder.build().expect("it starts");
        for compression in
            [millstream::rpc::Compression::Deflate, millstream::rpc::Compression::Lz4]
        {
            let request = |length| {
                let request = Request::new("echo/copied").body(vec![7; length]);
                request.compression(compression)
            };
            let status = client.call(request(10_001)).expect_err("it is too long");
            assert_eq!(
                status.message(),
                "the body of the request has 10001 bytes, at most 10000 may be"
            );
            for _ in 0..3 {
                let response = client.call(request(10_000)).expect("it is answered");
                assert_eq!(response.body.len(), 10_000);
            }
        }
        client.stop(crate::common::DEADLINE).expect("it stops");
        assert_at_rest(&server);
    }
}
