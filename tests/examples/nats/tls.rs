//! TLS, which begins when the server has said by INFO that it has to; compared with nats-server.

use std::io::{Read, Write};

use super::client::{Client, text};
use super::programs::Server;
use crate::common::eventually;
use crate::common::tls::TLS;
use crate::common::wire::{self, Place, Wire};

/// A record that is an alert: its kind, the version, its length, and which alert it is.
const ALERT: usize = 7;

/// What a client is sent in plain bytes behind INFO that sends these.
fn told_plainly(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let place = Place { wire: Wire::Plain, ..server.address };
    let mut client = Client::silent(place);
    assert!(client.info.contains("\"tls_required\":true"), "{}", client.info);
    let _ = client.stream.write_all(bytes); // It may be closed by then.
    let mut told = Vec::new();
    let _ = client.stream.read_to_end(&mut told); // By an end or by a reset.
    told
}

/// nats-server closes the connection without a word; ours tells by TLS' alert what it is about.
#[test]
fn who_does_not_speak_tls_is_cut_off_as_by_nats_server() {
    let (mut ours, theirs) = (Server::ours(&[TLS]), Server::theirs(&[TLS]));
    let mut bystander = Client::connect(ours.address);
    assert_eq!(bystander.ask("SUB a 1\r\n"), "");
    let plain: [&[u8]; 4] = [
        b"CONNECT {}\r\nPING\r\n",
        b"PUB a 4\r\nevil\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        &[0; 100],
    ];
    for bytes in plain {
        let told = told_plainly(&ours, bytes);
        assert!(told.len() == ALERT && told[0] == 0x15, "{}: {}", text(bytes), text(&told));
        if let Some(theirs) = &theirs {
            assert_eq!(text(&told_plainly(theirs, bytes)), "", "{}", text(bytes));
        }
    }
    eventually("they are gone", || ours.counted().contains("connections: 1 of 5,"));
    assert_eq!(bystander.flush(), "", "nobody has published");
}

/// What somebody has put plainly before a client's handshake breaks that, with both servers.
#[test]
fn nothing_plain_gets_into_an_encrypted_connection() {
    for server in [Some(Server::ours(&[TLS])), Server::theirs(&[TLS])].iter().flatten() {
        let mut bystander = Client::connect(server.address);
        assert_eq!(bystander.ask("SUB a 1\r\n"), "");
        let place = Place { wire: Wire::Plain, ..server.address };
        let client = Client::silent(place);
        let mut socket = client.stream.socket().try_clone().expect("it is open");
        socket.write_all(b"CONNECT {}\r\nPUB a 4\r\nevil\r\n").expect("it is sent");
        assert!(wire::Client::try_new(socket, server.address.wire.client()).is_err());
        assert_eq!(bystander.flush(), "", "nobody has published");
    }
}

/// A server without TLS does not say that it has any.
#[test]
fn a_server_without_tls_asks_for_none() {
    let server = Server::ours(&[]);
    let client = Client::silent(server.address);
    assert!(!client.info.contains("tls"), "{}", client.info);
}
