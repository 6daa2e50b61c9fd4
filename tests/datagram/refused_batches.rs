//! Datagrams where the system refuses the calls for many of them, or to receive any.
#![cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")
))] // As `common::denied`.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::channel;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::common::denied::{Call, deny};
use crate::common::{
    DEADLINE, TestEngine, assert_answers, assert_same, eventually, pattern, receive,
};
use millstream::{
    Action, Conn, Datagram, DatagramSocket, Engine, EventHandler, Reactor, ReactorAction,
};

/// Counts what goes wrong with datagrams, and echoes the others.
struct Counting(Arc<AtomicU64>);

impl EventHandler for Counting {
    const TAKES_DATAGRAMS: bool = true;

    type State = ();

    fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        Action::Continue
    }

    fn on_datagram(
        &mut self,
        socket: &mut DatagramSocket<'_, Self>,
        datagram: Datagram<'_>,
    ) -> Action {
        let _ = socket.reply(&datagram, datagram.bytes); // Datagrams may be lost.
        Action::Continue
    }

    fn on_datagram_error(&mut self, _: &mut DatagramSocket<'_, Self>, _: &io::Error) -> Action {
        self.0.fetch_add(1, Relaxed);
        Action::Continue
    }
}

/// An engine that echoes datagrams on all addresses, and to whose reactor these calls are refused.
fn datagrams_without(calls: &'static [Call], error: i32) -> (TestEngine, u16, Arc<AtomicU64>) {
    let errors = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&errors);
    let builder = Engine::builder().reactors(1).listen("udp://:0");
    let engine = TestEngine::start_exactly(builder, move |_| Counting(Arc::clone(&counted)));
    let (send, denied) = channel();
    let reactors = engine.reactors::<Counting>().expect("it is the handler's type");
    let refuse = move |_: &mut Counting, _: &mut Reactor<'_, Counting>| {
        deny(calls, error);
        send.send(()).expect("it waits");
        ReactorAction::Continue
    };
    reactors.run(0, refuse).expect("it runs");
    receive(&denied);
    let port = engine.address().port();
    (engine, port, errors)
}

const REFUSALS: [i32; 5] =
    [libc::ENOSYS, libc::EPERM, libc::EINVAL, libc::EOPNOTSUPP, libc::EACCES];

#[test]
fn datagrams_are_received_and_answered_where_those_calls_for_many_are_refused() {
    static CALLS: LazyLock<[Call; 2]> =
        LazyLock::new(|| [libc::SYS_recvmmsg, libc::SYS_sendmmsg].map(Call::any));
    for error in REFUSALS {
        let (engine, port, errors) = datagrams_without(&*CALLS, error);
        // The answer comes from the address that was asked, which the system tells along with each
        // datagram.
        for host in [[127, 0, 0, 1], [127, 0, 0, 2]] {
            let address = SocketAddr::from((host, port));
            assert_answers(address);
        }
        if let Ok(v6) = UdpSocket::bind("[::1]:0") {
            v6.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
            v6.connect(("::1", port)).expect("an address");
            v6.send(b"hello").expect("it is sent");
            assert_eq!(v6.recv(&mut [0; 10]).expect("it is answered"), 5);
        }
        // Many at a time, of one length, which the system may join, and of several.
        let socket = UdpSocket::bind("127.0.0.1:0").expect("there is a port");
        socket.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
        socket.connect(("127.0.0.1", port)).expect("an address");
        for lengths in [[100; 20], std::array::from_fn(|number| 100 + number)] {
            let sent = lengths.map(|len| pattern(len, len as u64));
            sent.iter().for_each(|datagram| {
                assert_eq!(socket.send(datagram).expect("it is sent"), datagram.len());
            });
            for datagram in &sent {
                let mut answer = [0; 1000];
                let len = socket.recv(&mut answer).expect("it is answered");
                assert_same(&answer[..len], datagram);
            }
        }
        assert_eq!(errors.load(Relaxed), 0, "error {error}");
        assert_eq!(engine.stats().reactors[0].datagram_errors, 0, "error {error}");
    }
}

#[test]
fn receiving_that_always_fails_is_tried_ever_less_often() {
    static CALLS: LazyLock<[Call; 3]> = LazyLock::new(|| {
        [libc::SYS_recvmmsg, libc::SYS_recvmsg, libc::SYS_recvfrom].map(Call::any)
    });
    for error in [libc::EPERM, libc::EIO] {
        let (engine, port, errors) = datagrams_without(&*CALLS, error);
        let socket = UdpSocket::bind("127.0.0.1:0").expect("there is a port");
        socket.send_to(b"hello", ("127.0.0.1", port)).expect("it is sent");
        eventually("it fails", || errors.load(Relaxed) > 2);
        // sleep: the subject is what the reactor does while nothing happens.
        std::thread::sleep(Duration::from_secs(1));
        let stats = &engine.stats().reactors[0];
        // Of 1, 2, 4 and so on milliseconds eleven are a second; some more for a machine that is
        // slow.
        assert!(stats.datagram_errors < 30, "error {error}: {} errors", stats.datagram_errors);
        assert_eq!(errors.load(Relaxed), stats.datagram_errors, "error {error}: each is told");
        assert!(stats.turns < 200, "error {error}: {} turns", stats.turns);
    }
}
