//! Commands that fail, and a stop while commands are on their way, over sockets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use millstream::Engine;
use millstream::codec::Framed;

use super::Shards;
use crate::commands::{Call, Outcome};
use crate::server::Server;
use crate::store::Store;

const DEADLINE: Duration = Duration::from_secs(20);
const REACTORS: usize = 3;

static DONE: AtomicUsize = AtomicUsize::new(0);

/// A command that counts how often it was done, or panics in the middle of its reply.
pub fn tested(_: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    if call.arguments.nth(1) == Some(b"panic") {
        call.replies.array(2);
        panic!("expected: the command panics");
    }
    DONE.fetch_add(1, Ordering::Relaxed);
    call.replies.ok();
    Ok(())
}

fn start() -> (Engine, TcpStream) {
    let engine = Engine::builder()
        .listen("127.0.0.1:0")
        .reactors(REACTORS)
        .start(|reactor| Framed::new(Server::new(1024, Shards::new(reactor, REACTORS, REACTORS))))
        .expect("it starts");
    let client = TcpStream::connect(engine.local_addrs()[0]).expect("it accepts");
    client.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
    (engine, client)
}

/// Lines until the end; all replies here have one.
fn lines(mut client: TcpStream) -> Vec<String> {
    let mut text = String::new();
    client.read_to_string(&mut text).expect("it ends in time");
    text.lines().map(str::to_string).collect()
}

/// The first of these keys whose shard is not on the reactor of a client.
fn elsewhere(client: &mut TcpStream) -> String {
    let shards = Shards::new(0, REACTORS, REACTORS);
    client.write_all(b"CLIENT ID\r\n").expect("it reads");
    let mut reply = [0; 4];
    client.read_exact(&mut reply).expect("it answers");
    let own = usize::from(reply[1] - b'1') % REACTORS;
    let mut keys = (0..).map(|n| format!("key{n}"));
    keys.find(|key| shards.of(key.as_bytes()) != own).expect("some key is elsewhere")
}

/// The commands around one that panics on another reactor get their own replies, and it gets an
/// error.
#[test]
fn a_panic_elsewhere_is_answered() {
    let (engine, mut client) = start();
    let key = elsewhere(&mut client);
    for _ in 0..3 {
        let commands =
            format!("SET {key} a\r\nTESTED {key} panic\r\nPING\r\nSTRLEN {key}\r\nPING\r\n");
        client.write_all(commands.as_bytes()).expect("it reads");
    }
    client.write_all(b"QUIT\r\n").expect("it reads");
    let lines = lines(client);
    assert_eq!(lines.len(), 16, "{lines:?}");
    for replies in lines.chunks_exact(5) {
        assert!(replies[0] == "+OK" || replies[0].starts_with("-ERR aborted"), "{lines:?}");
        assert!(replies[1].starts_with("-ERR aborted"), "{lines:?}");
        assert_eq!(replies[2..], ["+PONG", ":1", "+PONG"], "{lines:?}");
    }
    engine.stop(DEADLINE).expect("it runs");
    engine.wait().expect("it ends well");
}

/// A command that was done is answered, also if the server stops meanwhile.
#[test]
fn a_stop_waits_for_replies() {
    for round in 0..20 {
        let (engine, mut client) = start();
        let key = elsewhere(&mut client);
        let before = DONE.load(Ordering::Relaxed);
        let commands = format!("TESTED {key} count\r\n").repeat(2_000);
        client.write_all(commands.as_bytes()).expect("it reads");
        let began = Instant::now();
        while DONE.load(Ordering::Relaxed) == before {
            assert!(began.elapsed() < DEADLINE, "nothing is done");
            std::thread::yield_now();
        }
        engine.stop(DEADLINE).expect("it runs");
        let replies = lines(client).into_iter().filter(|line| line == "+OK").count();
        engine.wait().expect("it ends well");
        let done = DONE.load(Ordering::Relaxed) - before;
        assert_eq!(replies, done, "round {round}");
    }
}

/// Who waits when the server stops is told so, and then gets its end.
#[test]
fn a_stop_ends_every_wait() {
    let (engine, first) = start();
    let connect = |_| TcpStream::connect(engine.local_addrs()[0]).expect("it accepts");
    let mut clients: Vec<TcpStream> = (0..5).map(connect).collect();
    clients.push(first);
    for (n, client) in clients.iter_mut().enumerate() {
        client.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
        client.write_all(format!("PING\r\nBLPOP key{n} 0\r\n").as_bytes()).expect("it reads");
        let mut reply = [0; 7];
        client.read_exact(&mut reply).expect("it answers");
        assert_eq!(&reply, b"+PONG\r\n", "what came with it was run, too");
    }
    engine.stop(DEADLINE).expect("it runs");
    for client in clients {
        assert_eq!(lines(client), ["*-1"]);
    }
    engine.wait().expect("it ends well");
}
