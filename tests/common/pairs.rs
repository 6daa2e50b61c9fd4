//! Connected pairs of sockets.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;

use super::{DEADLINE, assert_same, read_exactly};

/// Two ends of a TCP connection; the waits of the first one have a deadline.
pub fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let address = listener.local_addr().expect("it listens");
    let one = TcpStream::connect(address).expect("it listens");
    one.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
    one.set_write_timeout(Some(DEADLINE)).expect("a socket has timeouts");
    let (other, _) = listener.accept().expect("somebody connected");
    (one, other)
}

/// Two ends of a Unix connection; the waits of the first one have a deadline.
pub fn unix_pair() -> (UnixStream, UnixStream) {
    let (one, other) = UnixStream::pair().expect("there are sockets");
    one.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
    one.set_write_timeout(Some(DEADLINE)).expect("a socket has timeouts");
    (one, other)
}

/// Sends bytes on one thread, and gets them back on this one.
#[track_caller]
pub fn converse<S>(stream: &S, bytes: &[u8])
where
    S: Sync,
    for<'a> &'a S: Read + Write,
{
    thread::scope(|scope| {
        let mut writer = stream;
        scope.spawn(move || writer.write_all(bytes).expect("the engine reads"));
        let mut reader = stream;
        assert_same(&read_exactly(&mut reader, bytes.len()), bytes);
    });
}
