//! The server of a case, which echoes.

use std::io::IoSlice;
use std::ops::Deref;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use millstream::{
    Action, Bytes, Conn, Engine, EventHandler, Listen, Remote, Transport, UnixAddress,
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
        for (place, transport) in case.transports.iter().enumerate() {
            builder = builder.listen(listen(*transport, place));
        }
        let (orders, for_writer) = channel::<(Remote<Echo>, Bytes)>();
        let writer = thread::spawn(move || {
            for (remote, bytes) in for_writer {
                let _ = remote.write(bytes); // The peer may be gone.
            }
        });
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

/// A place that nobody else listens at.
fn listen(transport: Transport, place: usize) -> Listen {
    match transport {
        Transport::Tcp => "tcp://127.0.0.1:0".into(),
        Transport::Unix => Listen::unix(unique_name(place)),
        other => unreachable!("{other} is not in the table"),
    }
}

/// A name in the folder for temporary files; the engine removes it.
fn unique_name(place: usize) -> UnixAddress {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("millstream-matrix-{}-{count}-{place}", std::process::id());
    UnixAddress::path(std::env::temp_dir().join(name)).expect("it is short enough")
}

struct Echo {
    write: Write,
    writer: Sender<(Remote<Echo>, Bytes)>,
}

impl EventHandler for Echo {
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
                let order = (conn.remote(), Bytes::copy_from_slice(bytes));
                self.writer.send(order).expect("the writer lives as long as a handler");
            }
        }
        Action::Continue
    }
}
