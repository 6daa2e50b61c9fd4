//! What the servers among the examples encrypt their connections with: the options `--tls-cert` and
//! `--tls-key`, and SIGHUP.

use std::io;
use std::path::PathBuf;

use clap::Args;
use millstream::tls::{TlsError, TlsServer};
use millstream::{Engine, Listen};

/// The files of a server's certificate.
#[derive(Args)]
pub(crate) struct Certificate {
    /// Encrypt connections by TLS, with the chain of certificates in this PEM file, the server's
    /// own first. SIGHUP reads it again.
    #[arg(long = "tls-cert", value_name = "FILE", required = false, requires = "key")]
    chain: PathBuf,
    /// The private key of the certificate, in a PEM file.
    #[arg(long = "tls-key", value_name = "FILE", required = false, requires = "chain")]
    key: PathBuf,
    /// Share sessions with all servers that have this file of keys, also after a restart: each line
    /// of it is 64 hexadecimal digits.
    #[arg(long = "tls-ticket-keys", value_name = "FILE", requires = "chain")]
    ticket_keys: Option<PathBuf>,
}

impl Certificate {
    fn load(&self) -> Result<TlsServer, TlsError> {
        let mut tls = TlsServer::builder().pem_files(&self.chain, &self.key);
        if let Some(keys) = &self.ticket_keys {
            tls = tls.ticket_keys_file(keys);
        }
        tls.build()
    }
}

/// The TLS of a server that has a certificate.
pub(crate) struct Encryption {
    pub(crate) tls: Option<TlsServer>,
}

impl Encryption {
    /// Reads the files, if there are any.
    pub(crate) fn load(certificate: Option<&Certificate>) -> Result<Self, TlsError> {
        Ok(Encryption { tls: certificate.map(Certificate::load).transpose()? })
    }

    /// Encrypts a listener's connections.
    pub(crate) fn of(&self, listen: impl Into<Listen>) -> Listen {
        match &self.tls {
            Some(tls) => listen.into().tls(tls),
            None => listen.into(),
        }
    }

    /// From a SIGHUP on, clients that connect are shown what is in the files then.
    pub(crate) fn reload_on_hangup(&self, engine: &Engine) -> io::Result<()> {
        self.tls.as_ref().map_or(Ok(()), |tls| tls.reload_on_hangup(engine))
    }
}
