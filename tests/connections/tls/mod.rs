//! TLS between socket and handler.

mod authority;
mod client;
mod clients;
mod facts;
mod files;
mod options;
mod peers;
mod proxied;
mod reload;
mod server;
#[cfg(feature = "tls-native-roots")]
mod system;
