//! Where cryptography comes from: the one place that the choice of features concerns.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
#[cfg(feature = "tls")]
use rustls::crypto::aws_lc_rs as chosen;
#[cfg(not(feature = "tls"))]
use rustls::crypto::ring as chosen;
use rustls::server::ProducesTickets;

/// What the program has chosen for all of rustls, or that of the feature.
pub(super) fn provider() -> Arc<CryptoProvider> {
    let default = CryptoProvider::get_default();
    default.cloned().unwrap_or_else(|| Arc::new(chosen::default_provider()))
}

/// Seals sessions into tickets, by keys that change every six hours.
pub(super) fn ticketer() -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
    chosen::Ticketer::new()
}
