//! A proxy: what clients send to it goes to a server, by a separate socket for each client, and
//! back.

use std::collections::HashMap;
use std::thread;

use millstream::{
    Action, Address, Conn, Datagram, DatagramId, DatagramRemote, DatagramSocket, Engine,
    EventHandler, OpenDatagram,
};

use crate::client::Peer;
use crate::common::{TestEngine, modes, pattern};

struct Proxy {
    server: Address,
    /// Of each client the socket that stands for it.
    sockets: HashMap<Address, DatagramRemote<Self>>,
    /// Whom such a socket stands for, and where it was heard.
    clients: HashMap<DatagramId, (Address, DatagramRemote<Self>)>,
}

impl EventHandler for Proxy {
    const TAKES_DATAGRAMS: bool = true;

    type State = ();

    fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        unreachable!("there are no connections")
    }

    fn on_datagram(
        &mut self,
        socket: &mut DatagramSocket<'_, Self>,
        datagram: Datagram<'_>,
    ) -> Action {
        let bytes = datagram.bytes.to_vec();
        if let Some((client, front)) = self.clients.get(&socket.id()) {
            return front.send_to(client, bytes).into();
        }
        if let Some(back) = self.sockets.get(&datagram.from) {
            return back.send(bytes).into();
        }
        let (client, front) = (datagram.from, socket.remote());
        let how = OpenDatagram::to(self.server);
        let reactor = socket.id().reactor();
        let opened = socket.reactors().open_datagram(reactor, how, move |proxy, _, back| {
            let back = back.expect("it can be opened");
            proxy.clients.insert(back.id(), (client, front));
            proxy.sockets.insert(client, back.remote());
            back.send(&bytes).into()
        });
        opened.into()
    }
}

#[test]
fn a_proxy_hands_datagrams_on_in_both_directions() {
    let builder = Engine::builder().reactors(1).listen("udp://127.0.0.1:0");
    let server = TestEngine::echo(builder);
    for (mode, builder) in modes() {
        let to = server.listeners()[0].local_addr();
        let proxy = TestEngine::start(builder.listen("udp://127.0.0.1:0"), move |_| Proxy {
            server: to,
            sockets: HashMap::new(),
            clients: HashMap::new(),
        });
        let address = proxy.listeners()[0].local_addr();
        thread::scope(|scope| {
            for client in 0..10 {
                let mode = &mode;
                scope.spawn(move || {
                    let peer = Peer::like(&address);
                    for round in 0..20 {
                        let bytes = pattern(1024, client * 1000 + round);
                        assert!(peer.exchange(&address, &bytes) == bytes, "{mode}");
                    }
                });
            }
        });
        let sockets: usize = proxy.stats().reactors.iter().map(|r| r.datagram_sockets).sum();
        assert!(sockets >= 11, "{mode}: one for each client, and those that listen: {sockets}");
    }
}
