//! A contestant with TLS echoes, and resumes sessions.

#[allow(dead_code, reason = "only its server is used here")]
mod contestant;
#[path = "contestant/tls.rs"]
mod tls;

#[test]
fn tokio_rustls() {
    let folder = concat!(env!("CARGO_TARGET_TMPDIR"), "/tls");
    tls::check(env!("CARGO_BIN_EXE_tokio_rustls"), folder.as_ref(), &[]);
}
