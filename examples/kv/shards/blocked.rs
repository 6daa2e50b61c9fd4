//! Clients that wait until a key has something for them.
//!
//! A client waits where the key is, first come, first served. That shard alone decides whether a
//! client gets an element or its time is over: what would end a wait is carried there behind the
//! command that waits, and comes too late if that has its reply already.

use std::collections::BTreeMap;

use foldhash::quality::RandomState;
use hashbrown::HashMap;
use millstream::codec::FramedConn;
use millstream::codec::resp::{Arguments, Replies};
use millstream::{Action, ConnId, OutputBuffer};

use super::queue::{Copied, Gather};
use super::request::{Request, Unblock, Work};
use crate::commands::blocking::{awaited_type, timeout, write_nothing};
use crate::commands::{Command, Failure, OnStore, client};
use crate::encoded::Encoded;
use crate::server::Server;
use crate::store::{Bytes, Entry, Millis, Store};

/// The type of what somebody waits for, and its key.
type Awaited = (&'static str, Bytes);

/// The clients that wait for keys of this reactor.
#[derive(Default)]
pub struct Blocked {
    clients: HashMap<ConnId, Parked, RandomState>,
    /// Who waits for a key, in order.
    keys: HashMap<Awaited, BTreeMap<u64, ConnId>, RandomState>,
    /// How many have waited so far.
    ever: u64,
}

/// A command that waits.
struct Parked {
    request: Request,
    /// The id that the client knows.
    client: u64,
    number: u64,
    keys: Vec<Awaited>,
}

impl Blocked {
    /// How many wait. Who is gone does not, although its command is here for a moment longer.
    pub fn len(&self) -> usize {
        self.present().count()
    }

    fn present(&self) -> impl Iterator<Item = &Parked> {
        self.clients.values().filter(|parked| parked.request.from.is_open())
    }

    /// Lets a client wait for the first of these keys.
    pub fn park(&mut self, request: Request, client: u64, keys: Vec<Awaited>, store: &mut Store) {
        let (id, number) = (request.from.id(), self.ever);
        self.ever += 1;
        for awaited in &keys {
            store.await_key(&awaited.1);
            self.keys.entry(awaited.clone()).or_default().insert(number, id);
        }
        self.clients.insert(id, Parked { request, client, number, keys });
    }

    /// Who has waited longest for a key.
    fn first(&self, awaited: &Awaited) -> Option<ConnId> {
        self.keys.get(awaited)?.values().next().copied()
    }

    /// The client that knows itself by this id, if it waits.
    pub fn with_id(&self, client: u64) -> Option<ConnId> {
        let parked = self.present().find(|parked| parked.client == client)?;
        Some(parked.request.from.id())
    }

    /// Takes the command of a client, which waits no more.
    pub fn take(&mut self, id: ConnId, store: &mut Store) -> Option<Request> {
        let Parked { request, number, keys, .. } = self.clients.remove(&id)?;
        for awaited in keys {
            if let Some(clients) = self.keys.get_mut(&awaited) {
                clients.remove(&number);
                if clients.is_empty() {
                    self.keys.remove(&awaited);
                }
            }
            store.stop_awaiting(&awaited.1);
        }
        Some(request)
    }

    /// Forgets those that are gone.
    pub fn sweep(&mut self, store: &mut Store) {
        let is_gone = |parked: &&Parked| !parked.request.from.is_open();
        let gone = self.clients.values().filter(is_gone).map(|parked| parked.request.from.id());
        for id in gone.collect::<Vec<ConnId>>() {
            drop(self.take(id, store));
        }
    }
}

impl Server {
    /// Runs a command that waits, for as long as it says, if there is nothing to take.
    pub fn run_blocking(
        &mut self,
        conn: &mut FramedConn<'_, Self>,
        command: &'static Command,
        run: OnStore,
        arguments: &Arguments<'_>,
    ) -> Result<Action, Failure> {
        let shard = self.shards.of_all(command.keys_of(arguments));
        let shard = shard.ok_or(Failure::SeveralShards)?;
        let work =
            Work::Block { command, run, copied: Copied::new(arguments), client: conn.state.id };
        self.scatter(conn, vec![(shard, work)], Gather::Block);
        if conn.state.queue.ending {
            self.unblock(conn, Unblock::Time); // Nobody is there to wait.
        }
        if let (true, Some(timeout)) =
            (conn.state.queue.blocking_shard().is_some(), timeout(arguments))
        {
            conn.state.queue.timer = Some(conn.set_timer(timeout, 0));
        }
        client::note(conn);
        Ok(Action::Continue)
    }

    /// Ends the wait of a connection, unless it is about to get its reply.
    pub fn unblock(&mut self, conn: &mut FramedConn<'_, Self>, why: Unblock) {
        let Some(shard) = conn.state.queue.blocking_shard() else { return };
        if shard == self.shards.own {
            return self.end_wait(conn.id(), why);
        }
        self.carry_unanswered(conn, shard, Work::Unblock(why));
    }

    /// Lets a command wait for its keys.
    pub fn park(&mut self, request: Request) {
        let Work::Block { command, copied, client, .. } = &request.work else { return };
        let kind = awaited_type(command);
        let keys = command.keys_of(&copied.arguments()).map(|key| (kind, key.into()));
        let keys = if command.keys.1 > 1 { keys.take(1).collect() } else { keys.collect() };
        let client = *client;
        self.shards.blocked.park(request, client, keys, &mut self.store);
    }

    /// Gives what came to keys to those that wait for them, who came first before others.
    #[cold]
    pub fn serve_blocked(&mut self, now: Millis) {
        while let Some(key) = self.store.take_changed() {
            let mut awaited: Awaited = ("", key);
            while let Some(kind) = self.store.get(&awaited.1, now).map(Entry::type_name)
                && let Some(id) = {
                    awaited.0 = kind;
                    self.shards.blocked.first(&awaited)
                }
                && let Some(mut request) = self.shards.blocked.take(id, &mut self.store)
            {
                // Who is gone gets nothing, and does not take it from others.
                if request.from.is_open()
                    && let Some(reply) = self.retry(&request, &awaited.1, now)
                {
                    request.answer(reply);
                }
            }
        }
    }

    /// Runs a command that waited, for one of its keys.
    fn retry(&mut self, request: &Request, key: &[u8], now: Millis) -> Option<Encoded> {
        let Work::Block { command, run, copied, .. } = &request.work else { return None };
        let several = command.keys.1 < 0;
        let copied = if several { Copied::of(&[b"", key, b"0"]) } else { copied.clone() };
        self.run_on_store(*run, copied.arguments(), request.protocol, now)
    }

    /// Ends the wait of the client with this id; returns whether it waited here.
    pub fn end_wait_of(&mut self, client: u64, why: Unblock) -> bool {
        let waits = self.shards.blocked.with_id(client);
        waits.into_iter().for_each(|conn| self.end_wait(conn, why));
        waits.is_some()
    }

    /// Ends a wait that is not over.
    pub fn end_wait(&mut self, id: ConnId, why: Unblock) {
        let Some(mut request) = self.shards.blocked.take(id, &mut self.store) else { return };
        let Work::Block { command, .. } = request.work else { return };
        let mut buffer = OutputBuffer::new();
        let mut output = buffer.output();
        let mut replies = Replies::new(&mut output, request.protocol);
        match why {
            Unblock::Time => write_nothing(command, false, &mut replies),
            Unblock::Error => replies.error(b"UNBLOCKED client unblocked via CLIENT UNBLOCK"),
        }
        request.answer(Encoded::take(&mut buffer));
    }
}
