//! A server whose strings the test pulls: it tells the test what it sees, and returns what the test
//! says.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use millstream::codec::{FrameHandler, Framed, FramedConn, FramedRemote};
use millstream::rpc::frame::{Frame, FrameCodec, Response};
use millstream::rpc::{Code, Format, Metadata, MetadataView};
use millstream::{Action, CloseReason, Engine};

use crate::common::wire::Wire;
use crate::common::{TestEngine, receive};

/// A connection of a client, as the test knows it.
pub(crate) type Peer = FramedRemote<Puppet>;

/// What the server sees.
#[derive(Debug)]
pub(crate) enum Seen {
    Open(Peer),
    Request(Asked),
    Cancel(u64),
    Ping,
    Closed,
}

/// A request that somebody waits for, or not.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) peer: Peer,
    pub(crate) id: u64,
    pub(crate) body: Vec<u8>,
    pub(crate) metadata: Metadata,
    pub(crate) is_retry: bool,
    pub(crate) one_way: bool,
    pub(crate) timeout: Duration,
}

/// Requests of this method are echoed without telling the test.
pub(crate) const ECHO: &str = "t/echo";

pub(crate) struct Puppet {
    told: Sender<Seen>,
    answers_pings: bool,
}

impl FrameHandler for Puppet {
    type Codec = FrameCodec;
    type State = ();

    fn codec(&self) -> FrameCodec {
        FrameCodec::default()
    }

    fn on_frame(&mut self, conn: &mut FramedConn<'_, Self>, frame: Frame<'_>) -> Action {
        let seen = match frame {
            Frame::Request(request) if request.method == ECHO.as_bytes() => {
                return conn.send(Frame::Response(ok(request.id, request.body))).into();
            }
            Frame::Request(request) => Seen::Request(Asked {
                peer: conn.remote(),
                id: request.id,
                body: request.body.to_vec(),
                metadata: request.metadata.into(),
                is_retry: request.is_retry,
                one_way: request.one_way,
                timeout: request.timeout.expect("each has a deadline"),
            }),
            Frame::Cancel { id } => Seen::Cancel(id),
            Frame::Ping(id) => {
                if self.answers_pings {
                    conn.send(Frame::Pong(id)).expect("a pong is a frame");
                }
                Seen::Ping
            }
            other => panic!("a client sends no {other:?}"),
        };
        self.tell(seen)
    }

    fn on_open(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        let peer = conn.remote();
        self.tell(Seen::Open(peer))
    }

    fn on_close(&mut self, _conn: &mut FramedConn<'_, Self>, _reason: &CloseReason) {
        let _ = self.tell(Seen::Closed);
    }
}

impl Puppet {
    fn tell(&self, seen: Seen) -> Action {
        let _ = self.told.send(seen); // Nobody listens if the test is over.
        Action::Continue
    }
}

fn ok(id: u64, body: &[u8]) -> Response<'_> {
    Response {
        id,
        not_run: false,
        code: Code::Ok,
        message: "",
        metadata: MetadataView::default(),
        format: Format::RAW,
        body,
    }
}

/// The server, with what it sees.
pub(crate) struct Stage {
    pub(crate) seen: Receiver<Seen>,
    pub(crate) engine: TestEngine,
}

impl Stage {
    pub(crate) fn new(wire: Wire) -> Self {
        Self::at(wire, "127.0.0.1:0", true)
    }

    pub(crate) fn at(wire: Wire, address: &str, answers_pings: bool) -> Self {
        let (told, seen) = channel();
        let told = Mutex::new(told);
        let builder = wire.build(Engine::builder()).reactors(1).listen(address);
        let engine = TestEngine::start_exactly(builder, move |_| {
            let told = told.lock().expect("nobody panics with it").clone();
            Framed::new(Puppet { told, answers_pings })
        });
        Stage { seen, engine }
    }

    pub(crate) fn address(&self) -> String {
        self.engine.address().to_string()
    }

    /// The next request; what else is seen is passed over.
    pub(crate) fn request(&self) -> Asked {
        self.next(|seen| match seen {
            Seen::Request(asked) => Some(asked),
            _ => None,
        })
    }

    /// The next of what is looked for.
    pub(crate) fn next<T>(&self, mut pick: impl FnMut(Seen) -> Option<T>) -> T {
        loop {
            if let Some(picked) = pick(receive(&self.seen)) {
                return picked;
            }
        }
    }
}

/// What a request is answered with.
pub(crate) struct Said {
    pub(crate) code: Code,
    pub(crate) not_run: bool,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    /// Answers with a body.
    pub(crate) fn answer(&self, body: &[u8]) {
        self.say(Said { code: Code::Ok, not_run: false, body: body.to_vec() });
    }

    /// Answers with an error.
    pub(crate) fn fail(&self, code: Code, not_run: bool) {
        self.say(Said { code, not_run, body: Vec::new() });
    }

    fn say(&self, said: Said) {
        let id = self.id;
        send(&self.peer, move |conn| {
            let Said { code, not_run, body } = &said;
            let message = if *code == Code::Ok { "" } else { "as the test says" };
            let response = Response { code: *code, not_run: *not_run, message, ..ok(id, body) };
            conn.send(Frame::Response(response)).expect("it is a frame");
        });
    }
}

/// Lets the client know that no request behind `last` is run.
pub(crate) fn go_away(peer: &Peer, last: u64) {
    go_away_with(peer, last, Code::Ok, "");
}

/// The same, with a reason.
pub(crate) fn go_away_with(peer: &Peer, last: u64, code: Code, message: &'static str) {
    send(peer, move |conn| {
        let frame = Frame::GoAway { last, code, message };
        conn.send(frame).expect("it is a frame");
    });
}

/// Writes what may not be a frame.
pub(crate) fn write(peer: &Peer, bytes: &'static [u8]) {
    send(peer, move |conn| conn.output.write(bytes));
}

/// Closes a connection without a word.
pub(crate) fn cut(peer: &Peer) {
    let _ = peer.run(|_puppet, conn| {
        conn.close_now();
        Action::Continue
    });
}

pub(crate) fn send(peer: &Peer, say: impl FnOnce(&mut FramedConn<'_, Puppet>) + Send + 'static) {
    // The client may have closed it meanwhile.
    let _ = peer.run(move |_puppet, conn| {
        say(conn);
        Action::Continue
    });
}
