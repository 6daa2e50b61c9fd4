//! A connection with no buffers but the loop's.

use std::io::{self, Read, Write};
use std::mem;
use std::net::TcpStream;
use std::sync::Arc;

use millstream_benches::echo::{Ready, retry};
use millstream_benches::echo_server::BUFFER;
use millstream_benches::epoll_server::EpollConnection;
use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};

/// Room for a record that has begun, or for a handshake's messages.
const BEGUN: usize = 32 * 1024;
/// Room for what records have more than what is in them, and for a handshake's answer.
const OVERHEAD: usize = 32 * 1024;
/// What all connections share: records as they are received, what is in them, and it sealed again.
pub(super) const SHARED: usize = 3 * (BEGUN + BUFFER) + OVERHEAD;

pub(super) struct Unbuffered {
    socket: TcpStream,
    session: UnbufferedServerConnection,
    /// The beginning of a record.
    begun: Vec<u8>,
    unsent: Vec<u8>,
}

impl Unbuffered {
    pub(super) fn new(socket: TcpStream, config: &Arc<ServerConfig>) -> io::Result<Self> {
        let session = UnbufferedServerConnection::new(Arc::clone(config));
        let session = session.map_err(io::Error::other)?;
        Ok(Self { socket, session, begun: Vec::new(), unsent: Vec::new() })
    }

    /// Opens what was received and seals it again. Returns how much was used, how much is to be
    /// sent, and whether that was all.
    fn echo(
        &mut self,
        records: &mut [u8],
        plain: &mut [u8],
        sealed: &mut [u8],
    ) -> io::Result<(usize, usize, bool)> {
        let (mut used, mut opened, mut written) = (0, 0, 0);
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.session.process_tls_records(&mut records[used..]);
            let more = match state.map_err(io::Error::other)? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(io::Error::other)?;
                        plain[opened..][..record.payload.len()].copy_from_slice(record.payload);
                        opened += record.payload.len();
                        discard += record.discard;
                    }
                    true
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    let encoded = data.encode(&mut sealed[written..]);
                    written += encoded.map_err(io::Error::other)?;
                    true
                }
                ConnectionState::TransmitTlsData(data) => {
                    data.done();
                    true
                }
                ConnectionState::WriteTraffic(mut traffic) => {
                    if opened > 0 {
                        let sealing = traffic.encrypt(&plain[..opened], &mut sealed[written..]);
                        written += sealing.map_err(io::Error::other)?;
                    }
                    false
                }
                ConnectionState::BlockedHandshake => false,
                _ => return Ok((used + discard, written, true)),
            };
            used += discard;
            if !more {
                return Ok((used, written, false));
            }
        }
    }

    /// Sends what it can of what is kept. False if the socket is full.
    fn flush(&mut self) -> io::Result<bool> {
        let unsent = mem::take(&mut self.unsent);
        self.send(&unsent)
    }

    /// The same of these bytes, and keeps the rest.
    fn send(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match retry(|| self.socket.write(rest))? {
                Some(count) => rest = &rest[count..],
                None => {
                    self.unsent = rest.to_vec();
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

impl EpollConnection for Unbuffered {
    fn ready(&mut self, event: Ready, buffer: &mut [u8]) -> io::Result<bool> {
        let was_blocked = !self.unsent.is_empty();
        if was_blocked && !self.flush()? || !was_blocked && !event.readable {
            return Ok(true);
        }
        let (records, rest) = buffer.split_at_mut(BEGUN + BUFFER);
        let (plain, sealed) = rest.split_at_mut(BEGUN + BUFFER);
        loop {
            let kept = self.begun.len();
            let Some(room) = records.get_mut(kept..kept + BUFFER) else {
                return Err(io::Error::other("the handshake is too long"));
            };
            let count = match retry(|| self.socket.read(room))? {
                None => return Ok(true),
                Some(0) => return Ok(false),
                Some(count) => count,
            };
            records[..kept].copy_from_slice(&mem::take(&mut self.begun));
            let received = &mut records[..kept + count];
            let (used, written, over) = self.echo(received, plain, sealed)?;
            if used < received.len() {
                self.begun = received[used..].to_vec();
            }
            let sent = self.send(&sealed[..written])?;
            if over {
                return Ok(false);
            }
            if !sent || count < BUFFER && !event.read_closed {
                return Ok(true);
            }
        }
    }
}
