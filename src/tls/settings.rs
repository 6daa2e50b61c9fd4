//! What both sides are told in the same words.

use std::sync::Arc;
use std::time::Duration;

use rustls::{KeyLog, KeyLogFile, NoKeyLog};

use super::version::TlsVersion;

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) alpn: Vec<Vec<u8>>,
    pub(super) oldest: TlsVersion,
    pub(super) logs_keys: bool,
    pub(super) handshake_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            alpn: Vec::new(),
            oldest: TlsVersion::default(),
            logs_keys: false,
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

impl Settings {
    pub(super) fn key_log(&self) -> Arc<dyn KeyLog> {
        if self.logs_keys { Arc::new(KeyLogFile::new()) } else { Arc::new(NoKeyLog) }
    }
}

/// The methods of a builder that set them.
macro_rules! set_by {
    ($builder:ident) => {
        impl $builder {
            /// The protocols that are spoken inside, those that are preferred first (ALPN). Of
            /// those that the client offers, the server's first one is agreed on, which
            /// [`Conn::tls`](crate::Conn::tls) tells. A client that offers others only is refused;
            /// one that offers none is not.
            pub fn alpn<P: AsRef<[u8]>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
                self.settings.alpn =
                    protocols.into_iter().map(|name| name.as_ref().to_vec()).collect();
                self
            }

            /// The oldest version that is spoken. By default TLS 1.2; there is none older.
            pub fn oldest_version(mut self, version: TlsVersion) -> Self {
                self.settings.oldest = version;
                self
            }

            /// Writes the secrets of all connections to the file that the environment variable
            /// `SSLKEYLOGFILE` names, with which anyone who has it can read what was recorded of
            /// them. For finding faults; without this the variable does nothing.
            pub fn log_keys(mut self) -> Self {
                self.settings.logs_keys = true;
                self
            }

            /// How long a handshake may take, once the connection is made. By default 10 seconds.
            pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
                self.settings.handshake_timeout = timeout;
                self
            }
        }
    };
}

pub(super) use set_by;
