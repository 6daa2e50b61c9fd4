//! What the echo servers of the benchmark with TLS have in common. That in `peers/`, a separate
//! workspace, also includes this file.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Parser;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::echo_server::Options;

/// Echoes what comes in over TLS. SIGTERM ends it.
#[derive(Clone, Debug, Parser)]
pub struct TlsOptions {
    /// Those of every server.
    #[command(flatten)]
    pub plain: Options,
    /// The chain of certificates, in PEM.
    #[arg(long, value_name = "FILE")]
    pub tls_cert: PathBuf,
    /// Its private key, in PEM.
    #[arg(long, value_name = "FILE")]
    pub tls_key: PathBuf,
}

/// Cryptography by ring, TLS 1.2 and 1.3, and tickets, as the engine has them by its defaults with
/// the feature `tls-ring`.
///
/// # Errors
///
/// A file can't be read, or the two don't belong together.
pub fn config(chain: &Path, key: &Path) -> Result<Arc<ServerConfig>, Box<dyn Error + Send + Sync>> {
    let chain = CertificateDer::pem_file_iter(chain)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(key)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.ticketer = ring::Ticketer::new()?;
    Ok(Arc::new(config))
}
