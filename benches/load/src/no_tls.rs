//! In place of TLS, where it is not compiled in.

use std::io;

use super::Tls;

/// There is none.
pub(super) enum TlsClient {}

impl TlsClient {
    pub(super) fn of(_: Tls) -> io::Result<Option<Self>> {
        Ok(None) // A load that wants it was refused.
    }

    pub(super) fn hello(&self) -> io::Result<Vec<u8>> {
        match *self {}
    }
}
