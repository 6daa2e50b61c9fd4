//! Sending datagrams: a run in one call, several in one call, or one.

#[cfg(target_os = "linux")]
use std::array;
#[cfg(target_os = "linux")]
use std::io::IoSlice;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
#[cfg(target_os = "linux")]
use std::slice;

use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
#[cfg(target_os = "linux")]
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SocketAddrAny, sendmmsg};
use rustix::net::{send, sendto};

use super::{DatagramEntry, LARGEST_RUN, Tried, may_be_refused, socket_address};
#[cfg(target_os = "linux")]
use crate::memory;
use crate::memory::DatagramQueue;
use crate::socket::NO_SIGNAL;

impl DatagramEntry {
    /// Sends some datagrams from the front of a queue by one call.
    pub(super) fn send(&mut self, queue: &DatagramQueue) -> io::Result<Tried> {
        let Some((route, size, bytes)) = queue.front() else { return Ok(Tried::Sent(0)) };
        if let Some(udp) = &self.udp
            && (bytes.len() > size || route.from.is_some())
            && let Some(to) = route.to.map_or(self.peer, |to| to.socket_addr())
        {
            return self.send_run(udp, to, route.from, size, bytes);
        }
        if self.sends_alone {
            return self.send_one(queue);
        }
        match self.send_apart(queue) {
            Err(error) if may_be_refused(&error) => {
                // It may be the datagram that is refused. But if it goes by the other call, it is
                // not.
                let sent = self.send_one(queue)?;
                self.sends_alone = true;
                Ok(sent)
            }
            sent => sent,
        }
    }

    fn send_run(
        &self,
        udp: &UdpSocketState,
        to: SocketAddr,
        from: Option<IpAddr>,
        size: usize,
        bytes: &[u8],
    ) -> io::Result<Tried> {
        let most = udp.max_gso_segments().min(LARGEST_RUN / size.max(1)).max(1);
        let contents = &bytes[..bytes.len().min(most * size)];
        let count = contents.len().div_ceil(size.max(1)).max(1);
        let segment_size = (count > 1).then_some(size);
        let transmit =
            Transmit { destination: to, ecn: None, contents, segment_size, src_ip: from };
        let send = || udp.try_send(UdpSockRef::from(&self.socket), &transmit);
        match self.socket.try_io(send) {
            Ok(()) => Ok(Tried::Sent(count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock || count == 1 => Err(error),
            // The way there takes no segments of that size, or the datagrams fail for another
            // reason, of which each tells itself.
            Err(_) => Ok(Tried::NotAtOnce),
        }
    }

    /// Sends as many datagrams as one call takes, each for itself.
    #[cfg(target_os = "linux")]
    fn send_apart(&self, queue: &DatagramQueue) -> io::Result<Tried> {
        /// How many datagrams go in one call.
        const MOST: usize = 32;

        let plain = |(route, _): &(&memory::Route, &[u8])| route.from.is_none();
        if queue.iter().take_while(plain).nth(1).is_none() {
            return self.send_one(queue);
        }
        let nowhere = SocketAddrAny::from(SocketAddr::from(([0, 0, 0, 0], 0)));
        let mut addresses = [const { None }; MOST];
        let mut slices = [IoSlice::new(&[]); MOST];
        let mut count = 0;
        for (route, bytes) in queue.iter().take_while(plain).take(MOST) {
            addresses[count] = route.to.filter(|_| !self.connected).map(|to| socket_address(&to));
            slices[count] = IoSlice::new(bytes);
            count += 1;
        }
        let mut nothing: [_; MOST] = array::from_fn(|_| SendAncillaryBuffer::default());
        let mut nothing = nothing.iter_mut();
        let mut messages: [MMsgHdr<'_>; MOST] = array::from_fn(|at| {
            let slice = slice::from_ref(&slices[at]);
            let nothing = nothing.next().expect("there is one for each");
            match &addresses[at] {
                None => MMsgHdr::new(slice, nothing),
                // One that is not an address is refused when it comes to the front.
                Some(to) => MMsgHdr::new_with_addr(to.as_ref().unwrap_or(&nowhere), slice, nothing),
            }
        });
        let send = || Ok(sendmmsg(&self.socket, &mut messages[..count], NO_SIGNAL)?);
        self.socket.try_io(send).map(Tried::Sent)
    }

    #[cfg(not(target_os = "linux"))]
    fn send_apart(&self, queue: &DatagramQueue) -> io::Result<Tried> {
        self.send_one(queue)
    }

    fn send_one(&self, queue: &DatagramQueue) -> io::Result<Tried> {
        let Some((route, bytes)) = queue.iter().next() else { return Ok(Tried::Sent(0)) };
        let send = || match &route.to {
            Some(to) if !self.connected => {
                Ok(sendto(&self.socket, bytes, NO_SIGNAL, &socket_address(to)?)?)
            }
            _ => Ok(send(&self.socket, bytes, NO_SIGNAL)?),
        };
        self.socket.try_io(send).map(|_| Tried::Sent(1))
    }
}
