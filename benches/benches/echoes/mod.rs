//! A reactor on real sockets with peers that have messages echoed, all in the calling thread.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use millstream::internals::Stepper;
use millstream::{Action, Conn, Engine, EventHandler};

/// Warming up takes so long, by when the stall detector knows the rate of the processor's counter.
const WARM_UP: Duration = Duration::from_millis(50);

/// Sends everything back, in frames of so many bytes.
pub(crate) struct Echo {
    frame: usize,
}

impl EventHandler for Echo {
    type State = ();

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        while !conn.input.is_empty() {
            let frame = self.frame.min(conn.input.len());
            conn.output.write(conn.input.take(frame).unwrap_or_default());
        }
        Action::Continue
    }
}

/// A reactor and its peers, each of which has a message echoed in every turn.
pub(crate) struct Echoes {
    pub(crate) stepper: Stepper<Echo>,
    peers: Vec<TcpStream>,
    message: Vec<u8>,
    echoed: Vec<u8>,
}

impl Echoes {
    /// So many connections, messages of so many bytes, and frames of so many. All is warm.
    pub(crate) fn warm(connections: usize, message: usize, frame: usize) -> Self {
        let mut stepper =
            Stepper::new(Engine::builder(), Echo { frame }).expect("a reactor starts");
        let peers = (0..connections).map(|_| stepper.connect().expect("a peer connects")).collect();
        let mut echoes =
            Echoes { stepper, peers, message: vec![1; message], echoed: vec![0; message] };
        let start = Instant::now();
        while start.elapsed() < WARM_UP {
            echoes.round(Stepper::turn);
        }
        echoes
    }

    /// Sends the messages, has `turn` run a turn, and receives what was echoed in it.
    pub(crate) fn round<T>(&mut self, turn: impl FnOnce(&mut Stepper<Echo>) -> T) -> T {
        for peer in &mut self.peers {
            peer.write_all(&self.message).expect("the message is sent");
        }
        let outcome = turn(&mut self.stepper);
        for peer in &mut self.peers {
            peer.read_exact(&mut self.echoed).expect("the message is echoed within the turn");
        }
        outcome
    }
}
