//! Small servers of known behaviour, and loads for them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use millstream_benches::load::{Deadlines, Load};

/// Starts a server that handles each connection with `serve` on its own thread. The threads end
/// with the test process, or when the generator closes their connections.
pub(super) fn server(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(stream.unwrap()));
        }
    });
    address
}

/// Passes what comes in through `change` and sends it back.
pub(super) fn echo(mut stream: TcpStream, mut change: impl FnMut(&mut [u8])) {
    let mut buffer = vec![0; 16 * 1024];
    stream.set_nodelay(true).unwrap();
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        change(&mut buffer[..count]);
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

pub(super) fn faithful(stream: TcpStream) {
    echo(stream, |_| {});
}

/// A load of 200 ms.
pub(super) fn short_load(address: SocketAddr) -> Load {
    Load {
        connections: 8,
        duration: Duration::from_millis(200),
        warm_up: Duration::from_millis(20),
        ..Load::new(address)
    }
}

/// The same, but the server is soon given up on.
pub(super) fn impatient_load(address: SocketAddr) -> Load {
    let patience = Duration::from_millis(300);
    let deadlines = Deadlines { connect: patience, stall: patience, drain: patience };
    Load { deadlines, ..short_load(address) }
}
