//! Certificates of clients: which ones are let in.

use std::io::{Read, Write};

use millstream::tls::TlsServer;
use rcgen::{SerialNumber, date_time_ymd};

use super::authority::{Authority, connect};
use super::server::start;
use crate::common::TestEngine;

/// Whether the server lets in a client that shows this.
fn lets_in(engine: &TestEngine, authority: &Authority, identity: &(String, String)) -> bool {
    let config = authority.client_with(rustls::DEFAULT_VERSIONS, identity);
    let mut client = connect(engine.connect(), config, "localhost");
    client.write_all(b"x").and_then(|()| client.read_exact(&mut [0])).is_ok()
}

#[test]
fn those_that_are_revoked_are_not_and_a_reload_takes_a_new_list() {
    let authority = Authority::new();
    let [one, two] = [1, 2].map(|number| {
        authority.sign_as(&["a client"], |params| {
            params.serial_number = Some(SerialNumber::from(number));
        })
    });
    let list = authority.write("list", authority.revoke(&[1]));
    let files = authority.files(&["localhost"]);
    let tls = TlsServer::builder().pem_files(files.chain, files.key);
    let tls = tls.require_client_certificates(authority.file());
    let tls = tls.revoked_client_certificates(&list).build().unwrap();
    let (engine, _told) = start(&tls);
    let lets_in = |identity| lets_in(&engine, &authority, identity);
    assert!(!lets_in(&one) && lets_in(&two));
    authority.write("list", authority.revoke(&[2]));
    tls.reload().unwrap();
    assert!(lets_in(&one) && !lets_in(&two));
    authority.write("list", "");
    tls.reload().expect_err("there is no list in it");
    assert!(lets_in(&one) && !lets_in(&two));
}

#[test]
fn those_that_are_over_or_not_yet_valid_are_not() {
    let authority = Authority::new();
    let files = authority.files(&["localhost"]);
    let tls = TlsServer::builder().pem_files(files.chain, files.key);
    let tls = tls.request_client_certificates(authority.file()).build().unwrap();
    let (engine, _told) = start(&tls);
    for (years, expected) in [([1990, 1991], false), ([2490, 2500], false), ([1990, 2500], true)] {
        let identity = authority.sign_as(&["a client"], |params| {
            params.not_before = date_time_ymd(years[0], 1, 1);
            params.not_after = date_time_ymd(years[1], 1, 1);
        });
        assert_eq!(lets_in(&engine, &authority, &identity), expected, "{years:?}");
    }
}
