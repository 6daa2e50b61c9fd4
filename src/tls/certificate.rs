//! What is in certificates, which rustls does not tell.

use std::fmt::Write;
use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate, X509Error};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use super::error::Origin;
use crate::unwind::catch;

/// Whose a certificate is: what [`Tls::peer_names`](super::Tls::peer_names) returns.
///
/// The certificate's authority vouches for all of it, so it is worth what that checks. Compare
/// whole values of one kind; never look for a part of `subject`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateNames {
    /// The distinguished name of its subject in the form of RFC 4514, the most specific part first:
    /// `CN=alice,O=Example`. Empty if it has none.
    pub subject: String,
    /// The subject's common name, the most specific one if there are several.
    pub common_name: Option<String>,
    /// The subject's alternative names that are names of hosts.
    pub dns_names: Vec<String>,
    /// Those that are IP addresses.
    pub addresses: Vec<IpAddr>,
    /// Those that are e-mail addresses.
    pub emails: Vec<String>,
    /// Those that are URIs, such as SPIFFE's.
    pub uris: Vec<String>,
}

impl CertificateNames {
    /// Those of a certificate in DER, which a peer has sent: `None` if they can't be read.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        catch(|| CertificateNames::read(&parse(certificate).ok()?)).ok()?
    }

    pub(super) fn read(certificate: &X509Certificate<'_>) -> Option<Self> {
        let subject = certificate.subject();
        let common_name = subject.iter_common_name().last().and_then(|name| name.as_str().ok());
        let mut names = CertificateNames {
            subject: distinguished(subject),
            common_name: common_name.map(str::to_owned),
            ..CertificateNames::default()
        };
        let alternatives = certificate.subject_alternative_name().ok()?;
        for name in alternatives.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => names.dns_names.push((*name).to_owned()),
                GeneralName::RFC822Name(name) => names.emails.push((*name).to_owned()),
                GeneralName::URI(name) => names.uris.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => names.addresses.extend(address(bytes)),
                _ => {}
            }
        }
        Some(names)
    }
}

/// Names of hosts that a certificate of our own is for, in lower case.
pub(super) fn dns_names(certificate: &[u8]) -> Result<Vec<Box<str>>, X509Error> {
    let parsed = parse(certificate)?;
    let names = parsed.subject_alternative_name()?;
    let names = names.iter().flat_map(|names| &names.value.general_names);
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase().into()),
        _ => None,
    });
    Ok(names.collect())
}

/// Logs what is wrong with a chain of our own that is used all the same: peers may refuse it.
pub(super) fn tell_of_faults(chain: &[CertificateDer<'_>], origin: &Origin) {
    let chain: Vec<_> = chain.iter().filter_map(|certificate| parse(certificate).ok()).collect();
    for certificate in &chain {
        let (subject, validity) = (distinguished(certificate.subject()), certificate.validity());
        if !validity.is_valid() {
            let (since, until) = (&validity.not_before, &validity.not_after);
            tracing::warn!(%origin, subject, %since, %until, "the certificate is not valid now");
        }
    }
    for pair in chain.windows(2) {
        if pair[0].issuer() != pair[1].subject() {
            let (subject, next) = (pair[0].subject(), pair[1].subject());
            let (subject, next) = (distinguished(subject), distinguished(next));
            tracing::warn!(%origin, subject, next, "the next certificate is not of its issuer");
        }
    }
}

fn parse(certificate: &[u8]) -> Result<X509Certificate<'_>, X509Error> {
    X509Certificate::from_der(certificate).map(|(_, parsed)| parsed).map_err(X509Error::from)
}

/// Until when all of these certificates are valid, in seconds since 1970.
pub(super) fn valid_until<'a>(certificates: impl Iterator<Item = &'a [u8]>) -> u64 {
    let until = |certificate| {
        let parsed = catch(|| parse(certificate).map(|parsed| parsed.validity().not_after));
        // One that can't be read is not one to rely on.
        parsed.ok().and_then(Result::ok).and_then(|time| u64::try_from(time.timestamp()).ok())
    };
    certificates.map(|certificate| until(certificate).unwrap_or(0)).min().unwrap_or(u64::MAX)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4().or_else(|_| v6()).ok()
}

/// A distinguished name in the form of RFC 4514.
fn distinguished(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter().collect();
    let mut text = String::new();
    for part in parts.into_iter().rev() {
        for (index, attribute) in part.iter().enumerate() {
            let separator = match (text.is_empty(), index) {
                (true, _) => "",
                (false, 0) => ",",
                (false, _) => "+",
            };
            text.push_str(separator);
            text.push_str(&kind(attribute));
            text.push('=');
            match attribute.as_str() {
                Ok(value) => escape(value, &mut text),
                Err(_) => hexadecimal(attribute.as_slice(), &mut text), // Which is not text.
            }
        }
    }
    text
}

fn kind(attribute: &AttributeTypeAndValue<'_>) -> String {
    let id = attribute.attr_type().to_id_string();
    let short = match id.as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return id,
    };
    short.to_owned()
}

fn hexadecimal(value: &[u8], text: &mut String) {
    text.push('#');
    for byte in value {
        let _ = write!(text, "{byte:02x}"); // A `String` takes it.
    }
}

/// Writes a value such that no part of it can be taken for another value, or for a line.
fn escape(value: &str, text: &mut String) {
    let last = value.chars().count().saturating_sub(1);
    for (index, character) in value.chars().enumerate() {
        let at_edge =
            (index == 0 && matches!(character, ' ' | '#')) || (index == last && character == ' ');
        if at_edge || "\"+,;<>\\=".contains(character) {
            text.push('\\');
            text.push(character);
        } else if character.is_control() {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                let _ = write!(text, "\\{byte:02X}"); // A `String` takes it.
            }
        } else {
            text.push(character);
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        change(&mut params);
        let key = KeyPair::generate().expect("keys are made");
        params.self_signed(&key).expect("it is signed").der().to_vec()
    }

    #[test]
    fn a_value_can_not_pass_for_two_or_for_a_line() {
        let subject = |value: &str| {
            let der = certificate(|params| {
                params.distinguished_name = rcgen::DistinguishedName::new();
                params.distinguished_name.push(DnType::OrganizationName, "Example");
                params.distinguished_name.push(DnType::CommonName, value);
            });
            let names = CertificateNames::of(&der).expect("they can be read");
            assert_eq!(names.common_name.as_deref(), Some(value));
            names.subject
        };
        for (value, written) in [
            ("alice", "alice"),
            ("a,O=Other", "a\\,O\\=Other"),
            ("a+b;c<d>\"\\", "a\\+b\\;c\\<d\\>\\\"\\\\"),
            (" # ", "\\ #\\ "),
            ("#0a", "\\#0a"),
            ("\n\0é", "\\0A\\00é"),
        ] {
            assert_eq!(subject(value), format!("CN={written},O=Example"));
        }
    }

    #[test]
    fn what_can_not_be_read_has_no_names() {
        let der = certificate(|params| {
            params.subject_alt_names.push(SanType::IpAddress([1, 2, 3, 4].into()));
        });
        assert!(CertificateNames::of(&der).is_some());
        for len in 0..der.len() {
            assert_eq!(CertificateNames::of(&der[..len]), None, "{len}");
        }
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let mut changed = der.clone();
            for _ in 0..random.usize(1..4) {
                changed[random.usize(..der.len())] = random.u8(..);
            }
            let _ = CertificateNames::of(&changed); // It does not panic; it may be read.
        }
    }
}
