//! Makes a certificate that is signed by its own key, for first steps with TLS: clients have to be
//! told to believe it. What the public is to believe is signed by an authority.
//!
//! `self_signed`, then `kv --tls-cert cert.pem --tls-key key.pem`, and then
//! `redis-cli --tls --cacert cert.pem`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program's output")]

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::anyhow;
use clap::Parser;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
};

/// A certificate is valid from so long before it is made, for clients whose clocks are late.
const EARLIER: Duration = Duration::from_secs(3600);

/// Makes a certificate for a server, and its private key.
#[derive(Parser)]
struct Options {
    /// The names and IP addresses of the server.
    #[arg(default_values = ["localhost", "127.0.0.1", "::1"])]
    names: Vec<String>,
    /// Where the certificate goes, in PEM.
    #[arg(long, value_name = "FILE", default_value = "cert.pem")]
    cert: PathBuf,
    /// Where the private key goes, in PEM. Only you may read it.
    #[arg(long, value_name = "FILE", default_value = "key.pem")]
    key: PathBuf,
    /// For how many days the certificate is valid.
    #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=3650))]
    days: u16,
    /// Replace files that are there.
    #[arg(long)]
    force: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("self_signed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    let Options { names, cert, key, .. } = options;
    let params = params(names, options.days).map_err(|error| anyhow!("{names:?}: {error}"))?;
    let pair = KeyPair::generate()?;
    let certificate = params.self_signed(&pair)?;
    // Both or none.
    for path in [cert, key] {
        make_room(path, options.force).map_err(|error| anyhow!("{}: {error}", path.display()))?;
    }
    write(key, 0o600, &pair.serialize_pem())?;
    write(cert, 0o644, &certificate.pem())?;
    println!("{}: a certificate for {}", cert.display(), names.join(", "));
    println!("{}: its private key; keep it to yourself", key.display());
    Ok(())
}

fn params(names: &[String], days: u16) -> Result<CertificateParams, rcgen::Error> {
    let now = SystemTime::now();
    let valid = Duration::from_secs(u64::from(days) * 24 * 3600);
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, &*names[0]);
    params.not_before = (now - EARLIER).into();
    params.not_after = (now + valid).into();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

/// Sees to it that there is no such file.
fn make_room(path: &Path, force: bool) -> io::Result<()> {
    let there = path.symlink_metadata();
    match there {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(_) if force => fs::remove_file(path),
        Ok(_) => Err(io::Error::new(ErrorKind::AlreadyExists, "it is there; --force replaces it")),
    }
}

/// Writes a file that is not there yet, and which nobody else may read before it has its mode.
fn write(path: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| anyhow!("{}: {error}", path.display()))
}
