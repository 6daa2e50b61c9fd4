//! Looks at a server's files, and reads them again when one of them has changed.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Weak;
use std::thread;
use std::time::{Duration, SystemTime};
use std::{fs, io};

use super::error::TlsError;
use super::server::ServerState;
#[cfg(feature = "signals")]
use super::server::TlsServer;

/// What changes of a file when it is written, or another one takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trace {
    modified: Option<SystemTime>,
    len: u64,
    inode: u64,
}

impl Trace {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let file = fs::metadata(path)?;
        let modified = file.modified().ok();
        Ok(Trace { modified, len: file.len(), inode: file.ino() })
    }
}

#[cfg(feature = "signals")]
impl TlsServer {
    /// [Reloads](Self::reload), and logs what came of it.
    pub(crate) fn reload_and_tell(&self) {
        tell(&self.reload());
    }
}

fn tell(reloaded: &Result<(), TlsError>) {
    match reloaded {
        Ok(()) => tracing::info!("the TLS files were read again, and are in force"),
        Err(error) => {
            tracing::error!(%error, "the TLS files can't be used: those before stay in force");
        }
    }
}

/// Looks this often, for as long as the server is there. Files that can't be used are tried again,
/// since that may have another cause than what is in them; what is wrong is told once.
pub(super) fn watch(server: &Weak<ServerState>, interval: Duration, mut seen: Vec<Option<Trace>>) {
    let mut refused = None;
    loop {
        thread::park_timeout(interval);
        let Some(server) = server.upgrade() else { return };
        let now = server.traces();
        if now == seen && refused.is_none() {
            continue;
        }
        seen = now;
        let reloaded = server.reload();
        let error = reloaded.as_ref().err().map(TlsError::to_string);
        if error.is_none() || error != refused {
            tell(&reloaded);
        }
        refused = error;
    }
}
