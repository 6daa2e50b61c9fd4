//! A connection with rustls' own buffers.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use millstream_benches::echo::{Ready, retry};
use millstream_benches::echo_server::BUFFER;
use millstream_benches::epoll_server::EpollConnection;
use rustls::{ServerConfig, ServerConnection};

/// What all connections share: records as they are received, and what is in them.
pub(super) const SHARED: usize = 2 * BUFFER;

pub(super) struct Buffered {
    socket: TcpStream,
    session: ServerConnection,
}

impl Buffered {
    pub(super) fn new(socket: TcpStream, config: &Arc<ServerConfig>) -> io::Result<Self> {
        let session = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other);
        let mut session = session?;
        // Nothing is received while something is unsent, which is limit enough.
        session.set_buffer_limit(None);
        Ok(Self { socket, session })
    }

    /// Opens what was received and seals it again.
    fn echo(&mut self, mut records: &[u8], plain: &mut [u8]) -> io::Result<()> {
        while !records.is_empty() {
            self.session.read_tls(&mut records)?;
            let state = self.session.process_new_packets().map_err(io::Error::other)?;
            let mut left = state.plaintext_bytes_to_read();
            while left > 0 {
                let count = self.session.reader().read(plain)?;
                self.session.writer().write_all(&plain[..count])?;
                left -= count;
            }
        }
        Ok(())
    }

    /// Sends what is sealed. False if the socket is full.
    fn flush(&mut self) -> io::Result<bool> {
        while self.session.wants_write() {
            if retry(|| self.session.write_tls(&mut self.socket))?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl EpollConnection for Buffered {
    fn ready(&mut self, event: Ready, buffer: &mut [u8]) -> io::Result<bool> {
        let was_blocked = self.session.wants_write();
        if was_blocked && !self.flush()? || !was_blocked && !event.readable {
            return Ok(true);
        }
        let (records, plain) = buffer.split_at_mut(BUFFER);
        loop {
            let count = match retry(|| self.socket.read(records))? {
                None => return Ok(true),
                Some(0) => return Ok(false),
                Some(count) => count,
            };
            self.echo(&records[..count], plain)?;
            if !self.flush()? || count < records.len() && !event.read_closed {
                return Ok(true);
            }
        }
    }
}
