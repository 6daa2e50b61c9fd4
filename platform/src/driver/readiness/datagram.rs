//! Datagrams: receiving them in batches, handing them out one by one, sending them in runs.
//!
//! A batch is what one call of the operating system received, for one socket. It is handed out
//! whole before anything else is received: its socket stays at the front of the turn's list. UDP
//! goes by quinn-udp, which receives many datagrams in a call and several in one buffer (recvmmsg,
//! GRO), tells the address that each was sent to, and sends a run in one call (GSO). Datagrams that
//! are not a run go by sendmmsg, unless one asks for the address it is sent from.

mod sending;

use std::array;
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use mio::event::Event as Notification;
use mio::net::TcpStream;
use mio::{Interest, Registry};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef, UdpSocketState};
use rustix::net::{RecvAncillaryBuffer, RecvFlags, ReturnFlags, SocketAddrAny, recvmsg};
use socket2::SockRef;

#[cfg(any(target_os = "linux", target_os = "android"))]
use super::lone;
use super::name::{Name, Packed};
use super::retry::retry;
use super::socket::SHORT_MEANS_DRAINED;
use super::stream;
use super::turn::{Spent, Turn, add, left};
use super::watch::{Arriving, Prepare, Prepared};
use crate::address::{Address, UnixAddress};
use crate::driver::slots::Slots;
use crate::driver::{Datagram, DatagramLink, Event, Token};
use crate::memory::{DatagramQueue, PageBuffer};
use crate::socket::{self, SocketFile};

/// The size of a buffer: no UDP datagram is longer, nor what GRO puts into one buffer.
const BUFFER: usize = 64 * 1024;
/// What a datagram costs of a budget besides its bytes, so that empty ones are bounded, too.
const COST: usize = 64;
/// mio's poll back end forgets a socket that it announced an error for. For a connection that is
/// the end, but not here.
const FORGETS_AFTER_AN_ERROR: bool = cfg!(mio_unsupported_force_poll_poll);
/// There are calls for one datagram and for several.
const HAS_BOTH: bool = cfg!(any(target_os = "linux", target_os = "android"));
/// The most bytes that GSO sends in one call: the longest payload of a UDP datagram over IPv4.
const LARGEST_RUN: usize = 65_507;

/// The sockets for datagrams, and what was received for one of them.
pub(super) struct Datagrams {
    sockets: Sockets,
    batch: Batch,
}

struct Sockets {
    registry: Arc<Registry>,
    slots: Slots<DatagramEntry>,
    /// The turn's number.
    turn: u32,
    write_budget: usize,
    /// Those that used up their write budget, and may send again in the next turn.
    deferred: Vec<Name>,
}

/// A socket for datagrams.
pub struct DatagramEntry {
    socket: TcpStream,
    /// Of UDP; none for Unix datagrams.
    udp: Option<UdpSocketState>,
    connected: bool,
    /// Where a run goes on a UDP socket that is connected. quinn-udp needs the address, which only
    /// Linux allows then.
    peer: Option<SocketAddr>,
    /// The last send told of an earlier datagram that found nobody.
    refused: bool,
    spent: Spent,
    /// There may be something to receive.
    readable: bool,
    /// How often in a row receiving has failed, without a datagram or an empty queue between.
    failures: u32,
    /// Receiving has failed, and waits to be told to go on.
    halted: bool,
    /// The system refuses the calls that take several datagrams at a time.
    receives_alone: bool,
    sends_alone: bool,
    /// Only a call that would block shows that nothing is left.
    read_until_blocked: bool,
    /// The last send did not take everything.
    blocked: bool,
    /// Sending can go on, and the engine doesn't know yet.
    sendable: bool,
    /// The registration covers sending, too.
    watches_sending: bool,
    /// It is on one of the turn's lists.
    queued: bool,
    _file: Option<Arc<SocketFile>>,
}

/// What became of a try to send.
enum Tried {
    /// This many datagrams were sent.
    Sent(usize),
    /// The first datagrams are too much for one call, or the system has no such call.
    NotAtOnce,
}

/// What one call received.
struct Batch {
    /// One behind the other; none before there is a socket.
    buffers: PageBuffer,
    metas: [RecvMeta; BATCH_SIZE],
    /// How many buffers are filled.
    filled: usize,
    /// The next datagram: in which buffer, and from where on.
    buffer: usize,
    offset: usize,
    /// The largest that a buffer was filled in the last batch.
    largest: usize,
    /// The datagram that was handed out last.
    current: Option<Current>,
}

struct Current {
    start: usize,
    len: usize,
    from: Address,
    to: Option<IpAddr>,
    truncated: bool,
}

impl Batch {
    fn clear(&mut self) {
        (self.filled, self.buffer, self.offset, self.current) = (0, 0, 0, None);
    }

    fn is_done(&self) -> bool {
        self.buffer == self.filled
    }

    /// Goes on to the next datagram; returns its length.
    fn advance(&mut self) -> Option<usize> {
        self.current = None;
        if self.is_done() {
            return None;
        }
        let meta = &self.metas[self.buffer];
        let len = meta.stride.min(meta.len - self.offset);
        self.current = Some(Current {
            start: self.buffer * BUFFER + self.offset,
            len,
            from: meta.addr.into(),
            to: meta.dst_ip,
            truncated: false,
        });
        self.offset += len;
        if self.offset >= meta.len {
            (self.buffer, self.offset) = (self.buffer + 1, 0);
        }
        Some(len)
    }
}

impl Prepare for socket::DatagramSocket {
    type Prepared = DatagramEntry;

    fn prepare(self) -> io::Result<DatagramEntry> {
        let connected = self.is_connected();
        let unix = self.transport().is_unix();
        let (socket, file) = self.into_parts();
        let udp = if unix { None } else { Some(udp_state(&socket)?) };
        let peer = SockRef::from(&socket).peer_addr().ok().and_then(|peer| peer.as_socket());
        Ok(DatagramEntry {
            socket: stream::watched(socket),
            udp,
            connected,
            peer: peer.filter(|_| cfg!(target_os = "linux")),
            refused: false,
            spent: Spent::default(),
            readable: false,
            failures: 0,
            halted: false,
            receives_alone: false,
            sends_alone: false,
            read_until_blocked: false,
            blocked: false,
            sendable: false,
            watches_sending: false,
            queued: false,
            _file: file,
        })
    }
}

impl Prepared for DatagramEntry {
    fn source(&mut self) -> &mut TcpStream {
        &mut self.socket
    }
}

impl DatagramEntry {
    fn queue(&mut self, token: Token) -> Option<Name> {
        let newly = (self.receives() || self.sendable) && !self.queued;
        self.queued |= newly;
        newly.then_some(Name::Datagrams(token))
    }

    /// Whether there may be something to receive, and nothing keeps it from that.
    fn receives(&self) -> bool {
        self.readable && !self.halted
    }

    /// Receives a batch; with UDP not much more than `most` bytes, if datagrams are as long as they
    /// were.
    fn receive(&mut self, batch: &mut Batch, most: usize) -> io::Result<()> {
        batch.clear();
        let received = match &self.udp {
            Some(_) => self.receive_udp(batch, most),
            None => self.receive_unix(batch),
        };
        match &received {
            Ok(()) => self.failures = 0,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                (self.readable, self.read_until_blocked, self.failures) = (false, false, 0);
            }
            Err(_) => {
                self.note_failure();
            }
        }
        received
    }

    fn note_failure(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.halted = true;
    }

    fn receive_udp(&mut self, batch: &mut Batch, most: usize) -> io::Result<()> {
        if !self.receives_alone {
            match self.receive_many(batch, most) {
                Err(error) if HAS_BOTH && may_be_refused(&error) => {
                    // The network may have said so. But if the other call does better, it is the
                    // call that is refused.
                    let one = self.receive_one(batch);
                    let empty = one.as_ref().is_err_and(|e| e.kind() == ErrorKind::WouldBlock);
                    self.receives_alone = one.is_ok() || (empty && !may_be_the_network(&error));
                    return if self.receives_alone { one } else { Err(error) };
                }
                received => return received,
            }
        }
        self.receive_one(batch)
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn receive_one(&mut self, batch: &mut Batch) -> io::Result<()> {
        let Batch { buffers, metas, .. } = batch;
        metas[0] = retry(|| {
            let receive = || lone::receive(self.socket.as_fd(), &mut buffers[..BUFFER]);
            self.socket.try_io(receive)
        })?;
        batch.filled = 1;
        batch.advance();
        Ok(())
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn receive_one(&mut self, batch: &mut Batch) -> io::Result<()> {
        self.receive_many(batch, 0)
    }

    fn receive_many(&mut self, batch: &mut Batch, most: usize) -> io::Result<()> {
        let Some(udp) = &self.udp else { return Ok(()) };
        let count = (most / (batch.largest + COST)).clamp(1, BATCH_SIZE);
        let mut buffers = batch.buffers.chunks_mut(BUFFER);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            array::from_fn(|_| IoSliceMut::new(buffers.next().unwrap_or_default()));
        let receive = || {
            let socket = UdpSockRef::from(&self.socket);
            udp.recv(socket, &mut slices[..count], &mut batch.metas)
        };
        batch.filled = self.socket.try_io(receive)?;
        let filled = batch.metas[..batch.filled].iter();
        batch.largest = filled.map(|meta| meta.len).max().unwrap_or_default();
        let drained = batch.filled < count && !self.read_until_blocked && BATCH_SIZE > 1;
        self.readable = !(drained && SHORT_MEANS_DRAINED);
        batch.advance();
        Ok(())
    }

    fn receive_unix(&mut self, batch: &mut Batch) -> io::Result<()> {
        let buffer = &mut batch.buffers[..BUFFER];
        // Without room for control messages: descriptors that a peer passes are closed by the
        // system.
        let mut none = RecvAncillaryBuffer::default();
        let mut slices = [IoSliceMut::new(buffer)];
        let received = retry(|| {
            let receive = || Ok(recvmsg(&self.socket, &mut slices, &mut none, RecvFlags::empty())?);
            self.socket.try_io(receive)
        })?;
        batch.current = Some(Current {
            start: 0,
            len: received.bytes.min(BUFFER),
            from: unix_address(received.address)?,
            to: None,
            truncated: received.flags.contains(ReturnFlags::TRUNC),
        });
        Ok(())
    }
}

impl DatagramEntry {
    /// Waits for the socket to take more.
    fn block(&mut self, token: Token, registry: &Registry) -> io::Result<()> {
        self.blocked = true;
        if !self.watches_sending {
            self.watches_sending = true;
            let name = Name::Datagrams(token).pack();
            let interest = Interest::READABLE | Interest::WRITABLE;
            let watched = registry.reregister(&mut self.socket, name, interest);
            return watched.inspect_err(|_| (self.blocked, self.watches_sending) = (false, false));
        }
        Ok(())
    }

    /// Takes the socket off the system's list, on which a duplicate of its descriptor would keep
    /// it.
    fn deregister(mut self, registry: &Registry) {
        // Should this fail, its notifications carry a generation that is over.
        let _ = registry.deregister(&mut self.socket);
    }

    fn register_anew(&mut self, token: Token, registry: &Registry) -> io::Result<()> {
        // mio has forgotten it already and says so; the socket itself is told only by this.
        let _ = registry.deregister(&mut self.socket);
        let sending = self.watches_sending.then_some(Interest::WRITABLE);
        let interest = sending.map_or(Interest::READABLE, |sending| sending | Interest::READABLE);
        registry.register(&mut self.socket, Name::Datagrams(token).pack(), interest)
    }

    /// Whether a full receiver is what blocks: a Unix socket that is not connected is never told
    /// when a receiver has room again, and its other receivers must not wait.
    fn drops_for_a_full_receiver(&self) -> bool {
        self.udp.is_none() && !self.connected
    }

    /// Whether an error of sending is that of an earlier datagram, which found nobody. It is told
    /// once.
    fn is_of_an_earlier_one(&mut self, error: &io::Error) -> bool {
        let may_be = self.udp.is_some() && self.connected;
        may_be
            && error.kind() == ErrorKind::ConnectionRefused
            && !std::mem::replace(&mut self.refused, true)
    }
}

impl Datagrams {
    pub(super) fn new(registry: Arc<Registry>, write_budget: usize) -> Self {
        let sockets = Sockets {
            registry,
            slots: Slots::default(),
            turn: 0,
            write_budget,
            deferred: Vec::new(),
        };
        let batch = Batch {
            buffers: PageBuffer::new(0),
            metas: [RecvMeta::default(); BATCH_SIZE],
            filled: 0,
            buffer: 0,
            offset: 0,
            largest: 0,
            current: None,
        };
        Datagrams { sockets, batch }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sockets.slots.len() == 0
    }

    /// Begins a turn: what was deferred to it is ready.
    pub(super) fn begin_turn(&mut self, turn: &mut Turn) {
        self.sockets.turn = turn.number;
        for name in self.sockets.deferred.drain(..) {
            turn.push_again(Some(name));
        }
    }

    /// Takes a socket in.
    pub(super) fn add(
        &mut self,
        token: Token,
        socket: Arriving<socket::DatagramSocket>,
    ) -> io::Result<()> {
        let socket = socket.take_in(Name::Datagrams(token), &self.sockets.registry)?;
        if self.batch.buffers.is_empty() {
            self.batch.buffers = PageBuffer::new(BATCH_SIZE * BUFFER);
        }
        self.sockets.slots.insert(token, socket);
        Ok(())
    }

    pub(super) fn remove(&mut self, token: Token) {
        if let Some(socket) = self.sockets.slots.remove(token) {
            socket.deregister(&self.sockets.registry);
        }
    }

    /// A notification came; returns what to put on the turn's list.
    pub(super) fn note(&mut self, unpacked: Token, news: &Notification) -> Option<Name> {
        let (token, socket) = Name::find(unpacked, &mut self.sockets.slots)?;
        if news.is_readable() || news.is_error() {
            socket.readable = true;
            socket.read_until_blocked |= news.is_error();
        }
        if socket.blocked && (news.is_writable() || news.is_error()) {
            socket.blocked = false;
            socket.sendable = true;
        }
        if FORGETS_AFTER_AN_ERROR && news.is_error() {
            // It fails only if the process is short of memory; then the socket is silent.
            let _ = socket.register_anew(token, &self.sockets.registry);
        }
        socket.queue(token)
    }

    /// Receives again.
    pub(super) fn resume(&mut self, token: Token) -> Option<Name> {
        let socket = self.sockets.slots.get_mut(token)?;
        socket.halted = false;
        socket.queue(token)
    }

    /// Gives one socket its next event.
    pub(super) fn serve(&mut self, token: Token, turn: &mut Turn) -> Option<Event<socket::Stream>> {
        let Datagrams { sockets, batch } = self;
        let Some(socket) = sockets.slots.get_mut(token) else {
            batch.clear(); // Only a socket that was closed in its batch leaves one behind.
            return None;
        };
        socket.queued = false;
        if batch.advance().is_none() {
            let Spent { incoming, outgoing, .. } = *socket.spent.in_turn(turn.number);
            if socket.sendable && left(turn.budget.write, outgoing) > 0 {
                socket.sendable = false;
                turn.push(socket.queue(token));
                return Some(Event::DatagramsSent { token });
            }
            let left = left(turn.budget.read, incoming);
            if !socket.receives() || left == 0 {
                turn.carry(socket.queue(token));
                return None;
            }
            if let Err(error) = socket.receive(batch, left) {
                if error.kind() == ErrorKind::WouldBlock {
                    turn.carry(socket.queue(token));
                    return None;
                }
                add(&mut socket.spent.incoming, COST);
                turn.push(socket.queue(token));
                let in_a_row = socket.failures;
                return Some(Event::DatagramFailed { token, error, in_a_row });
            }
        }
        let len = batch.current.as_ref()?.len;
        add(&mut socket.spent.incoming, len + COST);
        if batch.is_done() {
            turn.push_again(socket.queue(token));
        } else {
            socket.queued = true;
            turn.ready.push_first(Packed::new(Name::Datagrams(token)));
        }
        Some(Event::Datagram { token })
    }

    /// Goes on behind what a socket received last; returns what to put on the turn's list, and how
    /// often in a row the socket has failed.
    pub(super) fn skip(&mut self, token: Token) -> Option<(Option<Name>, u32)> {
        let socket = self.sockets.slots.get_mut(token)?;
        if self.batch.current.is_none() {
            self.batch.clear(); // What is in it can't be told.
            socket.note_failure();
        }
        Some((socket.queue(token), socket.failures.max(1)))
    }

    pub(super) fn datagram(&mut self) -> (Option<Datagram<'_>>, &mut dyn DatagramLink) {
        let Datagrams { sockets, batch } = self;
        let Batch { buffers, current, .. } = batch;
        let datagram = current.as_ref().map(|current| Datagram {
            bytes: &buffers[current.start..][..current.len],
            from: current.from,
            to: current.to,
            truncated: current.truncated,
        });
        (datagram, sockets)
    }
}

impl DatagramLink for Sockets {
    fn flush_datagrams(&mut self, token: Token, queue: &mut DatagramQueue) -> io::Result<()> {
        let Some(socket) = self.slots.get_mut(token) else {
            queue.drop_all();
            return Ok(());
        };
        while !queue.is_empty() && !socket.blocked {
            if left(self.write_budget, socket.spent.in_turn(self.turn).outgoing) == 0 {
                socket.sendable = true;
                self.deferred.extend(socket.queue(token));
                return Ok(());
            }
            let before = queue.size();
            match socket.send(queue) {
                Ok(Tried::Sent(count)) => {
                    socket.refused = false;
                    queue.note_sent(count);
                }
                Ok(Tried::NotAtOnce) => queue.split_front(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if socket.drops_for_a_full_receiver() {
                        queue.drop_one();
                    } else {
                        // Nobody would tell when it can go.
                        socket.block(token, &self.registry).inspect_err(|_| queue.drop_one())?;
                    }
                }
                Err(error) if socket.is_of_an_earlier_one(&error) => return Err(error),
                Err(error) => {
                    queue.drop_one();
                    return Err(error);
                }
            }
            add(&mut socket.spent.outgoing, before - queue.size());
        }
        if queue.is_empty() {
            socket.sendable = false; // Nothing is left that the engine would be told for.
        }
        Ok(())
    }

    fn local_addr(&self, token: Token) -> io::Result<Address> {
        let socket = self.slots.get(token).ok_or(ErrorKind::NotConnected)?;
        socket::local_addr(&socket.socket)
    }

    fn socket(&self, token: Token) -> Option<SockRef<'_>> {
        self.slots.get(token).map(|socket| SockRef::from(&socket.socket))
    }
}

/// Whether an error may say that the system has no such call, or that a sandbox refuses it.
fn may_be_refused(error: &io::Error) -> bool {
    let refusals = [libc::ENOSYS, libc::EPERM, libc::EINVAL, libc::EOPNOTSUPP, libc::EACCES];
    error.raw_os_error().is_some_and(|code| refusals.contains(&code))
}

/// Whether the network reports such an error, too, of an earlier datagram.
fn may_be_the_network(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| [libc::EOPNOTSUPP, libc::EACCES].contains(&code))
}

/// Has quinn-udp prepare a socket, and takes back what it sets for QUIC alone: that no datagram is
/// sent in fragments, and that the system tells the time of each.
fn udp_state(socket: &OwnedFd) -> io::Result<UdpSocketState> {
    let state = UdpSocketState::new(UdpSockRef::from(socket))?;
    socket::allow_fragments(socket)?;
    Ok(state)
}

/// An address as rustix has it.
fn socket_address(address: &Address) -> io::Result<SocketAddrAny> {
    match address {
        Address::Ip(address) => Ok((*address).into()),
        Address::Unix(address) => Ok(address.to_rustix()?.into()),
    }
}

/// The address of a Unix socket that sent something.
fn unix_address(address: Option<SocketAddrAny>) -> io::Result<Address> {
    match address {
        Some(address) => address.try_into(),
        None => Ok(UnixAddress::UNNAMED.into()),
    }
}

#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    use std::net::UdpSocket;

    use rustix::net::sockopt::{
        Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, ip_mtu_discover, ipv6_mtu_discover,
    };

    use super::*;

    /// On the loopback interface everything fits, so the option is looked at.
    #[test]
    fn long_datagrams_may_be_sent_in_fragments() {
        let v4: OwnedFd = UdpSocket::bind("127.0.0.1:0").unwrap().into();
        udp_state(&v4).unwrap();
        assert_eq!(ip_mtu_discover(&v4).unwrap(), Ipv4PathMtuDiscovery::WANT);
        let Ok(v6) = UdpSocket::bind("[::1]:0").map(OwnedFd::from) else { return };
        udp_state(&v6).unwrap();
        assert_eq!(ipv6_mtu_discover(&v6).unwrap(), Ipv6PathMtuDiscovery::WANT);
    }
}
