//! CLIENT: what can be known about connections, and done with them.

use std::cell::{Cell, RefCell};
use std::iter;
use std::rc::Rc;

use foldhash::quality::RandomState;
use hashbrown::HashSet;
use millstream::codec::resp::{Arguments, Protocol, Replies, Reply, parse_integer};
use millstream::codec::{Framed, FramedConn};
use millstream::{Action, Address, Remote};

use super::size::Size;
use super::table::CLIENT;
use super::{COMMANDS, Call, Command, Failure, Outcome, next, next_integer, write_help};
use crate::encoded::Encoded;
use crate::server::{Server, protocol, read_or_pause, replies};
use crate::shards::{Gather, Unblock};
use crate::store::{Bytes, Millis};

type Conn<'a> = FramedConn<'a, Server>;
type Done = Result<Action, Failure>;

/// What others may know about a connection, which keeps it up to date.
pub struct Client {
    pub id: u64,
    pub remote: Remote<Framed<Server>>,
    address: Address,
    local: Option<Address>,
    opened: Millis,
    pub name: RefCell<Bytes>,
    /// When it sent a command, and which.
    pub last: Cell<Millis>,
    pub command: Cell<&'static Command>,
    pub is_monitor: Cell<bool>,
    pub is_resp3: Cell<bool>,
    /// It waits for a key.
    pub is_blocked: Cell<bool>,
    /// How many channels and how many patterns it listens to.
    pub subscriptions: Cell<[usize; 2]>,
    /// How many commands it has queued, if it has begun a transaction.
    pub queued: Cell<Option<usize>>,
}

impl Client {
    pub fn new(id: u64, conn: &mut Conn<'_>, now: Millis) -> Self {
        Client {
            id,
            remote: conn.remote(),
            address: conn.peer_addr(),
            local: conn.local_addr().ok(),
            opened: now,
            name: RefCell::default(),
            last: Cell::new(now),
            command: Cell::new(&COMMANDS[0]),
            is_monitor: Cell::default(),
            is_resp3: Cell::default(),
            is_blocked: Cell::default(),
            subscriptions: Cell::default(),
            queued: Cell::default(),
        }
    }

    fn local(&self) -> String {
        self.local.as_ref().map(Address::to_string).unwrap_or_default()
    }

    fn type_name(&self) -> &'static str {
        if self.subscriptions.get() == [0, 0] { "normal" } else { "pubsub" }
    }

    /// In Redis' letters: what it is.
    fn flags(&self) -> String {
        let flags = [
            ('O', self.is_monitor.get()),
            ('P', self.type_name() == "pubsub"),
            ('x', self.queued.get().is_some()),
            ('b', self.is_blocked.get()),
        ];
        let flags: String =
            flags.iter().filter(|(_, is_so)| *is_so).map(|(flag, _)| flag).collect();
        if flags.is_empty() { "N".to_owned() } else { flags }
    }

    fn line(&self, now: Millis) -> String {
        let seconds = |since: Millis| now.saturating_sub(since).max(0) / 1000;
        let [channels, patterns] = self.subscriptions.get();
        format!(
            "id={} addr={} laddr={} name={} age={} idle={} flags={} db=0 sub={channels} psub={patterns} \
             ssub=0 multi={} events=r cmd={} user=default redir=-1 resp={}\n",
            self.id,
            self.address,
            self.local(),
            String::from_utf8_lossy(&self.name.borrow()),
            seconds(self.opened),
            seconds(self.last.get()),
            self.flags(),
            self.queued.get().map_or(-1, |count| i64::try_from(count).unwrap_or(i64::MAX)),
            self.command.get().name.to_ascii_lowercase(),
            if self.is_resp3.get() { 3 } else { 2 },
        )
    }
}

/// Brings up to date what others may know.
pub fn note(conn: &mut Conn<'_>) {
    let is_resp3 = protocol(conn) == Protocol::Resp3;
    let state = &mut conn.state;
    state.is_special = state.transaction.is_some() || state.subscriptions.len() > 0;
    if let Some(client) = &state.client {
        client.is_resp3.set(is_resp3);
        client.is_blocked.set(state.queue.blocking_shard().is_some());
        client.subscriptions.set(state.subscriptions.counts());
        client.queued.set(state.transaction.as_ref().map(|queued| queued.commands.len()));
    }
}

pub fn help(_: &mut Server, conn: &mut Conn<'_>, _: Arguments<'_>) -> Done {
    write_help(&mut replies(conn), "CLIENT", CLIENT);
    Ok(Action::Continue)
}

pub fn id(_: &mut Server, conn: &mut Conn<'_>, _: Arguments<'_>) -> Done {
    let id = conn.state.id.try_into().unwrap_or(i64::MAX);
    replies(conn).integer(id);
    Ok(Action::Continue)
}

pub fn getname(_: &mut Server, conn: &mut Conn<'_>, _: Arguments<'_>) -> Done {
    let client = conn.state.client.clone();
    let name = client.map(|client| client.name.borrow().clone()).filter(|name| !name.is_empty());
    replies(conn).bulk_or_null(name.as_deref());
    Ok(Action::Continue)
}

/// A name that a connection may have.
pub fn checked_name(name: &[u8]) -> Result<&[u8], Failure> {
    let text = "ERR Client names cannot contain spaces, newlines or special characters.";
    let good = name.iter().all(|byte| (b'!'..=b'~').contains(byte));
    if good { Ok(name) } else { Err(Failure::Other(text)) }
}

pub fn setname(_: &mut Server, conn: &mut Conn<'_>, mut arguments: Arguments<'_>) -> Done {
    let name = checked_name(next(&mut arguments)?)?;
    conn.state.client.iter().for_each(|client| *client.name.borrow_mut() = name.into());
    replies(conn).ok();
    Ok(Action::Continue)
}

pub fn setinfo(_: &mut Server, conn: &mut Conn<'_>, mut arguments: Arguments<'_>) -> Done {
    let option = next(&mut arguments)?.to_ascii_uppercase();
    if !matches!(option.as_slice(), b"LIB-NAME" | b"LIB-VER") {
        return Err(Failure::Syntax);
    }
    checked_name(next(&mut arguments)?)?;
    replies(conn).ok();
    Ok(Action::Continue)
}

/// For NO-EVICT and NO-TOUCH: nothing is ever evicted.
pub fn switch(_: &mut Server, conn: &mut Conn<'_>, mut arguments: Arguments<'_>) -> Done {
    match next(&mut arguments)?.to_ascii_lowercase().as_slice() {
        b"on" | b"off" => replies(conn).ok(),
        _ => return Err(Failure::Syntax),
    }
    Ok(Action::Continue)
}

pub fn getredir(_: &mut Server, conn: &mut Conn<'_>, _: Arguments<'_>) -> Done {
    replies(conn).integer(-1);
    Ok(Action::Continue)
}

pub fn info(server: &mut Server, conn: &mut Conn<'_>, _: Arguments<'_>) -> Done {
    note(conn);
    let (client, now) = (conn.state.client.clone(), server.clock.at(conn.now()));
    let line = client.map(|client| client.line(now)).unwrap_or_default();
    replies(conn).verbatim(*b"txt", line.as_bytes());
    Ok(Action::Continue)
}

/// Which clients are listed, or closed.
#[derive(Default)]
struct Filter {
    ids: Option<HashSet<u64, RandomState>>,
    address: Option<Bytes>,
    local: Option<Bytes>,
    kind: Option<Vec<u8>>,
    /// Not this one, which asks.
    skipped: Option<u64>,
}

fn checked_id(id: i64, wrong: &'static str) -> Result<u64, Failure> {
    u64::try_from(id).ok().filter(|id| *id > 0).ok_or(Failure::Other(wrong))
}

impl Filter {
    fn set_kind(&mut self, kind: &[u8]) -> Outcome {
        let known = ["normal", "master", "replica", "slave", "pubsub"];
        let kind = kind.to_ascii_lowercase();
        if !known.iter().any(|known| known.as_bytes() == kind) {
            return Err(Failure::about("ERR Unknown client type '", &kind, "'"));
        }
        self.kind = Some(kind);
        Ok(())
    }

    /// What CLIENT LIST is told.
    fn of_list(mut arguments: Arguments<'_>) -> Result<Self, Failure> {
        let mut filter = Filter::default();
        match arguments.next().map(<[u8]>::to_ascii_uppercase).as_deref() {
            None => {}
            Some(b"TYPE") if arguments.len() == 1 => filter.set_kind(next(&mut arguments)?)?,
            Some(b"ID") if arguments.len() > 0 => {
                let id =
                    |text| checked_id(parse_integer(text).unwrap_or(0), "ERR Invalid client ID");
                filter.ids = Some(arguments.map(id).collect::<Result<_, Failure>>()?);
            }
            _ => return Err(Failure::Syntax),
        }
        Ok(filter)
    }

    /// What CLIENT KILL is told by the client with the id that comes first.
    fn of_kill(mut arguments: Arguments<'_>) -> Result<Self, Failure> {
        let own = next_integer(&mut arguments)?.unsigned_abs();
        if arguments.len() == 1 {
            let address = Some(next(&mut arguments)?.into());
            return Ok(Filter { address, ..Filter::default() });
        }
        let mut filter = Filter { skipped: Some(own), ..Filter::default() };
        if !arguments.len().is_multiple_of(2) {
            return Err(Failure::Syntax);
        }
        while let (Some(option), Some(value)) = (arguments.next(), arguments.clone().next()) {
            match option.to_ascii_uppercase().as_slice() {
                b"ID" => {
                    // Of several the last counts, as for all other options.
                    let id = parse_integer(value).unwrap_or(0);
                    let id = checked_id(id, "ERR client-id should be greater than 0")?;
                    filter.ids = Some(iter::once(id).collect());
                }
                b"ADDR" => filter.address = Some(value.into()),
                b"LADDR" => filter.local = Some(value.into()),
                b"TYPE" => filter.set_kind(value)?,
                b"USER" if value == b"default" => {}
                b"USER" => return Err(Failure::about("ERR No such user '", value, "'")),
                b"SKIPME" => match value.to_ascii_lowercase().as_slice() {
                    b"yes" => filter.skipped = Some(own),
                    b"no" => filter.skipped = None,
                    _ => return Err(Failure::Syntax),
                },
                _ => return Err(Failure::Syntax),
            }
            arguments.next();
        }
        Ok(filter)
    }

    fn has(&self, client: &Client) -> bool {
        let is = |wanted: &Option<Bytes>, text: &dyn Fn() -> String| {
            wanted.as_ref().is_none_or(|wanted| **wanted == *text().as_bytes())
        };
        let kind = client.type_name().as_bytes();
        self.ids.as_ref().is_none_or(|ids| ids.contains(&client.id))
            && is(&self.address, &|| client.address.to_string())
            && is(&self.local, &|| client.local())
            && self.kind.as_ref().is_none_or(|wanted| wanted == kind)
            && self.skipped != Some(client.id)
    }

    /// The clients of a reactor that are meant, in order.
    fn of<'s>(&self, server: &'s Server) -> Vec<&'s Rc<Client>> {
        let mut clients: Vec<_> =
            server.clients.values().filter(|client| self.has(client)).collect();
        clients.sort_unstable_by_key(|client| client.id);
        clients
    }
}

pub fn list(server: &mut Server, conn: &mut Conn<'_>, arguments: Arguments<'_>) -> Done {
    note(conn);
    Filter::of_list(arguments.clone())?;
    let gather = |told: Vec<Encoded>, replies: &mut Replies<'_, '_>| {
        let mut lines: Vec<&[u8]> = Vec::new();
        for reply in &told {
            if let Some((Reply::Bulk(text), _)) = Reply::split_first(reply.first()) {
                lines.extend(text.split_inclusive(|byte| *byte == b'\n'));
            }
        }
        lines.sort_by_key(|line| (line.iter().position(|byte| *byte == b' '), *line));
        replies.verbatim(*b"txt", &lines.concat());
    };
    server.ask_everywhere(conn, list_own, &arguments.into(), Gather::By(Box::new(gather)));
    Ok(Action::Continue)
}

/// Lists clients of this reactor.
fn list_own(server: &mut Server, mut call: Call<'_, '_>) -> Outcome {
    let clients = Filter::of_list(call.arguments)?.of(server);
    let lines: Vec<Bytes> = clients
        .into_iter()
        .map(|client| client.line(call.now))
        .map(|line| line.into_bytes().into())
        .collect();
    Size::check_copied(lines.iter())?;
    call.replies.bulk(&lines.concat());
    Ok(())
}

pub fn kill(server: &mut Server, conn: &mut Conn<'_>, arguments: Arguments<'_>) -> Done {
    let by_address = arguments.len() == 1;
    let all = server.with_id(conn, arguments);
    Filter::of_kill(all.arguments())?;
    let gather = move |told: Vec<Encoded>, replies: &mut Replies<'_, '_>| {
        let counts = told.iter().map(|reply| match Reply::split_first(reply.first()) {
            Some((Reply::Integer(count), _)) => count,
            _ => 0,
        });
        match (by_address, counts.sum()) {
            (true, 0) => replies.error(b"ERR No such client"),
            (true, _) => replies.ok(),
            (false, count) => replies.integer(count),
        }
    };
    server.ask_everywhere(conn, kill_own, &all, Gather::By(Box::new(gather)));
    if server.killed.contains(&conn.id()) {
        conn.state.queue.ending = true; // It has its reply before.
        read_or_pause(conn);
        // It is open.
        let _ = conn.remote().run(|server, conn| server.end(conn));
    }
    Ok(Action::Continue)
}

/// Kills clients of this reactor: they count as gone when they have been told to close, not only
/// when they are. The one that asks closes when it has its reply.
fn kill_own(server: &mut Server, mut call: Call<'_, '_>) -> Outcome {
    let filter = Filter::of_kill(call.arguments.clone())?;
    let own = call.next_integer()?.unsigned_abs();
    let clients: Vec<Rc<Client>> = filter.of(server).into_iter().cloned().collect();
    call.replies.count(clients.len());
    for client in clients {
        let id = client.remote.id();
        server.clients.remove(&id);
        server.subscribers.remove_everywhere(id);
        server.killed.insert(id);
        if client.id != own {
            // From here on it is not open for other reactors either, which give it nothing. Who is
            // closing by call.now is going to be closed.
            let _ = client.remote.close_now();
        }
    }
    server.note_alert();
    Ok(())
}

pub fn unblock(server: &mut Server, conn: &mut Conn<'_>, mut arguments: Arguments<'_>) -> Done {
    let all = arguments.clone();
    next_integer(&mut arguments)?;
    match arguments.next().unwrap_or(b"TIMEOUT").to_ascii_uppercase().as_slice() {
        b"TIMEOUT" | b"ERROR" => {}
        _ => return Err(Failure::Other("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")),
    }
    server.ask_everywhere(conn, unblock_own, &all.into(), Gather::Sum);
    Ok(Action::Continue)
}

/// Ends the wait of a client whose command is parked on this reactor.
fn unblock_own(server: &mut Server, mut call: Call<'_, '_>) -> Outcome {
    let id = call.next_integer()?.unsigned_abs();
    let is_error = call.arguments.next().is_some_and(|why| why.eq_ignore_ascii_case(b"ERROR"));
    let why = if is_error { Unblock::Error } else { Unblock::Time };
    call.replies.integer(server.end_wait_of(id, why).into());
    Ok(())
}
