//! Files in all forms, and what is said of those that can't be used.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use millstream::tls::{Origin, TlsClient, TlsError, TlsServer};
use rcgen::date_time_ymd;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::authority::{Authority, connect, exchange};
use super::peers::has;
use super::server::start;
use crate::common::alone::alone;
use crate::common::folder::Folder;
use crate::common::log::Log;

fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A client that trusts just this certificate.
fn client_of(chain: &Path) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(chain).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    builder.with_root_certificates(roots).with_no_client_auth()
}

#[test]
fn keys_are_read_in_every_form_that_openssl_writes() {
    if !has("openssl") {
        return;
    }
    let folder = Folder::new();
    let [key, other, chain] = ["key", "other", "chain"].map(|name| folder.path(name));
    let made = [
        ("RSA PRIVATE KEY", &["genrsa", "-traditional", "-out", &key, "2048"][..]),
        ("EC PARAMETERS", &["ecparam", "-genkey", "-name", "prime256v1", "-out", &key]),
        ("PRIVATE KEY", &["genpkey", "-algorithm", "ed25519", "-out", &key]),
        ("PRIVATE KEY", &["genpkey", "-algorithm", "rsa", "-out", &key]),
    ];
    for (form, arguments) in made {
        openssl(arguments);
        let written = fs::read_to_string(&key).unwrap();
        assert!(written.contains(&format!("-----BEGIN {form}-----")), "{written}");
        openssl(&[
            "req",
            "-x509",
            "-key",
            &key,
            "-subj",
            "/CN=localhost",
            "-out",
            &chain,
            "-addext",
            "subjectAltName=DNS:localhost",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ]);
        let (engine, _told) = start(&TlsServer::from_pem_files(&chain, &key).unwrap());
        let mut client = connect(engine.connect(), client_of(Path::new(&chain)), "localhost");
        assert_eq!(exchange(&mut client, b"x"), b"x", "{form}");
        let encrypt = ["pkey", "-in", &key, "-aes256", "-passout", "pass:x", "-out", &other];
        // Ed25519 has one form only.
        let forms = if arguments.contains(&"ed25519") { 1 } else { 2 };
        for form in
            [&encrypt[..], &[&encrypt[..], &["-traditional"]].concat()].into_iter().take(forms)
        {
            openssl(form);
            let error = TlsServer::from_pem_files(&chain, &other).err().expect("it is refused");
            assert!(matches!(error, TlsError::EncryptedKey { .. }), "{form:?}: {error}");
        }
    }
}

/// What is said of a server's two files.
fn error_of(chain: &Path, key: &Path) -> TlsError {
    TlsServer::from_pem_files(chain, key).err().expect("it is refused")
}

#[test]
fn files_in_another_form_or_order_are_told() {
    let authority = Authority::new();
    let files = authority.files(&["localhost"]);
    let chain = fs::read_to_string(&files.chain).unwrap();
    let wrong = authority.write("wrong order", authority.certificate.pem() + &chain);
    let error = error_of(&wrong, &files.key);
    assert!(matches!(&error, TlsError::WrongOrder { .. }), "{error}");
    let text = format!(
        "{}: the certificate of the private key in {} has to come first",
        wrong.display(),
        files.key.display()
    );
    assert_eq!(error.to_string(), text);
    let right = authority.write("right order", chain + &authority.certificate.pem());
    TlsServer::from_pem_files(right, &files.key).expect("it is in order");

    let der = authority.write("der", authority.certificate.der());
    for error in [error_of(&der, &files.key), error_of(&files.chain, &der)] {
        let TlsError::Pem { origin, source } = &error else { panic!("{error}") };
        assert_eq!(*origin, Origin::File(der.clone()));
        assert!(source.to_string().contains("perhaps DER"), "{error}");
    }
    let folder = Folder::new();
    let path = folder.join("");
    for error in [error_of(&path, &files.key), error_of(&files.chain, &path)] {
        assert!(matches!(&error, TlsError::File { path: told, .. } if *told == path), "{error}");
    }
}

#[test]
fn certificates_that_clients_will_refuse_are_told_and_used() {
    alone(|| {
        let log = Log::of_the_process();
        let (authority, other) = (Authority::new(), Authority::new());
        let server = |years: [i32; 2]| {
            let (chain, key) = authority.sign_as(&["localhost"], |params| {
                params.not_before = date_time_ymd(years[0], 1, 1);
                params.not_after = date_time_ymd(years[1], 1, 1);
            });
            TlsServer::builder().pem(chain.as_bytes(), key.as_bytes())
        };
        let told = "the certificate is not valid now";
        server([1990, 2500]).build().unwrap();
        assert_eq!(log.text(), "");
        for (count, years) in [[1990, 1991], [2490, 2500]].into_iter().enumerate() {
            server(years).build().unwrap();
            assert_eq!(log.text().matches(told).count(), count + 1, "{}", log.text());
        }
        assert!(log.has("Jan  1 00:00:00 1991"), "{}", log.text());
        let (chain, key) = authority.sign(&["localhost"]);
        let chain = chain + &other.certificate.pem();
        TlsServer::builder().pem(chain.as_bytes(), key.as_bytes()).build().unwrap();
        assert!(log.has("the next certificate is not of its issuer"), "{}", log.text());
    });
}

#[test]
fn what_is_wrong_with_other_files_is_told() {
    let authority = Authority::new();
    let files = authority.files(&["localhost"]);
    let server = || TlsServer::builder().pem_files(&files.chain, &files.key);
    let garbage =
        authority.write("garbage", "-----BEGIN X509 CRL-----\nMAMCAQE=\n-----END X509 CRL-----\n");
    let empty = authority.write("empty", "");
    let names = |error: TlsError, path: &Path| {
        let TlsError::Unusable { origin, .. } = &error else { panic!("{error}") };
        assert_eq!(*origin, Origin::File(path.to_owned()), "{error}");
    };
    let good = authority.write("good", authority.revoke(&[7]));
    for path in [&garbage, &empty] {
        let server = server().require_client_certificates(authority.file());
        let server = server.revoked_client_certificates(&good).revoked_client_certificates(path);
        names(server.build().err().expect("it is refused"), path);
        names(server_with_ocsp(&authority, path).err().expect("it is refused"), path);
    }
    for server in [
        server().revoked_client_certificates(&good),
        TlsServer::builder().ocsp_file(&good).pem_files(&files.chain, &files.key),
    ] {
        let error = server.build().err().expect("it is refused");
        assert!(matches!(&error, TlsError::Settings { .. }), "{error}");
    }
}

fn server_with_ocsp(authority: &Authority, answer: &Path) -> Result<TlsServer, TlsError> {
    let files = authority.files(&["localhost"]);
    TlsServer::builder().pem_files(files.chain, files.key).ocsp_file(answer).build()
}

#[test]
fn a_client_needs_to_know_whom_to_trust() {
    let error = TlsClient::builder().build().err().expect("it trusts nobody");
    assert!(matches!(error, TlsError::NoAuthorities), "{error}");
    let nonsense = TlsClient::builder().authorities(b"nonsense").build();
    let error = nonsense.err().expect("it is refused");
    assert!(matches!(&error, TlsError::NoCertificate { origin: Origin::Bytes }), "{error}");
}
