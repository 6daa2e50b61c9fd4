//! Which reactor gets a new connection.

use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::net::IpAddr;

use millstream_platform::address::Address;

/// Chooses the reactor for each new connection, on the acceptor's thread. It is not called if there
/// is only one reactor.
///
/// The stock ones are [`RoundRobin`] (the default), [`LeastConnections`] and [`SourceHash`].
///
/// Clients of this machine have the first reactor, and all others the rest:
///
/// ```
/// use millstream::balance::Balance;
/// use millstream::{Address, Engine};
///
/// #[derive(Default)]
/// struct OwnFirst {
///     next: usize,
/// }
///
/// impl Balance for OwnFirst {
///     fn choose(&mut self, peer: Address, connections: &[usize]) -> usize {
///         let is_own = peer.ip().is_none_or(|ip| ip.is_loopback());
///         if is_own || connections.len() == 1 {
///             return 0;
///         }
///         self.next = (self.next + 1) % (connections.len() - 1);
///         1 + self.next
///     }
/// }
///
/// let builder = Engine::builder().balance(OwnFirst::default());
/// ```
#[doc(alias = "load balancing")]
pub trait Balance: Send + 'static {
    /// Returns the index of the reactor that gets the connection from `peer`, which is an IPv4
    /// address also where that is mapped into IPv6. `connections` has each reactor's number of
    /// connections, and is not empty. An index beyond it counts from 0 again.
    fn choose(&mut self, peer: Address, connections: &[usize]) -> usize;

    /// Whether [`choose`](Self::choose) looks at the numbers of connections, which is asked once.
    /// If not, they are all 0, and the acceptor doesn't read them, which other threads write.
    fn needs_connections(&self) -> bool {
        true
    }

    /// Draws from this seed, from here on, what it leaves to chance. A simulation calls it once, so
    /// that its runs can be repeated. By default it does nothing, which is right for a rule that
    /// leaves nothing to chance.
    fn seed(&mut self, _seed: u64) {}
}

/// Each reactor in turn.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundRobin {
    next: usize,
}

impl Balance for RoundRobin {
    fn choose(&mut self, _peer: Address, connections: &[usize]) -> usize {
        let chosen = self.next % connections.len();
        self.next = chosen + 1;
        chosen
    }

    fn needs_connections(&self) -> bool {
        false
    }
}

/// The reactor with the fewest connections, the first of equals.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeastConnections;

impl Balance for LeastConnections {
    fn choose(&mut self, _peer: Address, connections: &[usize]) -> usize {
        (0..connections.len()).min_by_key(|&reactor| connections[reactor]).unwrap_or(0)
    }
}

/// The same reactor for all connections of one source address, whatever its port; those of Unix
/// sockets, which have none, go where the fewest are. Which one it is differs from one value of
/// this type to the next, so that no one can aim at a reactor.
#[derive(Clone, Debug, Default)]
pub struct SourceHash {
    keys: RandomState,
    /// Stands for the keys in a simulation.
    seed: Option<u64>,
}

impl SourceHash {
    fn hash(&self, source: IpAddr) -> u64 {
        let Some(seed) = self.seed else { return self.keys.hash_one(source) };
        let mut hasher = DefaultHasher::new();
        (seed, source).hash(&mut hasher);
        hasher.finish()
    }
}

impl Balance for SourceHash {
    fn choose(&mut self, peer: Address, connections: &[usize]) -> usize {
        let Some(source) = peer.ip() else { return LeastConnections.choose(peer, connections) };
        let hash = self.hash(source.to_canonical());
        (hash % connections.len() as u64) as usize
    }

    fn seed(&mut self, seed: u64) {
        self.seed = Some(seed);
    }
}
