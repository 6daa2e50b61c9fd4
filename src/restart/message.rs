//! What passes between two processes at a handover.
//!
//! The one that serves sends a **greeting**: magic, version and length of the rest; then for each
//! listener its transport, its name, the path of its file if it removes that, and the number of its
//! sockets; then the sockets themselves. The first listener is the handover's own. The newcomer
//! says [`READY`] when it has started, and is told [`GO`] if it may accept, or [`NO`], which may
//! come at any time. It says [`STAYS`] when it has accepted for a while, or ends in order; only
//! then the other one goes. A newcomer that ends the connection before that has failed; a
//! predecessor that ends it without a [`NO`] has ended itself.
//!
//! Numbers are big-endian; texts have their length in front, in two bytes.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Instant;

use millstream_platform::address::Transport;
use millstream_platform::socket::{receive_descriptors, send_bytes, send_descriptors};
use socket2::Socket;

use crate::shared::Duplicates;

/// The newcomer has started.
pub(super) const READY: u8 = b'R';
/// It may accept. The other one goes on accepting until it hears that this one stays.
pub(super) const GO: u8 = b'G';
/// It does not take over, and is to end.
pub(super) const NO: u8 = b'N';
/// The newcomer serves, and the other one may go.
pub(super) const STAYS: u8 = b'S';

const MAGIC: &[u8; 8] = b"millhand";
const VERSION: u16 = 2;
const HEADER: usize = MAGIC.len() + 2 + 4;
/// The longest greeting, in bytes behind the header. It fits into the buffer of a Unix socket.
const LONGEST: usize = 64 * 1024;
/// The most sockets that are handed over; a process can't have many more open.
const MOST_SOCKETS: usize = 1 << 16;

/// What is wrong with what the other process says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// It speaks of something else.
    #[error("it does not begin as a handover does")]
    Magic,
    /// It is of another version of millstream, whose handover is another one.
    #[error("the handover has version {version}, not {VERSION}")]
    Version {
        /// Its version.
        version: u16,
    },
    /// It is too long.
    #[error("the handover has {length} bytes, more than {LONGEST}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// It ends in the middle, or has values that make no sense.
    #[error("the handover's {0} makes no sense")]
    Field(&'static str),
}

impl From<MessageError> for io::Error {
    fn from(error: MessageError) -> Self {
        io::Error::new(ErrorKind::InvalidData, error)
    }
}

/// A listener, as the greeting has it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) transport: Transport,
    pub(super) name: String,
    /// The file that goes with it.
    pub(super) file: Option<PathBuf>,
    pub(super) sockets: usize,
}

impl From<&Duplicates> for Entry {
    fn from(listener: &Duplicates) -> Self {
        Entry {
            transport: listener.transport,
            name: listener.name.clone(),
            file: listener.file.as_ref().map(|file| file.path().to_owned()),
            sockets: listener.sockets.len(),
        }
    }
}

/// Hands listeners over. The connection does not block: a greeting fits into its buffer.
pub(super) fn send(stream: &Socket, listeners: &[Duplicates]) -> io::Result<()> {
    let entries: Vec<Entry> = listeners.iter().map(Entry::from).collect();
    send_bytes(stream, &encode(&entries)?)?;
    let sockets = listeners.iter().flat_map(|listener| &listener.sockets);
    let descriptors: Vec<BorrowedFd<'_>> = sockets.map(AsFd::as_fd).collect();
    send_descriptors(stream, &descriptors)
}

/// Receives listeners, each with its sockets, by this time. The connection blocks.
pub(super) fn receive(
    stream: &UnixStream,
    deadline: Instant,
) -> io::Result<Vec<(Entry, Vec<OwnedFd>)>> {
    let header = read(stream, HEADER, deadline)?;
    let body = read(stream, decode_header(&header)?, deadline)?;
    let entries = decode(&body)?;
    let total = entries.iter().map(|entry| entry.sockets).sum();
    let mut descriptors = Vec::new();
    while descriptors.len() < total {
        let missing = total - descriptors.len();
        descriptors.extend(wait(stream, deadline, || receive_descriptors(stream, missing))?);
    }
    let mut descriptors = descriptors.into_iter();
    let sockets = |entry: Entry| {
        let sockets = descriptors.by_ref().take(entry.sockets).collect();
        (entry, sockets)
    };
    Ok(entries.into_iter().map(sockets).collect())
}

/// Reads this many bytes by this time.
pub(super) fn read(
    mut stream: &UnixStream,
    count: usize,
    deadline: Instant,
) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; count];
    let mut filled = 0;
    while filled < count {
        match wait(stream, deadline, || stream.read(&mut bytes[filled..]))? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => filled += read,
        }
    }
    Ok(bytes)
}

/// Makes a call that may wait, but not beyond this time; a signal does not end it.
fn wait<T>(
    stream: &UnixStream,
    deadline: Instant,
    mut call: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

fn encode(entries: &[Entry]) -> Result<Vec<u8>, MessageError> {
    let mut body = Vec::new();
    for entry in entries {
        put_text(&mut body, entry.transport.scheme().as_bytes());
        put_text(&mut body, entry.name.as_bytes());
        let file = entry.file.as_ref().map(|file| file.as_os_str().as_bytes());
        put_text(&mut body, file.unwrap_or_default());
        body.extend((entry.sockets as u32).to_be_bytes());
    }
    if body.len() > LONGEST {
        return Err(MessageError::TooLong { length: body.len() });
    }
    let mut message = MAGIC.to_vec();
    message.extend(VERSION.to_be_bytes());
    message.extend((body.len() as u32).to_be_bytes());
    message.append(&mut body);
    Ok(message)
}

/// A text that is longer than its length can say makes the message too long.
fn put_text(body: &mut Vec<u8>, text: &[u8]) {
    body.extend((text.len() as u16).to_be_bytes());
    body.extend(text);
}

/// How long the rest is.
fn decode_header(header: &[u8]) -> Result<usize, MessageError> {
    let mut rest = header;
    if take(&mut rest, MAGIC.len()) != Some(MAGIC) {
        return Err(MessageError::Magic);
    }
    let version = u16::from_be_bytes(take_array(&mut rest).ok_or(MessageError::Magic)?);
    if version != VERSION {
        return Err(MessageError::Version { version });
    }
    let length = u32::from_be_bytes(take_array(&mut rest).ok_or(MessageError::Magic)?) as usize;
    if length > LONGEST { Err(MessageError::TooLong { length }) } else { Ok(length) }
}

fn decode(mut body: &[u8]) -> Result<Vec<Entry>, MessageError> {
    let mut entries = Vec::new();
    let mut total: usize = 0;
    while !body.is_empty() {
        let entry = decode_entry(&mut body)?;
        total = total.saturating_add(entry.sockets);
        if total > MOST_SOCKETS {
            return Err(MessageError::Field("number of sockets"));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn decode_entry(body: &mut &[u8]) -> Result<Entry, MessageError> {
    let transports = [Transport::Tcp, Transport::Udp, Transport::Unix, Transport::UnixDatagram];
    let scheme = take_text(body).ok_or(MessageError::Field("transport"))?;
    let transport = transports.into_iter().find(|known| known.scheme().as_bytes() == scheme);
    let name = take_text(body).and_then(|name| std::str::from_utf8(name).ok());
    let file = take_text(body).ok_or(MessageError::Field("file"))?;
    let file = (!file.is_empty()).then(|| OsString::from_vec(file.to_vec()).into());
    let sockets = take_array(body).ok_or(MessageError::Field("number of sockets"))?;
    Ok(Entry {
        transport: transport.ok_or(MessageError::Field("transport"))?,
        name: name.ok_or(MessageError::Field("name"))?.to_owned(),
        file,
        sockets: u32::from_be_bytes(sockets) as usize,
    })
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn take_array<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    take(bytes, N)?.try_into().ok()
}

fn take_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u16::from_be_bytes(take_array(bytes)?);
    take(bytes, length.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<Entry> {
        let entry = |transport, name: &str, file: Option<&str>, sockets| Entry {
            transport,
            name: name.to_owned(),
            file: file.map(PathBuf::from),
            sockets,
        };
        vec![
            entry(Transport::Unix, "handover", Some("/run/a b"), 1),
            entry(Transport::Tcp, "127.0.0.1:0", None, 1024),
            entry(Transport::UnixDatagram, "", None, 0),
        ]
    }

    #[test]
    fn a_greeting_comes_back_as_it_went_and_no_part_of_it_does() {
        let message = encode(&entries()).unwrap();
        let (header, body) = message.split_at(HEADER);
        assert_eq!(decode_header(header), Ok(body.len()));
        assert_eq!(decode(body), Ok(entries()));
        for length in 0..body.len() {
            assert_ne!(decode(&body[..length]), Ok(entries()), "{length}");
        }
        for length in 0..HEADER {
            assert!(decode_header(&header[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn whatever_comes_is_a_greeting_or_an_error() {
        let message = encode(&entries()).unwrap();
        for seed in 0..10_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut message = message.clone();
            for _ in 0..random.usize(1..4) {
                let place = random.usize(..message.len());
                message[place] = random.u8(..);
            }
            let _ = decode_header(&message[..HEADER]);
            if let Ok(entries) = decode(&message[HEADER..]) {
                let again = encode(&entries).unwrap();
                assert_eq!(again[HEADER..], message[HEADER..], "seed {seed}");
            }
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        let mut header = encode(&[]).unwrap();
        header[HEADER - 4] = 1;
        assert_eq!(decode_header(&header), Err(MessageError::TooLong { length: 1 << 24 }));
        header[MAGIC.len()] = 7;
        assert_eq!(decode_header(&header), Err(MessageError::Version { version: 0x702 }));
        header[0] = b'x';
        assert_eq!(decode_header(&header), Err(MessageError::Magic));
        let long = Entry { name: "x".repeat(LONGEST), ..entries().remove(0) };
        assert!(matches!(encode(&[long]), Err(MessageError::TooLong { .. })));
        let many = Entry { sockets: MOST_SOCKETS, ..entries().remove(0) };
        let message = encode(&[many, entries().remove(0)]).unwrap();
        assert_eq!(decode(&message[HEADER..]), Err(MessageError::Field("number of sockets")));
    }
}
