//! Tickets: sessions that a server seals and gives to its clients.
//!
//! A client that shows one is let in without its certificate being checked again. So inside there
//! is under which rules it was checked, and until when: the holder of another ticket shakes hands
//! in full.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, Iv, NONCE_LEN, OutboundChunks, OutboundPlainMessage,
    Tls13AeadAlgorithm,
};
use rustls::crypto::{CryptoProvider, SecureRandom, hash};
use rustls::pki_types::UnixTime;
use rustls::server::ProducesTickets;
use rustls::{ContentType, ProtocolVersion, SupportedCipherSuite, Tls13CipherSuite};

use super::error::TlsError;
use super::noted;
use super::pem::Source;

/// Seconds for which a ticket from keys in a file is good: as long as one from keys that change
/// every six hours.
const LIFETIME: u32 = 12 * 60 * 60;
const NAME_LEN: usize = 16;
const KEY_LEN: usize = 32;
/// What is sealed is a record.
const MOST_SEALED: usize = 16 * 1024;

/// A hash of the rules by which clients are let in.
pub(super) type Rules = [u8; 32];

/// The hash of these, which `provider` makes.
pub(super) fn hash_of(rules: &[u8], provider: &CryptoProvider) -> Result<Rules, TlsError> {
    let suite = suite(provider)?;
    Ok(truncated(&suite.common.hash_provider.hash(rules)))
}

/// A cipher suite of TLS 1.3 whose keys have the right length: its parts seal tickets.
fn suite(provider: &CryptoProvider) -> Result<&'static Tls13CipherSuite, TlsError> {
    let mut suites = provider.cipher_suites.iter().filter_map(SupportedCipherSuite::tls13);
    let suite = suites.find(|suite| suite.aead_alg.key_len() == KEY_LEN);
    suite.ok_or_else(|| TlsError::settings("no cipher suite can seal tickets"))
}

/// Tickets by other `keys` that are good only under the same rules for clients, and as long as
/// the client's certificates are valid.
#[derive(Debug)]
pub(super) struct CheckedTickets {
    pub(super) keys: Arc<dyn ProducesTickets>,
    pub(super) rules: Rules,
}

impl CheckedTickets {
    fn encrypt_at(&self, session: &[u8], now: u64) -> Option<Vec<u8>> {
        let valid_until = noted::valid_until().unwrap_or(u64::MAX);
        let (since, until) = (now.to_be_bytes(), valid_until.to_be_bytes());
        self.keys.encrypt(&[&since, &until, &self.rules[..], session].concat())
    }

    fn decrypt_at(&self, ticket: &[u8], now: u64) -> Option<Vec<u8>> {
        let opened = self.keys.decrypt(ticket)?;
        let (since, rest) = opened.split_first_chunk()?;
        let (until, rest) = rest.split_first_chunk()?;
        let (since, until) = (u64::from_be_bytes(*since), u64::from_be_bytes(*until));
        let session = rest.strip_prefix(&self.rules)?;
        let age = now.saturating_sub(since);
        if age > u64::from(self.lifetime()) || now > until {
            return None;
        }
        noted::note(|noted| noted.valid_until = Some(until)); // For the tickets that come of it.
        Some(session.to_vec())
    }
}

impl ProducesTickets for CheckedTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.keys.lifetime()
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        self.encrypt_at(session, UnixTime::now().as_secs())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.decrypt_at(ticket, UnixTime::now().as_secs())
    }
}

/// Keys from a file, which servers share. The first one seals, and each of them opens.
pub(super) struct FileKeys {
    keys: Vec<Key>,
    aead: &'static dyn Tls13AeadAlgorithm,
    random: &'static dyn SecureRandom,
}

struct Key {
    /// By it the right one is found; it tells nothing of the key.
    name: [u8; NAME_LEN],
    secret: [u8; KEY_LEN],
}

impl FileKeys {
    /// One key a line, in hexadecimal digits; lines that are empty or begin with `#` are left out.
    pub(super) fn load(source: &Source, provider: &CryptoProvider) -> Result<Self, TlsError> {
        let suite = suite(provider)?;
        let text = source.read()?;
        let mut keys = Vec::new();
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let Some(secret) = from_hexadecimal(line) else {
                let number = index.saturating_add(1);
                return Err(source.wrong(format!("line {number} is not a key of 64 hex digits")));
            };
            keys.push(Key { name: name_of(&secret, suite.common.hash_provider), secret });
        }
        if keys.is_empty() {
            return Err(source.wrong("there is no key in it"));
        }
        Ok(FileKeys { keys, aead: suite.aead_alg, random: provider.secure_random })
    }
}

impl ProducesTickets for FileKeys {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        let key = self.keys.first().filter(|_| session.len() <= MOST_SEALED)?;
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let plain = OutboundPlainMessage {
            typ: ContentType::ApplicationData,
            version: ProtocolVersion::TLSv1_3,
            payload: OutboundChunks::Single(session),
        };
        let mut sealing = self.aead.encrypter(AeadKey::from(key.secret), Iv::from(nonce));
        let sealed = sealing.encrypt(plain, 0).ok()?;
        Some([&key.name, &nonce[..], sealed.payload.as_ref()].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let key = self.keys.iter().find(|key| key.name == *name)?;
        let mut sealed = sealed.to_vec();
        let (typ, version) = (ContentType::ApplicationData, ProtocolVersion::TLSv1_2);
        let record = InboundOpaqueMessage::new(typ, version, &mut sealed);
        let mut opening = self.aead.decrypter(AeadKey::from(key.secret), Iv::from(*nonce));
        let opened = opening.decrypt(record, 0).ok()?;
        Some(opened.payload.to_vec())
    }
}

impl fmt::Debug for FileKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileKeys").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

fn name_of(secret: &[u8; KEY_LEN], hash: &dyn hash::Hash) -> [u8; NAME_LEN] {
    truncated(&hash.hash(&[&b"name of a ticket key"[..], secret].concat()))
}

/// The first bytes of a hash, which has more.
fn truncated<const LEN: usize>(hashed: &hash::Output) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes.iter_mut().zip(hashed.as_ref()).for_each(|(byte, hashed)| *byte = *hashed);
    bytes
}

fn from_hexadecimal(digits: &[u8]) -> Option<[u8; KEY_LEN]> {
    let mut bytes = [0; KEY_LEN];
    let (pairs, rest) = digits.as_chunks::<2>();
    if pairs.len() != KEY_LEN || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|v| u8::try_from(v).ok());
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::provider::{provider, ticketer};
    use super::*;

    fn source(text: &str) -> Source {
        Source::Bytes(text.as_bytes().into())
    }

    fn keys(lines: &[&str]) -> FileKeys {
        FileKeys::load(&source(&lines.join("\n")), &provider()).expect("they are keys")
    }

    fn checked(rules: u8) -> CheckedTickets {
        CheckedTickets { keys: Arc::new(keys(&[ONE])), rules: [rules; 32] }
    }

    const ONE: &str = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";
    const TWO: &str = "f0112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn what_a_key_has_sealed_it_opens_wherever_it_stands() {
        let ticket = keys(&[ONE]).encrypt(b"a session").expect("it is sealed");
        assert_eq!(
            keys(&["# new", TWO, "", ONE]).decrypt(&ticket).as_deref(),
            Some(&b"a session"[..])
        );
        assert_eq!(keys(&[TWO]).decrypt(&ticket), None);
        assert_ne!(keys(&[ONE]).encrypt(b"a session"), Some(ticket), "the nonce is another one");
        assert!(keys(&[ONE]).encrypt(&vec![0; MOST_SEALED + 1]).is_none());
        let largest = vec![7; MOST_SEALED];
        let ticket = keys(&[ONE]).encrypt(&largest).expect("it is sealed");
        assert_eq!(keys(&[ONE]).decrypt(&ticket), Some(largest));
    }

    #[test]
    fn what_was_changed_or_cut_does_not_open() {
        let keys = keys(&[ONE]);
        let ticket = keys.encrypt(b"a session").expect("it is sealed");
        for index in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[index] ^= 1;
            assert_eq!(keys.decrypt(&changed), None, "{index}");
            assert_eq!(keys.decrypt(&ticket[..index]), None, "{index}");
        }
    }

    #[test]
    fn lines_that_are_not_keys_are_named() {
        let wrong = |text: &str| {
            FileKeys::load(&source(text), &provider()).expect_err("it is wrong").to_string()
        };
        assert!(wrong("").ends_with("there is no key in it"), "{}", wrong(""));
        for bad in ["00", &ONE[1..], &format!("{ONE}0"), &ONE.replace('f', "g"), "é"] {
            let text = wrong(&format!("{ONE}\n{bad}\n"));
            assert!(text.ends_with("line 2 is not a key of 64 hex digits"), "{text}");
        }
    }

    #[test]
    fn a_ticket_is_good_for_its_time_and_under_its_rules() {
        let tickets = checked(7);
        let age = u64::from(LIFETIME);
        let open = |tickets: &CheckedTickets, ticket: &[u8], now| {
            noted::go_on(noted::Noted::default());
            (tickets.decrypt_at(ticket, now), noted::take())
        };
        let ticket = tickets.encrypt_at(b"a session", 1_000).expect("it is sealed");
        for now in [1_000, 999, 1_000 + age] {
            let (session, noted) = open(&tickets, &ticket, now);
            assert_eq!(session.as_deref(), Some(&b"a session"[..]), "{now}");
            assert_eq!(noted.valid_until, Some(u64::MAX));
        }
        assert_eq!(open(&tickets, &ticket, 1_001 + age).0, None, "it is too old");
        assert_eq!(open(&checked(8), &ticket, 1_000).0, None, "the rules are others");
    }

    #[test]
    fn a_ticket_ends_with_the_clients_certificate_however_often_it_is_renewed() {
        let tickets = CheckedTickets { keys: ticketer().expect("it is made"), rules: [0; 32] };
        let shown = noted::Noted { valid_until: Some(1_500), ..noted::Noted::default() };
        noted::go_on(shown);
        let first = tickets.encrypt_at(b"a session", 1_000);
        let renew = |ticket: Option<Vec<u8>>, now| {
            noted::go_on(noted::Noted::default());
            let session = tickets.decrypt_at(&ticket.expect("there is one"), now)?;
            tickets.encrypt_at(&session, now)
        };
        let last = renew(renew(first, 1_200), 1_500);
        assert!(last.is_some());
        assert_eq!(renew(last, 1_501), None);
    }
}
