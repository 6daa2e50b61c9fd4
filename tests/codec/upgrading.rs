//! A layer that comes into a connection between two frames: none that came without it is taken for
//! one that came with it, whatever a codec has kept.

use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use crate::common::layer::{ALERT, DATA, Frames, HELLO, Handshake, frame, take_frame};
use millstream::codec::{Codec, Compat, FrameHandler, Framed, FramedConn, Lines};
use millstream::internals::start_layer;
use millstream::sim::{Faults, Simulation};
use millstream::{Action, Engine, Output};
use tokio_util::codec::LinesCodec;

/// Codecs of lines, of which one copies input before it takes it.
trait LineCodec: Codec<Error: Send> + 'static {
    fn new() -> Self;
    fn text(frame: Self::Frame<'_>) -> String;
    fn send(&mut self, line: &str, output: &mut Output<'_>);
}

impl LineCodec for Lines {
    fn new() -> Self {
        Lines::new().max_length(20)
    }

    fn text(frame: &[u8]) -> String {
        String::from_utf8_lossy(frame).into_owned()
    }

    fn send(&mut self, line: &str, output: &mut Output<'_>) {
        self.encode(line.as_bytes(), output).expect("it is a line");
    }
}

impl LineCodec for Compat<LinesCodec, String> {
    fn new() -> Self {
        Compat::new(LinesCodec::new_with_max_length(20))
    }

    fn text(frame: String) -> String {
        frame
    }

    fn send(&mut self, line: &str, output: &mut Output<'_>) {
        self.encode(line.to_owned(), output).expect("it is a line");
    }
}

/// Upgrades when it is asked to, or a moment later, and tells the other lines.
struct Server<C> {
    tell: Sender<String>,
    codec: fn() -> C,
    /// Written in the callback in which the handshake begins.
    meanwhile: usize,
}

impl<C: LineCodec> Server<C> {
    fn start(conn: &mut FramedConn<'_, Self>) -> Action {
        let handshake = Handshake { begins: false, timeout: Duration::from_secs(5) };
        start_layer(conn, move || Box::new(Frames::after(handshake))).into()
    }

    fn say(&self, conn: &mut FramedConn<'_, Self>, line: &str) {
        let _ = self.tell.send(line.to_owned()); // The test may have seen enough.
        let (encoder, _) = conn.split();
        encoder.codec.expect("it is open").send(line, encoder.output);
    }
}

impl<C: LineCodec> FrameHandler for Server<C> {
    type Codec = C;
    type State = ();

    fn codec(&self) -> C {
        (self.codec)()
    }

    fn on_frame(&mut self, conn: &mut FramedConn<'_, Self>, frame: C::Frame<'_>) -> Action {
        let line = C::text(frame);
        match &line[..] {
            "go" => {
                let started = Self::start(conn);
                conn.output.write(&vec![b'x'; self.meanwhile]);
                started
            }
            "later" => {
                conn.set_timer(Duration::from_millis(15), 0);
                Action::Continue
            }
            _ => {
                self.say(conn, &line);
                Action::Continue
            }
        }
    }

    fn on_error(&mut self, _conn: &mut FramedConn<'_, Self>, _error: C::Error) -> Action {
        Action::Continue
    }

    fn on_timer(
        &mut self,
        conn: &mut FramedConn<'_, Self>,
        _timer: millstream::TimerId,
        _value: u64,
    ) -> Action {
        Self::start(conn)
    }

    fn on_tls(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        self.say(conn, "secret");
        Action::Continue
    }
}

/// Sends these pieces, one after the other, and returns which lines were served, and what came
/// back: without the layer, then in it, then the kinds of its other frames.
fn served<C: LineCodec>(pieces: &[&[u8]], meanwhile: usize) -> (Vec<String>, Vec<u8>, Vec<u8>) {
    let (tell, told) = channel();
    let server = Framed::new(Server { tell, codec: C::new, meanwhile });
    let builder = Engine::builder().water_marks(0, 1000);
    let mut simulation = Simulation::new(0, Faults::none(), builder, server).expect("it starts");
    let mut peer = simulation.connect().expect("it listens");
    for piece in pieces {
        simulation.send_all(&mut peer, piece).expect("it is received");
        simulation.run(Duration::from_millis(10));
    }
    let mut rest = Vec::new();
    simulation.run_until(Duration::from_secs(1), || {
        rest.extend(peer.receive());
        false
    });
    let (mut plain, mut kinds) = (Vec::new(), Vec::new());
    while let Some((kind, content)) = take_frame(&mut rest) {
        plain.extend(content);
        kinds.push(kind);
    }
    (told.try_iter().collect(), plain, kinds)
}

fn lines_are_served_behind_the_request<C: LineCodec>() {
    let hello = frame(HELLO, b"");
    let data = frame(DATA, b"one\ntwo\n");
    for pieces in [
        &[&[b"go\n", &hello[..], &data].concat()[..]][..],
        &[b"g", b"o\n", &hello, &data],
        &[b"later\n", b"", &hello, &data],
    ] {
        let (served, plain, kinds) = served::<C>(pieces, 0);
        assert_eq!(served, ["secret", "one", "two"], "{pieces:?}");
        assert_eq!(plain, b"secret\none\ntwo\n");
        assert_eq!((kinds[0], kinds.contains(&ALERT)), (HELLO, false));
    }
}

fn injected_lines_are_not_served<C: LineCodec>() {
    let evil = [&frame(DATA, b"")[..], b"evil\n"].concat();
    let (served, plain, kinds) = served::<C>(&[&[b"go\n", &evil[..]].concat()], 0);
    assert!(served.is_empty() && plain.is_empty(), "{served:?} {plain:?}");
    assert_eq!(kinds, [ALERT]);
}

/// The handshake begins in the middle of a line.
#[test]
fn a_part_of_a_frame_that_a_codec_has_taken_is_forgotten() {
    let (hello, data) = (frame(HELLO, b""), frame(DATA, b"one\n"));
    let pieces: [&[u8]; 4] = [b"later\n", &frame(DATA, b"evil"), &hello, &data];
    let (in_codec, ..) = served::<Compat<LinesCodec, String>>(&pieces, 0);
    assert_eq!(in_codec, ["secret", "one"]);
    let (unread, _, kinds) = served::<Lines>(&pieces, 0);
    assert!(unread.is_empty() && kinds == [ALERT], "{unread:?}, {kinds:?}");
}

/// What is written meanwhile is above the high-water mark, which else keeps frames from being
/// served.
fn a_handshake_goes_on_above_the_high_mark<C: LineCodec>() {
    let frames = [frame(HELLO, b""), frame(DATA, b"one\n")].concat();
    let (served, plain, _) = served::<C>(&[b"go\n", &frames], 50_000);
    assert_eq!(served, ["secret", "one"]);
    assert!(plain.ends_with(b"xsecret\none\n"));
}

macro_rules! for_each_codec {
    ($($name:ident)*) => {$(
        mod $name {
            use super::*;
            #[test] fn lines() { super::$name::<Lines>(); }
            #[test] fn compat() { super::$name::<Compat<LinesCodec, String>>(); }
        }
    )*};
}

for_each_codec! {
    lines_are_served_behind_the_request
    injected_lines_are_not_served
    a_handshake_goes_on_above_the_high_mark
}
