//! The certificate of servers with TLS.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Makes a certificate for a P-256 key, and puts it and the key into the folder, in PEM. Returns
/// the two files.
///
/// # Errors
///
/// They can't be made or written.
pub fn make_identity(folder: &Path) -> io::Result<[PathBuf; 2]> {
    fs::create_dir_all(folder)?;
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]);
    let made = made.map_err(io::Error::other)?;
    let files = ["cert.pem", "key.pem"].map(|name| folder.join(name));
    fs::write(&files[0], made.cert.pem())?;
    fs::write(&files[1], made.signing_key.serialize_pem())?;
    Ok(files)
}
