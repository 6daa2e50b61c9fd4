//! Transactions: commands that are queued, and then run together on the shard of their keys.

use millstream::codec::FramedConn;
use millstream::codec::resp::{Arguments, Protocol, Replies};
use millstream::{Action, Output, OutputBuffer};

use super::blocking::write_nothing;
use super::{Call, Command, Failure, Outcome, Run, client, find, subcommand};
use crate::server::{Server, replies};
use crate::shards::Copied;
use crate::store::{Millis, Store};

type Conn<'a> = FramedConn<'a, Server>;
type Done = Result<Action, Failure>;

/// With this many bytes of replies, the commands that are left of a transaction are run, but their
/// replies are errors.
const MOST_REPLIES: usize = 128 * 1024 * 1024;

/// The commands between MULTI and EXEC.
#[derive(Default)]
pub struct Transaction {
    pub commands: Vec<Copied>,
    bytes: usize,
    /// The shard that has the keys of all of them.
    shard: Option<usize>,
    /// Something could not be queued, so that nothing is going to be run.
    pub failed: bool,
}

impl Transaction {
    pub fn size(&self) -> usize {
        self.bytes
    }

    /// Runs the commands that are about keys, and writes an array of what they reply.
    pub fn run(&self, store: &mut Store, output: &mut Output<'_>, protocol: Protocol, now: Millis) {
        let on_store = |copied| {
            let mut arguments = Copied::arguments(copied);
            let command = find(arguments.next()?)?;
            match command.run {
                Run::Store(run) | Run::Blocking(run) => Some((command, run, arguments)),
                Run::Connection(_) | Run::Container(_) => None,
            }
        };
        Replies::new(output, protocol).array(self.commands.iter().filter_map(on_store).count());
        for (command, run, arguments) in self.commands.iter().filter_map(on_store) {
            let outcome = if output.pending() > MOST_REPLIES {
                let mut unseen = OutputBuffer::new();
                let mut unseen = unseen.output();
                let replies = Replies::new(&mut unseen, protocol);
                run(store, Call { arguments, replies, now }).and(Err(Failure::ReplyTooLong))
            } else {
                run(store, Call { arguments, replies: Replies::new(output, protocol), now })
            };
            let mut replies = Replies::new(output, protocol);
            match outcome {
                Ok(()) => {}
                Err(Failure::WouldBlock) => write_nothing(command, true, &mut replies),
                Err(failure) => failure.reply(&mut replies),
            }
        }
    }
}

/// Queues a command, if the connection has begun a transaction and this is not one that ends it.
pub fn queue(
    server: &Server,
    conn: &mut Conn<'_>,
    command: &Command,
    arguments: &Arguments<'_>,
) -> Result<bool, Failure> {
    let watching = conn.state.watching;
    let Some(transaction) = &mut conn.state.transaction else { return Ok(false) };
    match command.name {
        "MULTI" | "EXEC" | "DISCARD" | "WATCH" | "QUIT" | "RESET" => return Ok(false),
        "HELLO" | "MONITOR" => {
            return Err(Failure::Other("ERR Command not allowed inside a transaction"));
        }
        _ => {}
    }
    if let Run::Container(subcommands) = command.run {
        let mut arguments = arguments.clone();
        arguments.next();
        subcommand(command, subcommands, &mut arguments)?;
    } else if !matches!(command.run, Run::Connection(_)) {
        let shard =
            server.shards.of_all(command.keys_of(arguments)).ok_or(Failure::SeveralShards)?;
        if transaction.shard.or(watching).is_some_and(|other| other != shard) {
            return Err(Failure::SeveralShards);
        }
        transaction.shard = Some(shard);
    }
    let command = Copied::new(arguments);
    let bytes = transaction.bytes + command.size();
    if bytes > server.max_transaction() {
        return Err(Failure::Other("ERR the transaction would be too long"));
    }
    transaction.bytes = bytes;
    transaction.commands.push(command);
    client::note(conn);
    replies(conn).simple(b"QUEUED");
    Ok(true)
}

pub fn multi(_: &mut Server, conn: &mut Conn<'_>, _: Arguments<'_>) -> Done {
    if conn.state.transaction.is_some() {
        // It goes on all the same.
        replies(conn).error(b"ERR MULTI calls can not be nested");
    } else {
        conn.state.transaction = Some(Transaction::default());
        replies(conn).ok();
    }
    client::note(conn);
    Ok(Action::Continue)
}

pub fn exec(server: &mut Server, conn: &mut Conn<'_>, _: Arguments<'_>) -> Done {
    let Some(transaction) = conn.state.transaction.take() else {
        return Err(Failure::Other("ERR EXEC without MULTI"));
    };
    client::note(conn);
    if transaction.failed {
        forget(server, conn);
        let text = "EXECABORT Transaction discarded because of previous errors.";
        return Err(Failure::Other(text));
    }
    // Without keys, any shard will do.
    let shard = transaction.shard.or(conn.state.watching.take()).unwrap_or(server.shards.own());
    server.run_transaction(conn, shard, transaction);
    Ok(Action::Continue)
}

/// A command has a wrong number of arguments. For EXEC that ends the transaction.
#[cold]
pub fn refuse(server: &mut Server, conn: &mut Conn<'_>, command: &Command) -> Failure {
    let failure = Failure::Arguments(command.name.to_ascii_lowercase());
    if command.name != "EXEC" {
        return failure;
    }
    forget(server, conn);
    let reason = failure.to_string();
    let reason = reason.strip_prefix("ERR ").unwrap_or_default();
    Failure::about("EXECABORT Transaction discarded because of: ", reason.as_bytes(), "")
}

pub fn discard(server: &mut Server, conn: &mut Conn<'_>, _: Arguments<'_>) -> Done {
    if conn.state.transaction.is_none() {
        return Err(Failure::Other("ERR DISCARD without MULTI"));
    }
    forget(server, conn);
    replies(conn).ok();
    Ok(Action::Continue)
}

pub fn watch(server: &mut Server, conn: &mut Conn<'_>, arguments: Arguments<'_>) -> Done {
    if conn.state.transaction.is_some() {
        replies(conn).error(b"ERR WATCH inside MULTI is not allowed");
        return Ok(Action::Continue);
    }
    let shard = server.shards.of_all(arguments.clone()).ok_or(Failure::SeveralShards)?;
    if conn.state.watching.is_some_and(|other| other != shard) {
        return Err(Failure::SeveralShards);
    }
    conn.state.watching = Some(shard);
    server.run_with_id(conn, shard, watch_keys, arguments);
    Ok(Action::Continue)
}

pub fn unwatch(server: &mut Server, conn: &mut Conn<'_>, _: Arguments<'_>) -> Done {
    forget_watch(server, conn);
    replies(conn).ok();
    Ok(Action::Continue)
}

/// Ends a transaction without running it.
pub fn forget(server: &mut Server, conn: &mut Conn<'_>) {
    conn.state.transaction = None;
    client::note(conn);
    forget_watch(server, conn);
}

fn forget_watch(server: &mut Server, conn: &mut Conn<'_>) {
    if let Some(shard) = conn.state.watching.take() {
        server.forget_watch(conn, shard);
    }
}

/// Watches keys for the client whose id comes first.
fn watch_keys(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let client = call.next_integer()?.unsigned_abs();
    if !call.arguments.all(|key| store.watch(client, key, call.now)) {
        return Err(Failure::Other("ERR too many keys are watched"));
    }
    call.replies.ok();
    Ok(())
}
