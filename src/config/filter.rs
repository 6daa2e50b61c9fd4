//! Whom the user lets in.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millstream_platform::address::Address;

use crate::base::ListenerId;
use crate::log::limited;
use crate::unwind::{Shielded, catch};

/// A connection that was accepted and is not taken in yet, as
/// [`Builder::accept_filter`](crate::Builder::accept_filter) sees it.
#[doc(alias("allowlist", "blocklist"))]
#[derive(Clone, Debug)]
pub struct Accepting {
    pub(crate) peer: Address,
    pub(crate) listener: ListenerId,
    pub(crate) connections: usize,
}

impl Accepting {
    /// The address that connected; an IPv4 address that is mapped into IPv6, as on a listener for
    /// both, is the IPv4 address. With the PROXY protocol it is the proxy's.
    pub fn peer_addr(&self) -> Address {
        canonical(self.peer)
    }

    /// The listener that it came in on.
    pub fn listener(&self) -> ListenerId {
        self.listener
    }

    /// How many connections the engine has, without this one; on several reactors others may come
    /// and go meanwhile.
    pub fn connections(&self) -> usize {
        self.connections
    }
}

/// An address as it is compared with others: IPv4 where it is mapped into IPv6.
pub(crate) fn canonical(address: Address) -> Address {
    match address {
        Address::Ip(SocketAddr::V6(v6)) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => (v4, v6.port()).into(),
            None => address,
        },
        Address::Ip(SocketAddr::V4(_)) | Address::Unix(_) => address,
    }
}

type Judge = dyn Fn(&Accepting) -> bool + Send + Sync;

/// The user's code that says which connections may come in; without any, all may.
#[derive(Clone, Default)]
pub(crate) struct AcceptFilter(Option<Arc<Shielded<Box<Judge>>>>);

impl AcceptFilter {
    pub(crate) fn new(judge: impl Fn(&Accepting) -> bool + Send + Sync + 'static) -> Self {
        AcceptFilter(Some(Arc::new(Shielded::new(Box::new(judge)))))
    }

    /// Asks whether a connection may come in, and counts it if not. A panic is a no.
    pub(crate) fn lets_in(&self, accepting: impl FnOnce() -> Accepting, no: &Refusals) -> bool {
        let Some(judge) = &self.0 else { return true };
        let accepting = accepting();
        let yes = catch(|| judge(&accepting)).unwrap_or_else(|_| {
            limited!(error, peer = %accepting.peer, "the accept filter panicked");
            no.panics.fetch_add(1, Ordering::Relaxed);
            false
        });
        if !yes {
            no.filtered.fetch_add(1, Ordering::Relaxed);
        }
        yes
    }
}

impl fmt::Debug for AcceptFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "AcceptFilter" } else { "None" })
    }
}

/// How many connections were not let in, and how often the filter panicked.
#[derive(Default)]
pub(crate) struct Refusals {
    pub(crate) filtered: AtomicU64,
    pub(crate) panics: AtomicU64,
}
