//! A peer that floods holds others up by its budget and no more (F6 of the fault checklist).

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use millstream::balance::Balance;
use millstream::{AcceptMode, Action, Address, Conn, Engine, EventHandler};

use super::{BOTH, KIB, exchange, send};
use crate::common::{DEADLINE, TestEngine, eventually, read_exactly, receive};

/// What a client is, by its first byte.
const KEEPER: u8 = b'K';
const FLOOD: u8 = b'F';
const VICTIM: u8 = b'V';

/// Tells of each delivery; echoes to victims; a keeper keeps it from going on.
struct Watch {
    deliveries: Sender<(u8, usize)>,
    gate: Option<Receiver<()>>,
}

impl EventHandler for Watch {
    type State = Option<u8>;

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let bytes = conn.input.take_all();
        let role = *conn.state.get_or_insert(bytes[0]);
        let _ = self.deliveries.send((role, bytes.len()));
        match role {
            KEEPER => {
                let gate = self.gate.take().expect("one keeper sends one byte");
                let _ = gate.recv_timeout(DEADLINE); // A test that failed opens it.
            }
            VICTIM => conn.output.write(bytes),
            _ => {}
        }
        Action::Continue
    }
}

/// A peer that sends as fast as it can until it is dropped.
struct Flood {
    stream: TcpStream,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Fills all buffers up to the engine's, then goes on in the background.
    fn start(stream: TcpStream) -> Self {
        let bytes = [FLOOD; 64 * KIB];
        stream.set_nonblocking(true).expect("a socket has the option");
        let mut filled = 0;
        let full = loop {
            match (&stream).write(&bytes) {
                Ok(len) => filled += len,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
        assert!(filled > 4 * FAIR, "the kernel took {filled} bytes: not a flood");
        stream.set_nonblocking(false).expect("a socket has the option");
        let mut writer = stream.try_clone().expect("a socket can be cloned");
        let thread = thread::spawn(move || while writer.write_all(&bytes).is_ok() {});
        Flood { stream, thread: Some(thread) }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both); // The engine may have closed it before.
        if let Some(thread) = self.thread.take() {
            thread.join().expect("writing doesn't panic");
        }
    }
}

/// Gives all connections to the first reactor.
struct First;

impl Balance for First {
    fn choose(&mut self, _peer: Address, _connections: &[usize]) -> usize {
        0
    }
}

const READ_BUDGET: usize = 4 * KIB;
const FLOODS: usize = 2;
/// What may be read from the floods before the victim's request: four turns' worth.
const FAIR: usize = 4 * FLOODS * READ_BUDGET;

/// F6: everything is there when the reactor goes on: much from the floods, little from the victim.
/// It is counted, not timed, how much of the former is served before the latter.
#[test]
fn a_flood_holds_others_up_by_its_budget_and_no_more() {
    for mode in BOTH {
        for late in [false, true] {
            let (deliveries, served) = channel();
            let (go, gate) = channel();
            let gate = Mutex::new(Some(gate));
            // With one reactor there would not be a main acceptor.
            let reactors = if mode == AcceptMode::MainAcceptor { 2 } else { 1 };
            let builder = Engine::builder().accept_mode(mode).reactors(reactors).balance(First);
            let builder = builder.read_budget(READ_BUDGET).receive_buffer(READ_BUDGET);
            let engine = TestEngine::start(builder, move |reactor| Watch {
                deliveries: deliveries.clone(),
                gate: (reactor == 0)
                    .then(|| gate.lock().expect("nobody panics with it").take())
                    .flatten(),
            });
            let [keeper, first, second] = [(); 3].map(|()| engine.connect());
            let early = (!late).then(|| engine.connect());
            let connections = if late { 3 } else { 4 };
            eventually("all are open", || engine.stats().reactors[0].accepted == connections);
            send(&keeper, &[KEEPER]);
            assert_eq!(receive(&served), (KEEPER, 1));
            let _floods = [first, second].map(Flood::start);
            let mut victim = early.unwrap_or_else(|| engine.connect());
            if late && mode == AcceptMode::MainAcceptor {
                let handed_over = || engine.stats().reactors[0].inbox_depth == 1;
                eventually("the late one is handed over", handed_over);
            }
            send(&victim, &[VICTIM; 100]);

            go.send(()).expect("the gate is there");
            assert_eq!(read_exactly(&mut victim, 100), [VICTIM; 100]);
            let before = served.iter().take_while(|(role, _)| *role != VICTIM);
            let flooded: usize = before.map(|(_, len)| len).sum();
            assert!(flooded <= FAIR, "{mode:?}, late: {late}: {flooded} bytes went first");
            (0..100).for_each(|_| exchange(&victim, &[VICTIM; 100]));
        }
    }
}
