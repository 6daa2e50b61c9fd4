//! Outgoing connections.

use std::sync::mpsc::{Sender, channel};

use millstream::tls::{TlsClient, TlsServer};
use millstream::{
    Action, CloseReason, Conn, Connect, ConnectError, Engine, EventHandler, HandshakeError,
};

use super::authority::Authority;
use super::server::start;
use crate::common::{TestEngine, pattern, receive};

/// Sends what it is given, and tells what comes back.
pub(crate) struct Client {
    pub(crate) tell: Sender<Vec<u8>>,
    pub(crate) back: Vec<u8>,
    pub(crate) expects: usize,
}

impl EventHandler for Client {
    type State = ();

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        assert!(conn.tls().is_some_and(|tls| tls.peer_certificates().len() == 1));
        Action::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.back.extend_from_slice(conn.input.take_all());
        if self.back.len() < self.expects {
            return Action::Continue;
        }
        let _ = self.tell.send(std::mem::take(&mut self.back));
        Action::Close
    }

    fn on_close(&mut self, _conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        assert!(matches!(reason, CloseReason::Local), "{reason}");
    }
}

#[test]
fn a_connection_is_made_and_others_are_refused() {
    let (authority, other) = (Authority::new(), Authority::new());
    let files = authority.files(&["localhost"]);
    let (server, _told) = start(&TlsServer::from_pem_files(files.chain, files.key).unwrap());
    let port = server.address().port();
    let bytes = pattern(200_000, 3);
    let (tell, back) = channel();
    let expects = bytes.len();
    let engine = Engine::builder().reactors(1);
    let engine = TestEngine::start_exactly(engine, move |_| Client {
        tell: tell.clone(),
        back: Vec::new(),
        expects,
    });
    let reactors = engine.reactors::<Client>().unwrap();
    let trusting = TlsClient::builder().authorities_file(authority.file()).build().unwrap();
    let stranger = TlsClient::builder().authorities_file(other.file()).build().unwrap();
    let careless = TlsClient::builder().dangerously_trust_everyone().build().unwrap();
    let to = || Connect::to_host("localhost", port);
    for connect in [to().tls(&trusting), to().tls_name(&careless, "who.knows")] {
        let bytes = bytes.clone();
        reactors
            .connect(0, connect, move |_, _, connected| {
                connected.unwrap().output.write_bytes(bytes);
                Action::Continue
            })
            .unwrap();
        assert_eq!(receive(&back).len(), expects);
    }
    let wrong = [
        (to().tls(&stranger), "UnknownIssuer"),
        (to().tls_name(&trusting, "other.name"), "NotValidForName"),
        (to().tls_name(&trusting, "no name at all"), "is no name of a server"),
    ];
    for (connect, why) in wrong {
        let (tell, told) = channel();
        reactors
            .connect(0, connect, move |_, _, connected| {
                let _ = tell.send(connected.err());
                Action::Continue
            })
            .unwrap();
        match receive(&told) {
            Some(ConnectError::Handshake { source: HandshakeError::Failed(error), .. }) => {
                assert!(
                    error.to_string().contains(why) || format!("{error:?}").contains(why),
                    "{error:?}"
                );
            }
            other => panic!("{why}: {other:?}"),
        }
    }
}
