//! The hand-written server with TLS echoes by each interface of rustls.

use crate::tls;

const PROGRAM: &str = env!("CARGO_BIN_EXE_epoll_tls_echo");

#[test]
fn buffered() {
    let folder = concat!(env!("CARGO_TARGET_TMPDIR"), "/buffered");
    tls::check(PROGRAM, folder.as_ref(), &[]);
}

#[test]
fn unbuffered() {
    let folder = concat!(env!("CARGO_TARGET_TMPDIR"), "/unbuffered");
    tls::check(PROGRAM, folder.as_ref(), &["--unbuffered"]);
}
