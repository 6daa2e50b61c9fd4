//! In place of certificates, where TLS is not compiled in.

use std::convert::Infallible;
use std::io;

use clap::Args;
use millstream::{Engine, Listen};

/// There is none.
#[derive(Args)]
pub(crate) struct Certificate {}

/// Connections are not encrypted.
pub(crate) struct Encryption;

impl Encryption {
    pub(crate) fn load(_: Option<&Certificate>) -> Result<Self, Infallible> {
        Ok(Encryption)
    }

    pub(crate) fn of(&self, listen: &str) -> Listen {
        listen.into()
    }

    pub(crate) fn reload_on_hangup(&self, _: &Engine) -> io::Result<()> {
        Ok(())
    }
}
