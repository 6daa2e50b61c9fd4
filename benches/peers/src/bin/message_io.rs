//! message-io: one event loop over mio, which calls back for each piece received.
//!
//! Tuned: the network half alone (`network::split`), without the queue of signals and the lock that
//! a `node` adds. It has its own receive buffer of 64 KiB and its own backlog of 1024.
//!
//! It has one loop, and nothing to set TCP_NODELAY with. Its `send` spins while the socket is full,
//! so one peer that doesn't read stops the whole server.

use std::io::{self, ErrorKind};

use clap::Parser;
use message_io::network::{self, NetEvent, Transport};
use millstream_peers::echo_server::{Options, announce};

fn main() -> io::Result<()> {
    let options = Options::parse();
    if options.threads.get() != 1 {
        let message = format!("--threads {}: message-io has one event loop", options.threads);
        return Err(io::Error::new(ErrorKind::InvalidInput, message));
    }
    let (controller, mut processor) = network::split();
    let (_, address) = controller.listen(Transport::Tcp, options.listen)?;
    announce(address);
    loop {
        processor.process_poll_event(None, |event| {
            if let NetEvent::Message(endpoint, data) = event {
                controller.send(endpoint, data);
            }
        });
    }
}
