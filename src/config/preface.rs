//! What comes before a connection opens.

use std::fmt::Debug;
use std::time::Duration;

use millstream_platform::address::Address;

use super::{ConfigError, Listen};
use crate::base::CloseReason;

/// What the peers of a listener's connections send before those open, for example a proxy who its
/// client is.
pub(crate) trait Preface: Debug + Send + Sync {
    /// # Errors
    /// It does not suit this listener, or can't be used at all.
    fn check(&self, listen: &Listen) -> Result<(), ConfigError>;

    /// How long the peer has to send it.
    fn timeout(&self) -> Duration;

    /// Why a connection closes on which it did not come in time.
    fn timed_out(&self) -> CloseReason;

    /// Judges all that was received so far: `None` if more is to come; otherwise how many bytes it
    /// has, behind which the connection's input begins, and the ends of the connection if it tells
    /// others than those of the socket.
    ///
    /// # Errors
    /// The connection is refused.
    fn judge(&self, received: &[u8]) -> Result<Option<(usize, Option<Ends>)>, CloseReason>;
}

/// Where the client is, and where it connected to.
pub(crate) type Ends = (Address, Address);
