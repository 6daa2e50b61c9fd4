//! Listeners for the PROXY protocol, and what its headers are.

mod header;

use std::sync::Arc;
use std::time::Duration;

use self::header::LONGEST_V1;
pub use self::header::{ProxyHeader, ProxyVersion};
use crate::base::{CloseReason, ProxyError};
use crate::config::{ConfigError, Ends, Listen, Preface};
use crate::handler::{Conn, EventHandler};

/// That a proxy says first who its client is.
#[derive(Debug)]
struct Header {
    /// How long that may take.
    timeout: Duration,
    /// How many bytes it may have.
    most: usize,
}

impl Listen {
    /// Expects each connection to begin with a header of the PROXY protocol, version 1 or 2, by
    /// which a proxy tells who its client is
    /// (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>). Only proxies must be able
    /// to connect here: any client that connects is believed.
    ///
    /// The connection opens when the header is there; what follows it is the connection's input.
    /// [`Conn::peer_addr`] is then the client's address, and [`Conn::proxied`] says where the
    /// client connected to. Where the proxy speaks for itself or doesn't know (`LOCAL`,
    /// `UNKNOWN`), it is the proxy's. Limits per source and the accept filter go by the proxy's
    /// address: a client's is not known when a connection is let in.
    ///
    /// One without a header within `timeout`, at least a millisecond, or whose header has more than
    /// `most` bytes, at least 107, or is none, is reset within a moment, and counted as closed for
    /// [`CloseReason::ProxyHeader`]. 536 bytes are plenty for addresses, and for some of the
    /// extensions of version 2, of which only a checksum is looked at.
    #[cfg_attr(docsrs, doc(cfg(feature = "proxy-protocol")))]
    pub fn proxy_protocol(mut self, timeout: Duration, most: usize) -> Self {
        self.preface = Some(Arc::new(Header { timeout, most }));
        self
    }
}

impl Preface for Header {
    fn check(&self, listen: &Listen) -> Result<(), ConfigError> {
        let Header { timeout, most } = *self;
        let error = |field, value, reason| Err(ConfigError { field, value, reason });
        if !listen.transport().is_stream() {
            let reason = "no PROXY header comes with datagrams";
            return error("listen", listen.to_string(), reason);
        }
        if timeout < Duration::from_millis(1) {
            let reason = "the timeout must be at least a millisecond";
            return error("proxy_protocol", format!("{timeout:?}"), reason);
        }
        if most < LONGEST_V1 {
            let reason = "a header must be allowed at least 107 bytes";
            return error("proxy_protocol", most.to_string(), reason);
        }
        Ok(())
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn timed_out(&self) -> CloseReason {
        CloseReason::ProxyHeader(ProxyError::TimedOut)
    }

    fn judge(&self, received: &[u8]) -> Result<Option<(usize, Option<Ends>)>, CloseReason> {
        let decoded = ProxyHeader::decode(received, self.most).map_err(CloseReason::ProxyHeader)?;
        Ok(decoded.map(|(told, len)| (len, told.map(|told| (told.source, told.destination)))))
    }
}

impl<H: EventHandler> Conn<'_, H> {
    /// Where a proxy's client is and what it connected to, if a proxy sent that
    /// ([`Listen::proxy_protocol`]).
    #[cfg_attr(docsrs, doc(cfg(feature = "proxy-protocol")))]
    pub fn proxied(&self) -> Option<ProxyHeader> {
        let (source, destination) = self.control.status.peer.told()?;
        Some(ProxyHeader::new(source.get(), destination.get()))
    }
}
