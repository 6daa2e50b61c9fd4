//! TLS between socket and handler.

mod authority;
mod client;
mod clients;
mod exactness;
mod facts;
mod files;
mod options;
mod peers;
mod proxied;
mod reload;
mod server;
mod sessions;
mod starttls;
#[cfg(feature = "tls-native-roots")]
mod system;
