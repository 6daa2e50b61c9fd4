//! Who is at the other end of a Unix connection, and descriptors that go along with its bytes.

use std::fs;
use std::io::{ErrorKind, IoSlice, IoSliceMut, PipeReader, PipeWriter, Write, pipe};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::process;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use crate::common::pairs::{converse, unix_pair};
use crate::common::recorder::{On, Recorder, keep};
use crate::common::seeds::for_each_seed;
use crate::common::stage::{Stage, run};
use crate::common::{assert_same, eventually, pattern, read_exactly, receive};
use millstream::{Action, Conn, ReactorAction, Remote, SendDescriptorsError};
use rustix::io::{FdFlags, fcntl_getfd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Makes the engine take in one end of a pair of Unix sockets.
fn open(stage: &Stage) -> (UnixStream, Remote<Recorder>) {
    let (ours, theirs) = unix_pair();
    let reactors = stage.reactors::<Recorder>().expect("it is the engine's handler");
    reactors.adopt(0, theirs, |_, _, _| Action::Continue).expect("the engine runs");
    (ours, stage.wait_for(On::Open).remote())
}

/// Sends bytes with descriptors.
fn send(socket: &UnixStream, bytes: &[u8], descriptors: &[impl AsFd]) {
    let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let sent = sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::empty());
    assert_eq!(sent, Ok(bytes.len()));
}

/// Receives some bytes, and what comes along.
fn receive_with(socket: &UnixStream, room: &mut [u8]) -> (usize, Vec<OwnedFd>) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(socket, &mut [IoSliceMut::new(room)], &mut control, RecvFlags::CMSG_CLOEXEC);
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            descriptors.extend(some);
        }
    }
    (received.expect("bytes come").bytes, descriptors)
}

/// A pipe that has a number in it, and the end that shows whether the other one is closed.
fn numbered(number: u32) -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().expect("there are pipes");
    writer.write_all(&number.to_le_bytes()).expect("there is room");
    (reader, writer)
}

fn number_in(descriptor: OwnedFd) -> u32 {
    let bytes = read_exactly(&mut PipeReader::from(descriptor), 4);
    u32::from_le_bytes(bytes.try_into().expect("four bytes"))
}

#[track_caller]
fn assert_closed(mut writer: PipeWriter) {
    eventually("the other end is closed", || match writer.write(b"x") {
        Ok(_) => false,
        Err(error) => error.kind() == ErrorKind::BrokenPipe,
    });
}

fn echo(on: On, conn: &mut Conn<'_, Recorder>) -> Action {
    if on == On::Traffic {
        conn.output.write(conn.input.take_all());
    }
    on.usual()
}

#[test]
fn a_unix_connection_knows_whose_the_other_end_is() {
    let stage = Stage::start(Stage::builder(), echo);
    let (_ours, remote) = open(&stage);
    let peer = run(&remote, |conn| conn.peer_credentials()).expect("it is a Unix connection");
    if cfg!(target_os = "linux") {
        let own = fs::metadata("/proc/self").expect("it is there");
        assert_eq!((peer.pid, peer.uid, peer.gid), (Some(process::id()), own.uid(), own.gid()));
    }
    let (_client, remote) = stage.open();
    let error = run(&remote, |conn| conn.peer_credentials()).expect_err("TCP doesn't tell");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

/// Descriptors go with the byte they were written with, in order and once, between plain bytes and
/// through a socket that is full.
#[test]
fn descriptors_go_with_their_bytes() {
    for_each_seed(5, |seed| {
        let mut rng = fastrand::Rng::with_seed(seed);
        let stage = Stage::start(Stage::builder().output_cap(64 << 20), echo);
        let (ours, remote) = open(&stage);
        let (mut bytes, mut places, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        let mut number = 0;
        for _ in 0..200 {
            let count = *rng.choice([0, 0, 1, 1, 2, 7]).as_ref().expect("there are some");
            let part = pattern(rng.usize(1..30_000), rng.u64(..));
            let pipes: Vec<_> = (0..count).map(|index| numbered(number + index)).collect();
            let (readers, writers): (Vec<_>, Vec<_>) = pipes.into_iter().unzip();
            places.extend((0..count).map(|_| bytes.len()));
            number += count;
            bytes.extend_from_slice(&part);
            kept.extend(writers);
            let plain = rng.bool() && count == 0;
            let sent = run(&remote, move |conn| {
                if plain {
                    conn.output.write(&part);
                    return Ok(());
                }
                conn.send_descriptors(part, readers.into_iter().map(OwnedFd::from))
            });
            assert_eq!(sent, Ok(()));
        }
        let (mut came, mut numbers) = (Vec::new(), Vec::new());
        let mut room = vec![0; 100_000];
        while came.len() < bytes.len() {
            let (len, descriptors) = receive_with(&ours, &mut room);
            assert_ne!(len, 0, "the engine has not closed it");
            let before = came.len();
            came.extend_from_slice(&room[..len]);
            for descriptor in descriptors {
                let place = places[numbers.len()];
                assert!((before..came.len()).contains(&place), "it came with another byte");
                numbers.push(number_in(descriptor));
            }
        }
        assert_same(&came, &bytes);
        assert_eq!(numbers, Vec::from_iter(0..number));
        kept.into_iter().for_each(assert_closed); // The engine has kept none.
    });
}

#[test]
fn descriptors_that_wait_are_closed_with_the_connection() {
    let stage = Stage::start(Stage::builder().output_cap(64 << 20), echo);
    let (ours, remote) = open(&stage);
    let (reader, writer) = numbered(1);
    let waits = run(&remote, move |conn| {
        conn.output.write(&vec![0; 16 << 20]);
        let sent = conn.send_descriptors(&b"x"[..], [reader.into()]);
        let too_many = conn.send_descriptors(&b"x"[..], (0..254).map(|_| numbered(0).0.into()));
        (sent, too_many)
    });
    let too_many = SendDescriptorsError::TooMany { count: 254, waiting: 1 };
    assert_eq!(waits, (Ok(()), Err(too_many)));
    drop(ours);
    assert_closed(writer);
    assert_eq!(stage.closed().reason, "failed");
}

#[test]
fn what_cannot_be_sent_says_why() {
    let stage = Stage::start(Stage::builder(), echo);
    let (_ours, remote) = open(&stage);
    let (_client, tcp) = stage.open();
    let (reader, writer) = numbered(1);
    let sent = run(&tcp, |conn| {
        assert_eq!(
            conn.receive_descriptors(1).expect_err("it is TCP").kind(),
            ErrorKind::Unsupported
        );
        assert!(conn.take_descriptor().is_none());
        conn.send_descriptors(&b"x"[..], [reader.into()])
    });
    assert_eq!(sent, Err(SendDescriptorsError::Unsupported));
    assert_closed(writer);
    let none = run(&remote, |conn| conn.send_descriptors(&b""[..], [numbered(1).0.into()]));
    assert_eq!(none, Err(SendDescriptorsError::NoBytes));
    let closed = run(&remote, |conn| {
        conn.shutdown();
        conn.send_descriptors(&b"x"[..], [numbered(1).0.into()])
    });
    assert_eq!(closed, Err(SendDescriptorsError::Closed));
}

/// As many as were asked for are kept, in order; the others are closed, and counted.
#[test]
fn received_descriptors_are_kept_up_to_a_bound() {
    let stage = Stage::start(Stage::builder(), |on, conn| {
        match on {
            On::Open if conn.transport() == millstream::Transport::Unix => {
                conn.receive_descriptors(3).expect("it is a Unix connection");
            }
            On::Traffic => keep(conn),
            _ => {}
        }
        on.usual()
    });
    let (mut ours, remote) = open(&stage);
    let (readers, writers): (Vec<_>, Vec<_>) = (0..6).map(numbered).unzip();
    send(&ours, b"one and two", &readers[..2]);
    ours.write_all(b", nothing, ").expect("it reads");
    send(&ours, b"four", &readers[2..]);
    drop(readers);
    let wait_for = |count: usize| {
        eventually("the bytes came", || {
            run(&remote, move |conn| conn.state.received.len() == count)
        });
    };
    wait_for(26);
    let (taken, dropped) = run(&remote, |conn| {
        let taken: Vec<_> = std::iter::from_fn(|| conn.take_descriptor()).collect();
        (taken, conn.dropped_descriptors())
    });
    assert_eq!((taken.len(), dropped), (3, 3));
    for descriptor in &taken {
        let flags = fcntl_getfd(descriptor).expect("it is open");
        assert!(flags.contains(FdFlags::CLOEXEC));
    }
    assert_eq!(taken.into_iter().map(number_in).collect::<Vec<_>>(), [0, 1, 2]);
    writers.into_iter().for_each(assert_closed);
    // There is room again, and what is not taken is closed with the connection.
    let (reader, writer) = numbered(6);
    send(&ours, b".", &[reader]);
    wait_for(27);
    drop(ours);
    assert_same(&stage.closed().received, b"one and two, nothing, four.");
    assert_closed(writer);
}

/// A peer that sends descriptors to somebody who wants none gets neither the reactor's nor its own
/// bytes stuck.
#[test]
fn a_connection_that_wants_no_descriptors_loses_no_byte() {
    let stage = Stage::start(Stage::builder(), echo);
    let (mut ours, remote) = open(&stage);
    for paused in [true, false] {
        run(&remote, move |conn| if paused { conn.pause_reading() } else { conn.resume_reading() });
        let mut writers = Vec::new();
        for number in 0..10 {
            let (reader, writer) = numbered(number);
            send(&ours, b"with", &[reader]);
            ours.write_all(b" and without").expect("there is room");
            writers.push(writer);
        }
        if paused {
            run(&remote, |conn| {
                conn.resume_reading();
            });
        }
        assert_same(&read_exactly(&mut ours, 160), &b"with and without".repeat(10));
        writers.into_iter().for_each(assert_closed);
    }
    let none = run(&remote, |conn| (conn.dropped_descriptors(), conn.take_descriptor().is_none()));
    assert_eq!(none, (0, true), "nobody asked for them");
    converse(&ours, &pattern(1 << 20, 1));
}

/// What is on its way in either direction goes with a connection that is detached.
#[test]
fn descriptors_go_with_a_detached_connection() {
    let (told, detached) = channel();
    let told = Mutex::new(told);
    let stage = Stage::start(Stage::builder().output_cap(64 << 20), move |on, conn| {
        if on == On::Open {
            conn.receive_descriptors(8).expect("it is a Unix connection");
        }
        if on == On::Traffic {
            conn.output.write(&vec![0; 16 << 20]);
            let reader = numbered(7).0.into();
            conn.send_descriptors(&b"x"[..], [reader]).expect("it is a Unix connection");
            let told = told.lock().expect("nobody panicked").clone();
            let detach = conn.detach(move |_, _, detached| {
                let _ = told.send((detached.unsent.len(), detached));
                ReactorAction::Continue
            });
            detach.expect("it is open");
        }
        on.usual()
    });
    let (ours, _remote) = open(&stage);
    send(&ours, b"hello", &[numbered(5).0]);
    let (unsent, detached) = receive(&detached);
    assert_same(&detached.unread, b"hello");
    let numbers: Vec<_> = detached.descriptors.into_iter().map(number_in).collect();
    assert_eq!(numbers, [5]);
    let [(place, descriptors)] = <[_; 1]>::try_from(detached.unsent_descriptors).expect("one");
    assert_eq!((place, descriptors.len()), (unsent - 1, 1));
    assert_eq!(descriptors.into_iter().map(number_in).collect::<Vec<_>>(), [7]);
}
