//! The example programs over TLS, with certificates of the example `self_signed`.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use rustls::{ClientConnection, StreamOwned};

use super::programs::{Program, connect, much_comes_back_through};
use crate::common::certificate::{Certificate, client_side, self_signed};
use crate::common::example::example;
use crate::common::folder::Folder;
use crate::common::{assert_same, eventually, pattern, read_exactly, read_to_reset};

/// The beginning of a record that is an alert.
const ALERT: u8 = 0x15;

/// Sends all bytes and then our end, while another thread receives up to the server's end. What is
/// received by then is returned, and whether the end was said by TLS.
fn send_and_end(stream: &TcpStream, mut tls: ClientConnection, bytes: &[u8]) -> (Vec<u8>, bool) {
    tls.complete_io(&mut &*stream).expect("the handshake succeeds");
    let tls = Mutex::new(tls);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut sealed = Vec::new();
            for chunk in bytes.chunks(10_000) {
                let mut tls = tls.lock().expect("nobody panics");
                tls.writer().write_all(chunk).expect("it has room");
                tls.write_tls(&mut sealed).expect("there is room");
                drop(tls);
                stream_all(stream, &mut sealed);
            }
            let mut tls = tls.lock().expect("nobody panics");
            tls.send_close_notify();
            while tls.wants_write() {
                tls.write_tls(&mut sealed).expect("there is room");
            }
            drop(tls);
            stream_all(stream, &mut sealed);
        });
        let (mut received, mut sealed) = (Vec::new(), vec![0; 65_536]);
        loop {
            let count = (&*stream).read(&mut sealed).expect("something comes in time");
            let mut tls = tls.lock().expect("nobody panics");
            let mut records = &sealed[..count];
            while !records.is_empty() {
                tls.read_tls(&mut records).expect("it is in memory");
                tls.process_new_packets().expect("it is TLS");
                match tls.reader().read_to_end(&mut received) {
                    Ok(_) => return (received, true),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
            if count == 0 {
                return (received, false);
            }
        }
    })
}

fn stream_all(mut stream: &TcpStream, bytes: &mut Vec<u8>) {
    stream.write_all(bytes).expect("it is sent");
    bytes.clear();
}

#[test]
fn self_signed_writes_two_files_and_replaces_none_unasked() {
    let folder = Folder::new();
    let (cert, key) = (folder.path("cert.pem"), folder.path("key.pem"));
    let files = ["--cert", &cert, "--key", &key];
    let read = || [&cert, &key].map(|path| fs::read_to_string(path).expect("it is there"));
    assert!(self_signed(&files).status.success());
    let mode = fs::metadata(&key).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "only the owner reads the key");
    let before = read();
    assert!(before[0].starts_with("-----BEGIN CERTIFICATE-----"), "{before:?}");
    assert!(before[1].starts_with("-----BEGIN PRIVATE KEY-----"), "{before:?}");
    for missing in [None, Some(&cert)] {
        let left = missing.map(|path| fs::remove_file(path).expect("it is there"));
        let refused = self_signed(&files);
        assert!(!refused.status.success());
        let there = if left.is_some() { &key } else { &cert };
        let expected = format!("self_signed: {there}: it is there; --force replaces it\n");
        assert_eq!(String::from_utf8_lossy(&refused.stderr), expected);
    }
    assert!(!fs::exists(&cert).expect("the folder is there"), "both or none");
    assert_eq!(fs::read_to_string(&key).expect("it is there"), before[1]);
    assert!(self_signed(&[&files[..], &["--force", "server.example"]].concat()).status.success());
    let after = read();
    assert!(after[0] != before[0] && after[1] != before[1]);
    let wrong = self_signed(&["--cert", &cert, "--key", &key, "--force", "ä.example"]);
    assert!(!wrong.status.success());
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("ä.example"));
    assert_eq!(read(), after);
}

/// What is wrong with the files is said, and which; one option needs the other.
#[test]
fn servers_say_what_is_wrong_with_a_certificate() {
    let (certificate, other) = (Certificate::new(), Certificate::new());
    let folder = Folder::new();
    let nowhere = folder.path("nowhere.pem");
    let (cert, key) = (certificate.cert.as_str(), certificate.key.as_str());
    let cases = [
        (vec!["--tls-cert", cert], "--tls-key <FILE>".to_owned()),
        (vec!["--tls-key", key], "--tls-cert <FILE>".to_owned()),
        (vec!["--tls-cert", &nowhere, "--tls-key", key], format!("{nowhere}: No such file")),
        (vec!["--tls-cert", cert, "--tls-key", &nowhere], format!("{nowhere}: No such file")),
        (vec!["--tls-cert", key, "--tls-key", key], format!("{key}: there is no certificate")),
        (vec!["--tls-cert", cert, "--tls-key", cert], format!("{cert}: there is no private key")),
        (
            vec!["--tls-cert", cert, "--tls-key", &other.key],
            format!("{}: the private key", other.key),
        ),
    ];
    for (name, more) in
        [("kv", &[][..]), ("nats", &[]), ("proxy", &["--to", "127.0.0.1:7"]), ("rpc_server", &[])]
    {
        for (options, expected) in &cases {
            let mut command = Command::new(example(name));
            let output =
                command.args(["--listen", "127.0.0.1:0"]).args(more).args(options).output();
            let output = output.expect("cargo has built the example");
            assert!(!output.status.success(), "{name} {options:?}");
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(error.contains(expected), "{name} {options:?}: {error}");
        }
    }
}

/// After a SIGHUP new clients are shown the new certificate, and those before go on.
#[test]
fn servers_read_a_certificate_again_on_a_hangup() {
    let echo = Program::start(&["--listen", "127.0.0.1:0"]).address();
    for (name, more) in
        [("kv", &[][..]), ("nats", &[]), ("proxy", &["--to", &echo]), ("rpc_server", &[])]
    {
        let certificate = Certificate::new();
        let more = [&["--listen", "127.0.0.1:0"], more].concat();
        let mut server = Program::of(name, &certificate.options(&more));
        let address = server.address();
        let shakes_hands = |certificate: &Certificate| {
            let (tls, mut stream) = (client_side(certificate.believed()), connect(&address));
            if name == "nats" {
                while read_exactly(&mut stream, 1) != b"\n" {} // It begins behind INFO.
            }
            let mut client = StreamOwned::new(tls, stream);
            client.conn.complete_io(&mut client.sock).is_ok().then_some(client)
        };
        let before = shakes_hands(&certificate).expect("it is believed");
        certificate.renew();
        assert!(shakes_hands(&certificate).is_none(), "{name} did not wait for the signal");
        server.signal("HUP");
        eventually("the new certificate is shown", || shakes_hands(&certificate).is_some());
        drop(before);
    }
}

/// The echo server and its load, if they were compiled with TLS; if not, that is said.
#[test]
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn the_echo_server_and_its_load_speak_tls() {
    let echo = |arguments: &[&str]| {
        let output = Command::new(example("echo")).args(arguments).output();
        let output = output.expect("cargo has built the example");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("it is text")
    };
    if !echo(&["--help"]).contains("--tls-cert <FILE>") {
        eprintln!("SKIPPED: echo was built without the feature tls of millstream-load");
        return;
    }
    let certificate = Certificate::new();
    let text = echo(&certificate.options(&["--seconds", "1", "--connections", "4"]));
    assert!(text.contains("4 connections over TLS") && text.contains("messages/s"), "{text}");
    for framing in [&[][..], &["--length-field"]] {
        let more = [&["--listen", "127.0.0.1:0"], framing].concat();
        let mut server = Program::start(&certificate.options(&more));
        let address = server.address();
        let (bytes, client) = (pattern(300_000, 1), connect(&address));
        let bytes = [&300_000_u32.to_be_bytes()[..], &bytes].concat();
        let (back, ended) = send_and_end(&client, client_side(certificate.believed()), &bytes);
        assert_same(&back, &bytes);
        assert!(ended, "the end is said, too");
        if framing.is_empty() {
            use_by_openssl(&address, &certificate);
        }
    }
}

/// A line that is sent by OpenSSL, which has to believe the certificate, comes back; without
/// OpenSSL it is said that this is left out.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn use_by_openssl(address: &str, certificate: &Certificate) {
    let mut openssl = Command::new("timeout");
    openssl.args(["60", "openssl", "s_client", "-quiet", "-verify_return_error"]);
    openssl.args(["-servername", "localhost", "-verify_hostname", "localhost"]);
    openssl.args(["-connect", address, "-CAfile", &certificate.cert]);
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!("SKIPPED: openssl is not installed");
        return;
    }
    openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut openssl = openssl.spawn().expect("it runs");
    let input = openssl.stdin.as_mut().expect("it is piped");
    input.write_all(b"hello\n").expect("it reads");
    let output = openssl.stdout.as_mut().expect("it is piped");
    assert_eq!(read_exactly(output, 6), b"hello\n");
    let _ = openssl.kill(); // It may have ended.
    openssl.wait().expect("it ends");
}

/// A proxy in front of a server that knows no TLS: a client that ends its side gets all that comes
/// back, and the end.
#[test]
fn the_proxy_speaks_tls_for_its_upstream() {
    let mut echo = Program::start(&["--listen", "127.0.0.1:0"]);
    let certificate = Certificate::new();
    let to = echo.address();
    let mut proxy =
        Program::of("proxy", &certificate.options(&["--listen", "127.0.0.1:0", "--to", &to]));
    let address = proxy.address();
    for len in [0, 1, 300_000, 5_000_000] {
        let (bytes, client) = (pattern(len, 1), connect(&address));
        let (back, ended) = send_and_end(&client, client_side(certificate.believed()), &bytes);
        assert_same(&back, &bytes);
        assert!(ended, "{len} bytes: the end is said, too");
    }
    let mut plain = connect(&address);
    plain.write_all(b"hello, server\r\n").expect("it is sent");
    assert_eq!(read_exactly(&mut plain, 1), [ALERT]);
}

/// Two proxies with TLS between them, and plain peers at both ends.
#[test]
fn the_proxy_speaks_tls_to_its_upstream() {
    let mut echo = Program::start(&["--listen", "127.0.0.1:0"]);
    let certificate = Certificate::new();
    let any = ["--listen", "127.0.0.1:0", "--to"];
    let to = echo.address();
    let mut far = Program::of("proxy", &certificate.options(&[&any[..], &[&to]].concat()));
    let to = far.address();
    let named = to.replace("127.0.0.1", "localhost");
    let tls = ["--backend-tls", "--backend-ca", &certificate.cert];
    for (to, more) in [(&to, &[][..]), (&named, &[]), (&to, &["--backend-name", "localhost"])] {
        let mut near = Program::of("proxy", &[&any[..], &[to], &tls, more].concat());
        much_comes_back_through(&near.address(), 3);
    }
}

/// A client is turned away if the upstream shows a certificate of somebody else, or for another
/// name, or none.
#[test]
fn the_proxy_believes_no_other_upstream() {
    let mut echo = Program::start(&["--listen", "127.0.0.1:0"]);
    let (certificate, other) = (Certificate::new(), Certificate::new());
    let any = ["--listen", "127.0.0.1:0", "--to"];
    let plain = echo.address();
    let mut far = Program::of("proxy", &certificate.options(&[&any[..], &[&plain]].concat()));
    let to = far.address();
    for (to, authority, name) in [
        (&to, &other, "localhost"),
        (&to, &certificate, "other.example"),
        (&plain, &certificate, "localhost"),
    ] {
        let tls = ["--backend-tls", "--backend-ca", &authority.cert, "--backend-name", name];
        let mut near = Program::of("proxy", &[&any[..], &[to], &tls].concat());
        assert_same(&read_to_reset(&mut near.connect()), b"");
    }
    let output = Command::new(example("proxy")).args(any).args([&to, "--backend-tls"]).output();
    let error = String::from_utf8(output.expect("it runs").stderr).expect("it is text");
    assert!(error.contains("--backend-ca <FILE>"), "{error}");
}

#[test]
fn calls_go_over_tls() {
    let (certificate, other) = (Certificate::new(), Certificate::new());
    let mut server = Program::of("rpc_server", &certificate.options(&["--listen", "127.0.0.1:0"]));
    let address = server.address();
    let call = |more: &[&str]| {
        let mut command = Command::new(example("rpc_client"));
        let output = command.arg(&address).args(["--name", "ali"]).args(more).output();
        let output = output.expect("cargo has built the example");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).expect("it is text"))
    };
    for name in [&[][..], &["--tls-name", "localhost"]] {
        let (called, text) = call(&[&["--tls-ca", &certificate.cert], name].concat());
        assert!(called && text.contains("a call: hello ali, stranger\n"), "{text}");
    }
    for (more, why) in [
        (&["--tls-ca", &other.cert][..], "certificate"),
        (&["--tls-ca", &certificate.cert, "--tls-name", "other.example"], "other.example"),
        (&["--tls-ca", &certificate.key], "there is no certificate"),
        (&[], "UNAVAILABLE"),
    ] {
        let (called, text) = call(more);
        assert!(!called && text.contains(why), "{more:?}: {text}");
    }
}
