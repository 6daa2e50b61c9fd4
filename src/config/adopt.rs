//! Why a socket that was made elsewhere is not taken in.

use std::os::fd::OwnedFd;

use millstream_platform::socket::UnusableSocket;

/// Why a socket was not adopted. It has the socket, but for [`Closed`](Self::Closed).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdoptError {
    /// It is not a connected stream socket.
    #[error("cannot adopt the descriptor {socket:?}: {source}")]
    Unusable {
        /// What was to be adopted.
        socket: OwnedFd,
        /// What is wrong with it.
        #[source]
        source: UnusableSocket,
    },
    /// The engine has as many connections as
    /// [`max_connections`](crate::Builder::max_connections) allows.
    #[error("cannot adopt the descriptor {socket:?}: the limit of connections is reached")]
    LimitReached {
        /// What was to be adopted.
        socket: OwnedFd,
    },
    /// The engine stops, and takes no more connections.
    #[error("cannot adopt the descriptor {socket:?}: the engine stops")]
    Stopped {
        /// What was to be adopted.
        socket: OwnedFd,
    },
    /// The engine runs on a simulated network, whose connections have no descriptors.
    #[error("cannot adopt the descriptor {socket:?}: the network is simulated")]
    Unsupported {
        /// What was to be adopted.
        socket: OwnedFd,
    },
    /// The connection was taken in, but is not open any more, or never was: `on_open` closed it,
    /// detached it or panicked, or the operating system refused to watch it.
    #[error("the adopted connection was closed as it opened")]
    Closed,
}

impl AdoptError {
    /// The socket as it was, if it was not closed.
    pub fn into_socket(self) -> Option<OwnedFd> {
        match self {
            AdoptError::Unusable { socket, .. }
            | AdoptError::LimitReached { socket }
            | AdoptError::Stopped { socket }
            | AdoptError::Unsupported { socket } => Some(socket),
            AdoptError::Closed => None,
        }
    }
}
