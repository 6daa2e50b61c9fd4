//! Sockets that the engine opens itself, and their handles.

use std::io::ErrorKind;
use std::sync::mpsc::channel;

use millstream::{
    Action, Address, DatagramRemote, Engine, OpenDatagram, OpenError, Reactors, SendError,
    Transport,
};

use crate::client::{News, Peer, Tell, unix};
use crate::common::folder::Folder;
use crate::common::{DEADLINE, TestEngine, eventually, pattern, receive};

/// An engine that tells what its sockets hear, and its reactors.
fn start() -> (TestEngine, Reactors<Tell>, std::sync::mpsc::Receiver<News>) {
    let (tell, news) = channel();
    let engine = TestEngine::start(Engine::builder().reactors(2), move |_| Tell(tell.clone()));
    let reactors = engine.reactors().expect("it is the handler");
    (engine, reactors, news)
}

/// Opens a socket; returns its handle and its address.
fn open(reactors: &Reactors<Tell>, how: OpenDatagram) -> (DatagramRemote<Tell>, Address) {
    let (tell, opened) = channel();
    reactors
        .open_datagram(1, how, move |_, _, socket| {
            let socket = socket.expect("it can be opened");
            tell.send((socket.remote(), socket.local_addr())).expect("the test waits");
            Action::Continue
        })
        .expect("it runs");
    receive(&opened)
}

/// Connected sockets of each kind talk to their peer, from any thread.
#[test]
fn a_connected_socket_talks_to_its_peer_from_any_thread() {
    let (_engine, reactors, news) = start();
    let folder = Folder::new();
    let kinds = [
        Address::from(([127, 0, 0, 1], 0)),
        "[::1]:0".parse().map(Address::Ip).expect("it is one"),
        unix("/unused"),
    ];
    for (number, kind) in kinds.iter().enumerate() {
        let peer = Peer::like(kind);
        let mut how = OpenDatagram::to(peer.address());
        if !cfg!(target_os = "linux") && kind.unix().is_some() {
            how = how.bind(unix(folder.path("own")));
        }
        let (remote, own) = open(&reactors, how);
        let bytes = pattern(1024, number as u64);
        remote.send(bytes.clone()).expect("it is open");
        assert_eq!(peer.receive(), (bytes.clone(), own));
        if own.unix().is_some_and(|name| name.as_path().is_none()) {
            continue; // The standard library's sockets can't send to an abstract name by now.
        }
        peer.send_to(&own, &bytes);
        let from = peer.address();
        assert_eq!(receive(&news), News::Datagram { bytes, from, truncated: false });
    }
}

/// A socket that is connected to nobody learns that from the network.
#[test]
fn nobody_at_the_other_end_is_an_error_and_the_socket_stays() {
    let (engine, reactors, news) = start();
    let peer = Peer::like(&Address::from(([127, 0, 0, 1], 0)));
    let address = peer.address();
    let (remote, _) = open(&reactors, OpenDatagram::to(address));
    drop(peer);
    for _ in 0..3 {
        remote.send("anybody there?").expect("it is open");
        assert_eq!(receive(&news), News::Error(ErrorKind::ConnectionRefused));
    }
    assert!(engine.stats().reactors[1].datagram_errors >= 3);
    assert!(remote.is_open());
    remote.close().expect("it is open");
    eventually("it is closed", || engine.stats().reactors[1].datagram_sockets == 0);
    assert!(!remote.is_open());
    remote.send("too late").expect_err("it is closed");
}

/// One socket for several peers; a closure runs with it on its reactor.
#[test]
fn a_bound_socket_sends_to_many_and_runs_closures() {
    let (_engine, reactors, news) = start();
    let (remote, own) = open(&reactors, OpenDatagram::on(([127, 0, 0, 1], 0)));
    assert_eq!(remote.id().reactor(), 1);
    let peers: Vec<_> = (0..3).map(|_| Peer::like(&own)).collect();
    for peer in &peers {
        remote.send_to(&peer.address(), "hello").expect("it is open");
        assert_eq!(peer.receive(), (b"hello".to_vec(), own));
        peer.send_to(&own, b"hi");
        let from = peer.address();
        assert_eq!(
            receive(&news),
            News::Datagram { bytes: b"hi".to_vec(), from, truncated: false }
        );
    }
    let (tell, told) = channel();
    remote
        .run(move |_, socket| {
            let kind = (socket.transport(), socket.peer_addr(), socket.listener());
            let _ = tell.send((kind, socket.id(), socket.send(b"to whom?")));
            Action::Close
        })
        .expect("it is open");
    let (kind, id, error) = receive(&told);
    assert_eq!(kind, (Transport::Udp, None, None));
    assert_eq!((id, error), (remote.id(), Err(SendError::NotConnected)));
    eventually("it closes", || !remote.is_open());
}

/// A connected socket sends to its peer and nobody else.
#[test]
fn a_connected_socket_sends_nowhere_else() {
    let (_engine, reactors, _news) = start();
    let peer = Peer::like(&Address::from(([127, 0, 0, 1], 0)));
    let (remote, _) = open(&reactors, OpenDatagram::to(peer.address()));
    let (tell, told) = channel();
    let (there, elsewhere) = (peer.address(), Address::from(([127, 0, 0, 1], 9)));
    remote
        .run(move |_, socket| {
            let _ =
                tell.send((socket.send_to(&there, b"hello"), socket.send_to(&elsewhere, b"hello")));
            Action::Continue
        })
        .expect("it is open");
    let peer_address = peer.address();
    assert_eq!(receive(&told), (Ok(()), Err(SendError::Connected { peer: peer_address })));
    assert_eq!(peer.receive().0, b"hello");
}

/// A bad address, one that is in use, and an engine that stops are told by type.
#[test]
fn what_cannot_be_opened_is_told() {
    let (engine, reactors, _news) = start();
    let (remote, own) = open(&reactors, OpenDatagram::on(([127, 0, 0, 1], 0)));
    let (tell, told) = channel();
    let why = |how: OpenDatagram| {
        let tell = tell.clone();
        reactors
            .open_datagram(1, how, move |_, _, socket| {
                let _ = tell.send(socket.map(drop).expect_err("it can't be opened"));
                Action::Close // Which means nothing here.
            })
            .expect("it runs");
        receive(&told)
    };
    let kind = |error| match error {
        OpenError::Failed { source, address } => (source.kind(), address),
        error => panic!("{error}"),
    };
    assert_eq!(kind(why(OpenDatagram::on(own))), (ErrorKind::AddrInUse, own));
    let foreign = Address::from(([192, 0, 2, 1], 0));
    assert_eq!(kind(why(OpenDatagram::on(foreign))), (ErrorKind::AddrNotAvailable, foreign));
    let mixed = OpenDatagram::to(([127, 0, 0, 1], 9)).bind(unix("/unused"));
    assert_eq!(kind(why(mixed)).0, ErrorKind::InvalidInput);
    assert!(remote.is_open());
    engine.stop(DEADLINE).expect("it runs");
    engine.wait().expect("it ends");
    reactors
        .open_datagram(1, OpenDatagram::on(own), |_, _, _| Action::Continue)
        .expect_err("too late");
    assert!(!remote.is_open());
}
