//! Clients that trust whom the system trusts.

use std::env;
use std::ffi::OsStr;
use std::fs;

use millstream::Connect;
use millstream::tls::{TlsClient, TlsError, TlsServer};

use super::authority::Authority;
use super::facts::facts_of;
use super::server::start;
use crate::common::alone::alone_with;
use crate::common::folder::Folder;

/// The system's are those that the environment names.
#[test]
fn a_client_trusts_whom_the_system_trusts() {
    let authority = Authority::new();
    let (files, file) = (authority.files(&["localhost"]), authority.file());
    let variables = [
        ("SSL_CERT_FILE", file.as_os_str()),
        ("SSL_CERT_DIR", OsStr::new("")),
        ("CHAIN", files.chain.as_os_str()),
        ("KEY", files.key.as_os_str()),
    ];
    alone_with(&variables, || {
        let client = TlsClient::builder().system_authorities().build().unwrap();
        let path = |name| env::var_os(name).expect("it is set");
        let (engine, _told) =
            start(&TlsServer::from_pem_files(path("CHAIN"), path("KEY")).unwrap());
        let to = |port| Connect::to_host("localhost", port).tls(&client);
        facts_of(to(engine.address().port())).expect("it is trusted");
        let other = Authority::new();
        let files = other.files(&["localhost"]);
        let (engine, _told) = start(&TlsServer::from_pem_files(files.chain, files.key).unwrap());
        let error = facts_of(to(engine.address().port())).expect_err("it is a stranger");
        assert!(error.contains("UnknownIssuer"), "{error}");
    });
}

#[test]
fn a_system_that_trusts_nobody_is_told() {
    let folder = Folder::new();
    fs::write(folder.join("empty"), "").unwrap();
    let empty = folder.join("empty");
    let variables = [("SSL_CERT_FILE", empty.as_os_str()), ("SSL_CERT_DIR", OsStr::new(""))];
    alone_with(&variables, || {
        let authority = Authority::new();
        for builder in [
            TlsClient::builder().system_authorities(),
            TlsClient::builder().system_authorities().authorities_file(authority.file()),
        ] {
            let error = builder.build().err().expect("nobody is trusted");
            assert!(matches!(&error, TlsError::SystemAuthorities { .. }), "{error}");
        }
    });
}
