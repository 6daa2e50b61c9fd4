//! TLS between socket and handler.

mod authority;
mod case;
mod client;
mod clients;
mod conversations;
mod exactness;
mod facts;
mod faults;
mod files;
mod hostile;
mod options;
mod peers;
mod proxied;
mod raw;
mod reload;
mod server;
mod sessions;
mod site;
mod starttls;
#[cfg(feature = "tls-native-roots")]
mod system;
