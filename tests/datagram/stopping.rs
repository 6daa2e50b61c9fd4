//! How sockets end with their engine.

use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use millstream::codec::{FrameHandler, Framed, FramedConn, Lines};
use millstream::{
    Action, CloseReason, Closed, Datagram, DatagramRemote, DatagramSocket, Engine, OpenDatagram,
    SendError,
};

use crate::client::{Peer, Tell, unix};
use crate::common::folder::Folder;
use crate::common::{DEADLINE, TestEngine, eventually, receive};

/// What was sent before the engine stopped goes out.
#[test]
fn what_waits_is_sent_before_the_engine_ends() {
    let (tell, _news) = channel();
    let engine = TestEngine::start(Engine::builder().reactors(1), move |_| Tell(tell.clone()));
    let reactors = engine.reactors::<Tell>().expect("it is the handler");
    let peer = Peer::like(&unix("/unused"));
    let to = peer.address();
    let (told, full) = channel();
    reactors
        .open_datagram(0, OpenDatagram::to(to), move |_, _, socket| {
            let socket = socket.expect("it can be opened");
            // More than the peer has room for, so that the rest waits.
            let mut sent = 0u32;
            while sent < 10_000 && socket.send(&sent.to_be_bytes()).is_ok() {
                sent += 1;
            }
            let _ = told.send(sent);
            Action::Shutdown
        })
        .expect("it runs");
    let sent = receive(&full);
    for number in 0..sent {
        assert_eq!(peer.receive().0, number.to_be_bytes(), "of {sent}");
    }
    engine.wait().expect("it ends");
    assert_eq!(engine.stats().reactors[0].datagrams_out, u64::from(sent));
}

/// A Unix socket serves many, so a peer that has no room costs its own datagrams and no one else's.
#[test]
fn a_slow_receiver_does_not_hold_up_the_others() {
    let (tell, _news) = channel();
    let folder = Folder::new();
    let engine = TestEngine::start(Engine::builder().reactors(1), move |_| Tell(tell.clone()));
    let reactors = engine.reactors::<Tell>().expect("it is the handler");
    let (slow, quick) = (Peer::like(&unix("/unused")), Peer::like(&unix("/unused")));
    let (to_slow, to_quick) = (slow.address(), quick.address());
    let how = OpenDatagram::on(unix(folder.path("server")));
    let opened = reactors.open_datagram(0, how, move |_, _, socket| {
        let socket = socket.expect("it can be opened");
        for _ in 0..1000 {
            socket.send_to(&to_slow, b"for one that doesn't read").expect("there is room");
        }
        socket.send_to(&to_quick, b"for one that does").into()
    });
    opened.expect("it runs");
    assert_eq!(quick.receive().0, b"for one that does");
    let counts = || {
        let stats = engine.stats();
        (stats.reactors[0].datagrams_dropped, stats.reactors[0].datagrams_out)
    };
    eventually("all are counted", || counts().0 + counts().1 == 1001);
    assert!((1..1000).contains(&counts().0), "{:?}", counts());
    assert_eq!(slow.receive().0, b"for one that doesn't read");
}

/// A queue that nobody takes is dropped at the deadline, and counted; so it is when a socket alone
/// closes.
#[test]
fn what_nobody_takes_is_dropped_at_the_deadline() {
    for stops in [false, true] {
        let (tell, _news) = channel();
        let builder = Engine::builder().reactors(1).close_timeout(Duration::from_millis(50));
        let engine = TestEngine::start(builder, move |_| Tell(tell.clone()));
        let reactors = engine.reactors::<Tell>().expect("it is the handler");
        let peer = Peer::like(&unix("/unused"));
        let to = peer.address();
        let (told, closing) = channel();
        reactors
            .open_datagram(0, OpenDatagram::to(to), move |_, _, socket| {
                let socket = socket.expect("it can be opened");
                let full = loop {
                    if let Err(error) = socket.send(&[7; 3000]) {
                        break error;
                    }
                };
                let _ = told.send((full, socket.remote()));
                if stops { Action::Continue } else { Action::Close }
            })
            .expect("it runs");
        let (full, remote) = receive(&closing);
        assert!(matches!(full, SendError::Full { .. }), "{full}");
        let begin = Instant::now();
        if stops {
            engine.stop(Duration::from_millis(50)).expect("it runs");
            engine.wait().expect("it ends");
        }
        let closed = || engine.stats().reactors[0].datagram_sockets == 0;
        eventually("it is closed", closed);
        assert!(begin.elapsed() < DEADLINE && !remote.is_open());
        assert!(engine.stats().reactors[0].datagrams_dropped > 1);
        drop(peer);
    }
}

/// What a test is told: the handle of a socket that closes, and the reason.
type Closing = (DatagramRemote<Framed<LastWord>>, String);

/// Serves datagrams as well as frames, and has a last word.
struct LastWord(Sender<Closing>);

impl FrameHandler for LastWord {
    const TAKES_DATAGRAMS: bool = true;

    type Codec = Lines;
    type State = ();

    fn codec(&self) -> Lines {
        Lines::new()
    }

    fn on_frame(&mut self, _conn: &mut FramedConn<'_, Self>, _line: &[u8]) -> Action {
        unreachable!("there are no connections")
    }

    fn on_datagram(
        &mut self,
        socket: &mut DatagramSocket<'_, Framed<Self>>,
        datagram: Datagram<'_>,
    ) -> Action {
        socket.reply(&datagram, datagram.bytes).into()
    }

    fn on_datagram_closing(
        &mut self,
        socket: &mut DatagramSocket<'_, Framed<Self>>,
        reason: &CloseReason,
    ) {
        if socket.peer_addr().is_some() {
            socket.send(b"last word").expect("there is room");
        }
        let _ = self.0.send((socket.remote(), reason.to_string())); // The test may have failed.
    }
}

/// The handler is told at once, and so are its handles, though what waits can't be sent.
#[test]
fn a_socket_that_can_not_send_says_at_once_that_it_closes() {
    let (tell, told) = channel();
    let builder = Engine::builder().reactors(1).close_timeout(DEADLINE);
    let engine = TestEngine::start(builder, move |_| Framed::new(LastWord(tell.clone())));
    let reactors = engine.reactors::<Framed<LastWord>>().expect("it is the handler");
    let peer = Peer::like(&unix("/unused"));
    let (counted, sent) = channel();
    let opened =
        reactors.open_datagram(0, OpenDatagram::to(peer.address()), move |_, _, socket| {
            let socket = socket.expect("it can be opened");
            // More than the peer has room for, so that the rest waits.
            let sent =
                (0u32..10_000).take_while(|number| socket.send(&number.to_be_bytes()).is_ok());
            let _ = counted.send(sent.count());
            Action::Continue
        });
    opened.expect("it runs");
    let sent = receive(&sent);
    engine.stop(DEADLINE).expect("it runs");
    let (remote, reason) = receive(&told);
    assert_eq!(reason, "shutdown");
    assert_eq!(remote.send("lost"), Err(Closed));
    assert_eq!(engine.stats().reactors[0].datagram_sockets, 1, "it has something to send");
    for _ in 0..sent {
        assert_eq!(peer.receive().0.len(), 4);
    }
    assert_eq!(peer.receive().0, b"last word");
    engine.wait().expect("it ends");
    assert!(told.try_recv().is_err(), "it is told once");
}

#[test]
fn a_socket_that_is_listened_on_says_that_its_listener_closes() {
    let (tell, told) = channel();
    let builder = Engine::builder().reactors(1);
    let engine = TestEngine::start(builder, move |_| Framed::new(LastWord(tell.clone())));
    let listener = engine.listen("udp://127.0.0.1:0").expect("there is a port");
    let client = std::net::UdpSocket::bind("127.0.0.1:0").expect("there is a port");
    client.set_read_timeout(Some(DEADLINE)).expect("a socket has the option");
    let to = listener.local_addr().socket_addr().expect("it is one");
    client.send_to(b"hello", to).expect("it is sent");
    assert_eq!(client.recv(&mut [0; 9]).expect("it comes back"), 5);
    listener.close();
    let (remote, reason) = receive(&told);
    assert_eq!((reason.as_str(), remote.is_open()), ("local", false));
}
