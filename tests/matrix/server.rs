//! The server of a case, which echoes.

use std::io::IoSlice;
use std::ops::Deref;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use millstream::{
    Action, Address, Bytes, Conn, Datagram, DatagramRemote, DatagramSocket, Engine, EventHandler,
    Remote,
};

use super::{Case, Write};
use crate::common::TestEngine;

/// An engine that echoes, and the thread that writes for it if that is the case.
pub(crate) struct Server {
    engine: TestEngine,
    /// Ends with the last handler.
    _writer: JoinHandle<()>,
}

impl Server {
    pub(crate) fn start(case: &Case) -> Self {
        let mut builder = Engine::builder().accept_mode(case.accept_mode).reactors(case.reactors);
        for (place, carrier) in case.carriers.iter().enumerate() {
            builder = builder.listen(carrier.listen(place));
        }
        let (orders, for_writer) = channel();
        let writer = thread::spawn(move || for_writer.into_iter().for_each(Order::obey));
        let write = case.write;
        let engine =
            TestEngine::start_exactly(builder, move |_| Echo { write, writer: orders.clone() });
        Server { engine, _writer: writer }
    }
}

impl Deref for Server {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

/// What the other thread is to write.
enum Order {
    Stream(Remote<Echo>, Bytes),
    Datagram(DatagramRemote<Echo>, Address, Bytes),
}

impl Order {
    fn obey(self) {
        let _ = match self {
            Order::Stream(remote, bytes) => remote.write(bytes),
            Order::Datagram(remote, to, bytes) => remote.send_to(&to, bytes),
        }; // The peer may be gone.
    }
}

struct Echo {
    write: Write,
    writer: Sender<Order>,
}

impl EventHandler for Echo {
    const TAKES_DATAGRAMS: bool = true;

    type State = ();

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let bytes = conn.input.take_all();
        match self.write {
            Write::InCallback => conn.output.write(bytes),
            Write::Vectored => {
                let (front, back) = bytes.split_at(bytes.len() / 3);
                let empty = IoSlice::new(&[]);
                conn.output.write_vectored(&[IoSlice::new(front), empty, IoSlice::new(back)]);
            }
            Write::ByReference => conn.output.write_bytes(Bytes::copy_from_slice(bytes)),
            Write::FromAnotherThread => {
                let order = Order::Stream(conn.remote(), Bytes::copy_from_slice(bytes));
                self.writer.send(order).expect("the writer lives as long as a handler");
            }
        }
        Action::Continue
    }

    fn on_datagram(
        &mut self,
        socket: &mut DatagramSocket<'_, Self>,
        datagram: Datagram<'_>,
    ) -> Action {
        let bytes = || Bytes::copy_from_slice(datagram.bytes);
        match self.write {
            Write::InCallback => socket.reply(&datagram, datagram.bytes).expect("there is room"),
            Write::Vectored => {
                let half = datagram.bytes.len() / 2;
                let sent = socket.send_segments(&datagram.from, datagram.bytes, half);
                sent.expect("there is room");
            }
            Write::ByReference => {
                socket.remote().send_to(&datagram.from, bytes()).expect("it is open");
            }
            Write::FromAnotherThread => {
                let order = Order::Datagram(socket.remote(), datagram.from, bytes());
                self.writer.send(order).expect("the writer lives as long as a handler");
            }
        }
        Action::Continue
    }
}
