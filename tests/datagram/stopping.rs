//! How sockets end with their engine.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use millstream::{Action, Engine, OpenDatagram, SendError};

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
        .open_datagram(0, OpenDatagram::to(to), move |_, socket| {
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

/// A Unix socket serves many, so whoever has no room costs its own datagrams and nobody else's.
#[test]
fn a_slow_receiver_does_not_hold_up_the_others() {
    let (tell, _news) = channel();
    let folder = Folder::new();
    let engine = TestEngine::start(Engine::builder().reactors(1), move |_| Tell(tell.clone()));
    let reactors = engine.reactors::<Tell>().expect("it is the handler");
    let (slow, quick) = (Peer::like(&unix("/unused")), Peer::like(&unix("/unused")));
    let (to_slow, to_quick) = (slow.address(), quick.address());
    let how = OpenDatagram::on(unix(folder.path("server")));
    let opened = reactors.open_datagram(0, how, move |_, socket| {
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

/// A queue that nobody takes is dropped at the deadline, and counted; so it is when a socket alone closes.
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
            .open_datagram(0, OpenDatagram::to(to), move |_, socket| {
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
