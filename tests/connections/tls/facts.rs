//! What `Conn::tls` tells, on both sides.

use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};

use millstream::tls::{CertificateNames, TlsClient, TlsServer, TlsVersion};
use millstream::{
    Action, Conn, Connect, ConnectError, Engine, EventHandler, HandshakeError, Listen,
};
use rcgen::{DistinguishedName, DnType, SanType};

use super::authority::{Authority, connect, exchange};
use super::peers::has;
use crate::common::{TestEngine, receive};

/// What a callback can know.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) version: Option<TlsVersion>,
    pub(crate) cipher_suite: Option<&'static str>,
    pub(crate) group: Option<&'static str>,
    pub(crate) server_name: Option<String>,
    pub(crate) alpn: Option<Vec<u8>>,
    pub(crate) certificates: Vec<Vec<u8>>,
    pub(crate) names: Option<CertificateNames>,
    pub(crate) resumed: bool,
}

impl Facts {
    fn of<H: EventHandler>(conn: &Conn<'_, H>) -> Self {
        let tls = conn.tls().expect("it has TLS");
        Facts {
            version: tls.version(),
            cipher_suite: tls.cipher_suite(),
            group: tls.key_exchange_group(),
            server_name: tls.server_name().map(str::to_owned),
            alpn: tls.alpn().map(<[u8]>::to_vec),
            certificates: tls.peer_certificates().map(<[u8]>::to_vec).collect(),
            names: tls.peer_names(),
            resumed: tls.is_resumed(),
        }
    }
}

/// Echoes, and tells the facts.
struct Telling(Sender<Facts>);

impl EventHandler for Telling {
    type State = ();

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let _ = self.0.send(Facts::of(conn));
        Action::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.output.write(conn.input.take_all());
        Action::Continue
    }
}

/// Serves, and tells the facts of each connection.
pub(crate) fn serve(listen: Listen) -> (TestEngine, Receiver<Facts>) {
    let (tell, told) = channel();
    let builder = Engine::builder().reactors(2).listen(listen);
    (TestEngine::start_exactly(builder, move |_| Telling(tell.clone())), told)
}

/// Connects, and returns the facts, or why there are none. A server has to send a byte, behind the
/// tickets that it may have.
pub(crate) fn facts_of(connect: Connect) -> Result<Facts, String> {
    let (tell, told) = channel();
    let engine = TestEngine::start_exactly(Engine::builder().reactors(1), |_| Asking);
    let reactors = engine.reactors::<Asking>().unwrap();
    let connecting = reactors.connect(0, connect, move |_, _, connected| {
        let connected = connected.map(|conn| {
            conn.output.write(b"x");
            *conn.state = Some(tell.clone());
        });
        if let Err(error) = connected {
            let why = match error {
                ConnectError::Handshake { source: HandshakeError::Failed(error), .. } => {
                    format!("{error:?}")
                }
                error => error.to_string(),
            };
            let _ = tell.send(Err(why));
        }
        Action::Continue
    });
    connecting.expect("it tries");
    receive(&told)
}

/// Tells the facts once something comes back.
struct Asking;

impl EventHandler for Asking {
    type State = Option<Sender<Result<Facts, String>>>;

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.input.take_all();
        let facts = Facts::of(conn);
        let tell = conn.state.take().expect("it has asked");
        let _ = tell.send(Ok(facts));
        Action::Close
    }
}

/// A certificate with names of every kind.
fn rich(authority: &Authority) -> (String, String) {
    authority.sign_as(&["a.test", "*.b.test"], |params| {
        let name = &mut params.distinguished_name;
        *name = DistinguishedName::new();
        name.push(DnType::CountryName, "XX");
        name.push(DnType::OrganizationName, "Example, \"quoted\"");
        name.push(DnType::OrganizationalUnitName, "one+two");
        name.push(DnType::CommonName, "#alice ");
        params.subject_alt_names.extend([
            SanType::Rfc822Name("alice@a.test".try_into().unwrap()),
            SanType::URI("spiffe://a.test/alice".try_into().unwrap()),
            SanType::IpAddress([192, 0, 2, 7].into()),
            SanType::IpAddress([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7].into()),
        ]);
    })
}

/// The subject as OpenSSL writes it, which quotes what is not ASCII otherwise.
fn subject_by_openssl(authority: &Authority, chain: &str) -> String {
    let mut openssl = Command::new("openssl");
    openssl.args(["x509", "-noout", "-subject", "-nameopt", "RFC2253", "-in"]);
    let output = openssl.arg(authority.write("rich", chain)).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("it is text");
    text.trim_end_matches('\n').trim_start_matches("subject=").to_owned()
}

#[test]
fn a_server_knows_its_clients() {
    let authority = Authority::new();
    let files = authority.files(&["localhost"]);
    let tls = TlsServer::builder().pem_files(files.chain, files.key).alpn(["one"]);
    let tls = tls.require_client_certificates(authority.file()).build().unwrap();
    let (engine, told) = serve(Listen::from("127.0.0.1:0").tls(&tls));
    let identity = rich(&authority);
    for (version, expected) in [
        (&rustls::version::TLS13, (TlsVersion::Tls13, "TLS13_AES_256_GCM_SHA384")),
        (&rustls::version::TLS12, (TlsVersion::Tls12, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384")),
    ] {
        let mut config = authority.client_with(&[version], &identity);
        config.alpn_protocols = vec![b"two".to_vec(), b"one".to_vec()];
        let mut client = connect(engine.connect(), config, "localhost");
        assert_eq!(exchange(&mut client, b"x"), b"x");
        let facts = receive(&told);
        assert_eq!((facts.version, facts.cipher_suite), (Some(expected.0), Some(expected.1)));
        assert_eq!(facts.group, Some("X25519"));
        assert_eq!(facts.server_name.as_deref(), Some("localhost"));
        assert_eq!(facts.alpn.as_deref(), Some(&b"one"[..]));
        assert!(!facts.resumed);
        assert_eq!(facts.certificates.len(), 1);
        let names = facts.names.expect("it has shown a certificate");
        assert_eq!(names.common_name.as_deref(), Some("#alice "));
        assert_eq!(names.dns_names, ["a.test", "*.b.test"]);
        assert_eq!(names.emails, ["alice@a.test"]);
        assert_eq!(names.uris, ["spiffe://a.test/alice"]);
        let addresses = names.addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(addresses, ["192.0.2.7", "2001:db8::7"]);
        let subject = r#"CN=\#alice\ ,OU=one\+two,O=Example\, \"quoted\",C=XX"#;
        assert_eq!(names.subject, subject);
        if has("openssl") {
            assert_eq!(subject_by_openssl(&authority, &identity.0), subject);
        }
    }
}

#[test]
fn a_client_knows_its_server_and_what_it_shows() {
    let authority = Authority::new();
    let files = authority.files(&["127.0.0.1"]);
    let tls = TlsServer::builder().pem_files(files.chain, files.key).alpn(["one", "two"]);
    let tls = tls.request_client_certificates(authority.file()).build().unwrap();
    let (engine, told) = serve(Listen::from("127.0.0.1:0").tls(&tls));
    let to = || Connect::to(engine.address());
    let builder = || TlsClient::builder().authorities_file(authority.file());

    // The address is the name that is verified, and is not sent.
    let plain = builder().build().unwrap();
    let facts = facts_of(to().tls(&plain)).expect("it is connected");
    assert_eq!(facts.version, Some(TlsVersion::Tls13));
    assert_eq!(facts.names.expect("a server has some").addresses.len(), 1);
    assert_eq!((facts.certificates.len(), facts.resumed, facts.alpn), (1, false, None));
    let seen = receive(&told);
    assert_eq!((seen.server_name, seen.names), (None, None));
    let error = facts_of(to().tls_name(&plain, "127.0.0.2")).expect_err("it is another address");
    assert!(error.contains("NotValidForName"), "{error}");

    let facts = facts_of(to().tls(&plain)).expect("it is connected");
    assert!(facts.resumed && receive(&told).resumed);

    let (chain, key) = authority.sign(&["a client"]);
    let named = builder().pem(chain.as_bytes(), key.as_bytes()).alpn(["two"]);
    let facts = facts_of(to().tls(&named.build().unwrap())).expect("it is connected");
    assert_eq!(facts.alpn.as_deref(), Some(&b"two"[..]));
    assert_eq!(receive(&told).names.expect("it has shown one").dns_names, ["a client"]);

    let error = facts_of(to().tls(&builder().alpn(["three"]).build().unwrap()));
    assert!(
        error.as_ref().is_err_and(|error| error.contains("NoApplicationProtocol")),
        "{error:?}"
    );
}
