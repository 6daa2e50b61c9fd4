//! Datagrams: what a callback may do with the socket they come to.

mod entry;
mod error;
mod options;
mod remote;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use millstream_platform::address::{Address, Transport};
pub use millstream_platform::driver::Datagram;
use millstream_platform::driver::{DatagramLink, Token};
use millstream_platform::memory::{DatagramQueue, Route};

pub(crate) use self::entry::DatagramEntry;
pub use self::error::SendError;
pub use self::remote::DatagramRemote;
use self::remote::RemoteState;
use crate::base::{DatagramId, ListenerId};
use crate::handler::{Common, EventHandler, Neighbours, Reactors};
use crate::shared::{Counters, Engine};

/// The longest payload over IPv4 (RFC 768: 16 bits of length, less the two headers).
const LONGEST_V4: usize = 65_507;
/// The longest payload over IPv6 without jumbograms (RFC 8200).
const LONGEST_V6: usize = 65_527;

/// A socket for datagrams, for the time of one callback, on its reactor's thread. It is not `Send`:
/// what leaves the thread is a [`DatagramRemote`].
///
/// What is sent waits in the socket's queue until the end of the turn, or until much of it waits,
/// and is then given to the operating system in as few calls as possible. A datagram that it
/// refuses is reported to [`EventHandler::on_datagram_error`], and the others go out. Like all
/// datagrams they may still get lost.
///
/// ```
/// use millstream::{Action, Conn, Datagram, DatagramSocket, Engine, EventHandler};
///
/// struct Echo;
///
/// impl EventHandler for Echo {
///     const TAKES_DATAGRAMS: bool = true;
///
///     type State = ();
///
///     fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
///         Action::Continue // It has no connections.
///     }
///
///     fn on_datagram(
///         &mut self,
///         socket: &mut DatagramSocket<'_, Self>,
///         datagram: Datagram<'_>,
///     ) -> Action {
///         // One that finds no room is lost, as any may be on its way.
///         let _ = socket.reply(&datagram, datagram.bytes);
///         Action::Continue
///     }
/// }
///
/// let engine = Engine::builder().listen("udp://127.0.0.1:0").start(|_reactor| Echo)?;
/// # let client = std::net::UdpSocket::bind("127.0.0.1:0")?;
/// # client.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
/// # client.connect(engine.local_addrs()[0].socket_addr().expect("it is an IP address"))?;
/// # client.send(b"hello")?;
/// # let mut echoed = [0; 5];
/// # assert_eq!(client.recv(&mut echoed)?, 5);
/// # engine.stop(std::time::Duration::from_secs(5))?;
/// # engine.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct DatagramSocket<'a, H: EventHandler> {
    pub(crate) token: Token,
    pub(crate) reactor: u32,
    pub(crate) entry: &'a mut DatagramEntry,
    /// Unused queues.
    pub(crate) queues: &'a mut Vec<DatagramQueue>,
    pub(crate) link: &'a mut dyn DatagramLink,
    pub(crate) common: &'a Common,
    pub(crate) neighbours: &'a Rc<Neighbours<H>>,
    /// The number of the first handler that it is shown to, among several.
    pub(crate) base: u32,
    pub(crate) engine: &'a Engine,
    pub(crate) counters: &'a Counters,
    /// How many bytes may wait.
    pub(crate) cap: usize,
}

impl<H: EventHandler> DatagramSocket<'_, H> {
    /// The socket's id.
    pub fn id(&self) -> DatagramId {
        DatagramId { reactor: self.reactor, token: self.token }
    }

    /// The listener that it is; `None` if [`Reactors::open_datagram`] made it.
    pub fn listener(&self) -> Option<ListenerId> {
        self.entry.listener()
    }

    /// Its own address.
    pub fn local_addr(&self) -> Address {
        self.entry.local
    }

    /// The address that it is connected to.
    pub fn peer_addr(&self) -> Option<Address> {
        self.entry.peer
    }

    /// UDP or Unix datagrams.
    pub fn transport(&self) -> Transport {
        self.entry.local.datagram_transport()
    }

    /// When this turn of the reactor began to run callbacks. It doesn't read the clock.
    pub fn now(&self) -> Instant {
        self.common.clock.now()
    }

    /// The engine's reactors, to reach what another one keeps, or to open more sockets.
    pub fn reactors(&self) -> &Reactors<H> {
        self.neighbours.reactors()
    }

    /// The connections of the same reactor, to write to them and more, by their ids.
    #[doc(alias = "neighbors")]
    pub fn neighbours(&self) -> &Neighbours<H> {
        self.common.share.interrupt();
        self.neighbours
    }

    /// The engine.
    pub fn engine(&self) -> Engine {
        self.engine.clone()
    }

    /// A handle of this socket for other threads, and for other callbacks. The first one allocates.
    pub fn remote(&mut self) -> DatagramRemote<H> {
        let (id, open) = (self.id(), !self.entry.closing);
        let make = || Arc::new(RemoteState::new(id, open));
        let state = Arc::clone(self.entry.remote.get_or_insert_with(make));
        DatagramRemote::new(state, self.neighbours.reactors().clone())
    }

    /// Sends a datagram. IPv4 addresses can be sent to from an IPv6 socket that listens on both.
    ///
    /// # Errors
    /// It can't be sent, or there is no room for it; nothing was queued then.
    pub fn send_to(&mut self, to: &Address, bytes: &[u8]) -> Result<(), SendError> {
        self.enqueue(Some(*to), None, bytes, bytes.len())
    }

    /// Sends a datagram to the address that the socket is connected to.
    ///
    /// # Errors
    /// As for [`send_to`](Self::send_to); [`SendError::NotConnected`].
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.enqueue(None, None, bytes, bytes.len())
    }

    /// Sends a datagram to the sender of `to`. On a socket that listens on all addresses of the
    /// machine it leaves from the one that the other came to, as its sender expects, unless that
    /// was a group or a broadcast address. Where a network's own broadcast address is in use,
    /// call [`send_to`](Self::send_to) instead.
    ///
    /// # Errors
    /// As for [`send_to`](Self::send_to).
    pub fn reply(&mut self, to: &Datagram<'_>, bytes: &[u8]) -> Result<(), SendError> {
        if self.entry.peer.is_some() {
            return self.send(bytes);
        }
        let from = to.to.filter(|ip| self.entry.on_all_addresses && is_one_host(*ip));
        self.enqueue(Some(to.from), from, bytes, bytes.len())
    }

    /// Sends `bytes` as datagrams of `segment_size` bytes each, of which the last one may be
    /// shorter; on Linux the network interface or the kernel cuts them (GSO), which costs little
    /// more than one datagram. Datagrams of one size that are sent one after the other to one
    /// address have the same effect.
    ///
    /// # Errors
    /// As for [`send_to`](Self::send_to), for all of them or none; [`SendError::NoSegments`] if
    /// `segment_size` is 0.
    pub fn send_segments(
        &mut self,
        to: &Address,
        bytes: &[u8],
        segment_size: usize,
    ) -> Result<(), SendError> {
        if segment_size == 0 {
            return Err(SendError::NoSegments);
        }
        self.enqueue(Some(*to), None, bytes, segment_size)
    }

    /// How many bytes of memory the datagrams take that wait to be sent.
    pub fn waiting(&self) -> usize {
        self.entry.queue.as_ref().map_or(0, DatagramQueue::size)
    }

    /// Closes the socket once its datagrams are sent, within the
    /// [`close_timeout`](crate::Builder::close_timeout). Nothing is received from here on, its
    /// handles take no requests, and no callback follows but [`EventHandler::on_datagram_closing`].
    pub fn close(&mut self) {
        self.entry.note_closing();
    }

    /// Whether the socket is closing: a close was asked for, by this callback, too.
    pub fn is_closing(&self) -> bool {
        self.entry.closing
    }

    /// Puts datagrams of `size` bytes into the queue.
    fn enqueue(
        &mut self,
        to: Option<Address>,
        from: Option<IpAddr>,
        bytes: &[u8],
        size: usize,
    ) -> Result<(), SendError> {
        let to = self.receiver(to)?;
        self.check_length(&to, size.min(bytes.len()), bytes.len())?;
        let route = Route { to, from };
        if self.push(&route, size, bytes) {
            return Ok(());
        }
        self.entry.flush(self.token, self.link, self.counters);
        if self.push(&route, size, bytes) {
            return Ok(());
        }
        self.counters.datagrams_dropped.add(bytes.len().div_ceil(size.max(1)).max(1) as u64);
        Err(SendError::Full { waiting: self.waiting() })
    }

    fn push(&mut self, route: &Route, size: usize, bytes: &[u8]) -> bool {
        let DatagramSocket { entry, queues, cap, .. } = self;
        let queue = entry.queue.get_or_insert_with(|| queues.pop().unwrap_or_default());
        queue.push(route, size, bytes, *cap)
    }

    /// The address as the socket's family has it.
    fn receiver(&self, to: Option<Address>) -> Result<Option<Address>, SendError> {
        let unreachable = |address| SendError::Unreachable { address };
        match (to, self.entry.peer) {
            (None, Some(_)) => Ok(None),
            (None, None) => Err(SendError::NotConnected),
            (Some(to), Some(peer)) if to == peer => Ok(None),
            (Some(_), Some(peer)) => Err(SendError::Connected { peer }),
            (Some(Address::Ip(to)), None) => {
                let local = self.entry.local.socket_addr().ok_or(unreachable(to.into()))?;
                let to = in_family_of(local, to).ok_or(unreachable(to.into()))?;
                Ok(Some(to.into()))
            }
            (Some(Address::Unix(to)), None) => {
                let goes = self.entry.local.unix().is_some() && !to.is_unnamed();
                if goes { Ok(Some(to.into())) } else { Err(unreachable(to.into())) }
            }
        }
    }

    /// Whether a datagram can be this long, and the queue can have room for all of them.
    fn check_length(
        &self,
        to: &Option<Address>,
        datagram: usize,
        all: usize,
    ) -> Result<(), SendError> {
        let longest = match to.or(self.entry.peer).and_then(|to| to.ip()) {
            Some(IpAddr::V4(_)) => LONGEST_V4,
            Some(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => LONGEST_V4,
            Some(IpAddr::V6(_)) => LONGEST_V6,
            None => usize::MAX,
        };
        let limits = [(datagram, longest), (all, DatagramQueue::room(self.cap))];
        match limits.into_iter().find(|(len, most)| len > most) {
            Some((len, most)) => Err(SendError::TooLong { len, most }),
            None => Ok(()),
        }
    }
}

/// Whether datagrams can be sent from an address that some were sent to.
fn is_one_host(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    !ip.is_multicast() && ip != IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// An address as a socket of another one's family has it.
fn in_family_of(local: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
    match (local, to) {
        (SocketAddr::V6(_), SocketAddr::V4(to)) => {
            let mapped: Ipv6Addr = to.ip().to_ipv6_mapped();
            Some((mapped, to.port()).into())
        }
        (SocketAddr::V4(_), SocketAddr::V6(to)) => {
            Some((to.ip().to_ipv4_mapped()?, to.port()).into())
        }
        _ => Some(to),
    }
}

impl<H: EventHandler> fmt::Debug for DatagramSocket<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramSocket")
            .field("id", &self.id())
            .field("address", &self.local_addr())
            .field("peer", &self.peer_addr())
            .field("waiting", &self.waiting())
            .finish()
    }
}
