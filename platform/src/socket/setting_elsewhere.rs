//! The options that only Linux has, on other systems.

use std::io;

use socket2::SockRef;

use super::setting::Setting;

/// [`Setting::check`] has refused them already.
pub(super) fn apply(_setting: &Setting, _socket: &SockRef<'_>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
