//! What both ends of a handshake know (RFC 6455, sections 4.1 and 4.2).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1_smol::Sha1;

/// The one version that there is.
pub(super) const VERSION: &str = "13";

/// What a key is hashed with.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// How many bytes a key has before it is encoded.
pub(super) const KEY_BYTES: usize = 16;

/// What proves that a server has understood a handshake with this key.
pub(super) fn accept_of(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(GUID);
    STANDARD.encode(hash.digest().bytes())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_example_of_the_rfc() {
        let accept = super::accept_of(b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
