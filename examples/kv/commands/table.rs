//! The table of the commands.
//!
//! Of each it has: its name, how many arguments it takes, its flags, its keys (the first, the last,
//! the distance between two, and what is done with them), its group, the version of Redis that has
//! it since, hints for clients, a summary, and what runs it.

#[cfg(test)]
use crate::shards::tests;

use super::expiry::At;
use super::lists::End;
use super::sorted_sets::{Query, Side};
use super::{
    Command, Run, blocking, client, connection, expiry, hashes, info, introspection, keys, lists,
    monitor, pubsub, sets, sorted_sets, strings, transactions,
};
use crate::store::List;

macro_rules! commands {
    ($(
        $(#[$attribute:meta])*
        $name:literal $arity:literal [$($flag:ident)*]
        ($first:literal $last:literal $step:literal $($($key_flag:ident)+)|*)
        $group:literal $since:literal [$($tip:literal)*]
        $summary:literal $kind:ident($run:expr);
    )*) => {
        &[$(
            $(#[$attribute])*
            Command {
                name: $name,
                arity: $arity,
                flags: &[$(stringify!($flag)),*],
                keys: ($first, $last, $step),
                key_flags: &[$(&[$(stringify!($key_flag)),+]),*],
                group: $group,
                since: $since,
                tips: &[$($tip),*],
                summary: $summary,
                run: Run::$kind($run),
            }
        ),*]
    };
}

pub static COMMANDS: &[Command] = commands! {
    #[cfg(test)]
    "TESTED" 3 [readonly] (1 1 1 RO) "test" "0.0.0" []
        "Is counted, or panics." Store(tests::tested);
    "GET" 2 [readonly fast] (1 1 1 RO access) "string" "1.0.0" []
        "Returns the text of a key." Store(strings::get);
    "SET" -3 [write denyoom] (1 1 1 RW access update variable_flags) "string" "1.0.0" []
        "Gives a key a text, under conditions and for a time if asked." Store(strings::set);
    "SETNX" 3 [write denyoom fast] (1 1 1 OW insert) "string" "1.0.0" []
        "Gives a key a text unless the key is there." Store(strings::setnx);
    "SETEX" 4 [write denyoom] (1 1 1 OW update) "string" "2.0.0" []
        "Gives a key a text for some seconds."
        Store(|store, call| strings::set_for(store, call, At::Seconds, "setex"));
    "PSETEX" 4 [write denyoom] (1 1 1 OW update) "string" "2.6.0" []
        "Gives a key a text for some milliseconds."
        Store(|store, call| strings::set_for(store, call, At::Millis, "psetex"));
    "GETSET" 3 [write denyoom fast] (1 1 1 RW access update) "string" "1.0.0" []
        "Gives a key a text and returns the one it had." Store(strings::getset);
    "GETDEL" 2 [write fast] (1 1 1 RW access delete) "string" "6.2.0" []
        "Removes a key and returns the text it had." Store(strings::getdel);
    "MGET" -2 [readonly fast] (1 -1 1 RO access) "string" "1.0.0" ["request_policy:multi_shard"]
        "Returns the texts of several keys." Store(strings::mget);
    "MSET" -3 [write denyoom] (1 -1 2 OW update) "string" "1.0.1" ["request_policy:multi_shard" "response_policy:all_succeeded"]
        "Gives several keys a text each." Store(strings::mset);
    "INCR" 2 [write denyoom fast] (1 1 1 RW access update) "string" "1.0.0" []
        "Adds one to a number." Store(strings::incr);
    "DECR" 2 [write denyoom fast] (1 1 1 RW access update) "string" "1.0.0" []
        "Subtracts one from a number." Store(strings::decr);
    "INCRBY" 3 [write denyoom fast] (1 1 1 RW access update) "string" "1.0.0" []
        "Adds to a number." Store(strings::incrby);
    "DECRBY" 3 [write denyoom fast] (1 1 1 RW access update) "string" "1.0.0" []
        "Subtracts from a number." Store(strings::decrby);
    "APPEND" 3 [write denyoom fast] (1 1 1 RW insert) "string" "2.0.0" []
        "Puts text behind that of a key." Store(strings::append);
    "STRLEN" 2 [readonly fast] (1 1 1 RO) "string" "2.2.0" []
        "Returns how long the text of a key is." Store(strings::strlen);
    "DEL" -2 [write] (1 -1 1 RM delete) "generic" "1.0.0" ["request_policy:multi_shard" "response_policy:agg_sum"]
        "Removes keys." Store(keys::del);
    "UNLINK" -2 [write fast] (1 -1 1 RM delete) "generic" "4.0.0" ["request_policy:multi_shard" "response_policy:agg_sum"]
        "Removes keys, whose memory is freed later." Store(keys::del);
    "EXISTS" -2 [readonly fast] (1 -1 1 RO) "generic" "1.0.0" ["request_policy:multi_shard" "response_policy:agg_sum"]
        "Counts those keys that are there." Store(keys::exists);
    "TYPE" 2 [readonly fast] (1 1 1 RO) "generic" "1.0.0" []
        "Returns the type of what a key has." Store(keys::type_);
    "KEYS" 2 [readonly] (0 0 0) "generic" "1.0.0" ["request_policy:all_shards" "nondeterministic_output_order"]
        "Returns all keys that match a pattern." Store(keys::keys);
    "SCAN" -2 [readonly] (0 0 0) "generic" "2.8.0" ["nondeterministic_output" "request_policy:special"]
        "Goes through the keys step by step." Store(keys::scan);
    "RANDOMKEY" 1 [readonly] (0 0 0) "generic" "1.0.0" ["request_policy:all_shards" "nondeterministic_output"]
        "Returns some key." Store(keys::randomkey);
    "DBSIZE" 1 [readonly fast] (0 0 0) "server" "1.0.0" ["request_policy:all_shards" "response_policy:agg_sum"]
        "Counts the keys." Store(keys::dbsize);
    "FLUSHDB" -1 [write] (0 0 0) "server" "1.0.0" ["request_policy:all_shards" "response_policy:all_succeeded"]
        "Removes all keys." Store(keys::flush);
    "FLUSHALL" -1 [write] (0 0 0) "server" "1.0.0" ["request_policy:all_shards" "response_policy:all_succeeded"]
        "Removes all keys." Store(keys::flush);
    "EXPIRE" -3 [write fast] (1 1 1 RW update) "generic" "1.0.0" []
        "Lets a key be gone in some seconds."
        Store(|store, call| expiry::set_deadline(store, call, At::Seconds, "expire"));
    "PEXPIRE" -3 [write fast] (1 1 1 RW update) "generic" "2.6.0" []
        "Lets a key be gone in some milliseconds."
        Store(|store, call| expiry::set_deadline(store, call, At::Millis, "pexpire"));
    "EXPIREAT" -3 [write fast] (1 1 1 RW update) "generic" "1.2.0" []
        "Lets a key be gone at a time in seconds."
        Store(|store, call| expiry::set_deadline(store, call, At::UnixSeconds, "expireat"));
    "PEXPIREAT" -3 [write fast] (1 1 1 RW update) "generic" "2.6.0" []
        "Lets a key be gone at a time in milliseconds."
        Store(|store, call| expiry::set_deadline(store, call, At::UnixMillis, "pexpireat"));
    "TTL" 2 [readonly fast] (1 1 1 RO access) "generic" "1.0.0" ["nondeterministic_output"]
        "Returns in how many seconds a key is gone." Store(expiry::ttl);
    "PTTL" 2 [readonly fast] (1 1 1 RO access) "generic" "2.6.0" ["nondeterministic_output"]
        "Returns in how many milliseconds a key is gone." Store(expiry::pttl);
    "PERSIST" 2 [write fast] (1 1 1 RW update) "generic" "2.2.0" []
        "Lets a key stay." Store(expiry::persist);
    "HSET" -4 [write denyoom fast] (1 1 1 RW update) "hash" "2.0.0" []
        "Gives fields of a hash a value each." Store(hashes::hset);
    "HMSET" -4 [write denyoom fast] (1 1 1 RW update) "hash" "2.0.0" []
        "Gives fields of a hash a value each." Store(hashes::hmset);
    "HGET" 3 [readonly fast] (1 1 1 RO access) "hash" "2.0.0" []
        "Returns the value of a field." Store(hashes::hget);
    "HMGET" -3 [readonly fast] (1 1 1 RO access) "hash" "2.0.0" []
        "Returns the values of several fields." Store(hashes::hmget);
    "HGETALL" 2 [readonly] (1 1 1 RO access) "hash" "2.0.0" ["nondeterministic_output_order"]
        "Returns all fields and values of a hash." Store(hashes::hgetall);
    "HKEYS" 2 [readonly] (1 1 1 RO access) "hash" "2.0.0" ["nondeterministic_output_order"]
        "Returns all fields of a hash." Store(hashes::hkeys);
    "HVALS" 2 [readonly] (1 1 1 RO access) "hash" "2.0.0" ["nondeterministic_output_order"]
        "Returns all values of a hash." Store(hashes::hvals);
    "HDEL" -3 [write fast] (1 1 1 RW delete) "hash" "2.0.0" []
        "Removes fields." Store(hashes::hdel);
    "HLEN" 2 [readonly fast] (1 1 1 RO) "hash" "2.0.0" []
        "Counts the fields of a hash." Store(hashes::hlen);
    "HEXISTS" 3 [readonly fast] (1 1 1 RO) "hash" "2.0.0" []
        "Returns whether a hash has a field." Store(hashes::hexists);
    "HINCRBY" 4 [write denyoom fast] (1 1 1 RW access update) "hash" "2.0.0" []
        "Adds to the number that a field has." Store(hashes::hincrby);
    "LPUSH" -3 [write denyoom fast] (1 1 1 RW insert) "list" "1.0.0" []
        "Puts elements in front of a list."
        Store(|store, call| lists::push(store, call, List::push_front));
    "RPUSH" -3 [write denyoom fast] (1 1 1 RW insert) "list" "1.0.0" []
        "Puts elements behind a list."
        Store(|store, call| lists::push(store, call, List::push_back));
    "LPOP" -2 [write fast] (1 1 1 RW access delete) "list" "1.0.0" []
        "Removes elements from the front of a list and returns them."
        Store(|store, call| lists::pop(store, call, End::Front, "lpop"));
    "RPOP" -2 [write fast] (1 1 1 RW access delete) "list" "1.0.0" []
        "Removes elements from the end of a list and returns them."
        Store(|store, call| lists::pop(store, call, End::Back, "rpop"));
    "LRANGE" 4 [readonly] (1 1 1 RO access) "list" "1.0.0" []
        "Returns the elements between two places." Store(lists::lrange);
    "LLEN" 2 [readonly fast] (1 1 1 RO) "list" "1.0.0" []
        "Counts the elements of a list." Store(lists::llen);
    "LINDEX" 3 [readonly] (1 1 1 RO access) "list" "1.0.0" []
        "Returns the element at a place." Store(lists::lindex);
    "LMOVE" 5 [write denyoom] (1 2 1 RW access delete | RW insert) "list" "6.2.0" []
        "Moves an element from the end of a list to that of another." Store(lists::lmove);
    "RPOPLPUSH" 3 [write denyoom] (1 2 1 RW access delete | RW insert) "list" "1.2.0" []
        "Moves the last element of a list to the front of another." Store(lists::rpoplpush);
    "BLPOP" -3 [write noscript blocking] (1 -2 1 RW access delete) "list" "2.0.0" []
        "Removes the first element of a list, once there is one, and returns it."
        Blocking(|store, call| blocking::pop(store, call, End::Front));
    "BRPOP" -3 [write noscript blocking] (1 -2 1 RW access delete) "list" "2.0.0" []
        "Removes the last element of a list, once there is one, and returns it."
        Blocking(|store, call| blocking::pop(store, call, End::Back));
    "BLMOVE" 6 [write denyoom noscript blocking] (1 2 1 RW access delete | RW insert) "list" "6.2.0" []
        "Moves an element from a list to another, once there is one." Blocking(blocking::blmove);
    "BRPOPLPUSH" 4 [write denyoom noscript blocking] (1 2 1 RW access delete | RW insert) "list" "2.2.0" []
        "Moves the last element of a list to the front of another, once there is one." Blocking(blocking::brpoplpush);
    "BZPOPMIN" -3 [write noscript blocking fast] (1 -2 1 RW access delete) "sorted-set" "5.0.0" []
        "Removes the member with the lowest score, once there is one, and returns it."
        Blocking(|store, call| blocking::pop_scored(store, call, Side::Lowest));
    "BZPOPMAX" -3 [write noscript blocking fast] (1 -2 1 RW access delete) "sorted-set" "5.0.0" []
        "Removes the member with the highest score, once there is one, and returns it."
        Blocking(|store, call| blocking::pop_scored(store, call, Side::Highest));
    "SADD" -3 [write denyoom fast] (1 1 1 RW insert) "set" "1.0.0" []
        "Adds members to a set." Store(sets::sadd);
    "SREM" -3 [write fast] (1 1 1 RW delete) "set" "1.0.0" []
        "Removes members from a set." Store(sets::srem);
    "SMEMBERS" 2 [readonly] (1 1 1 RO access) "set" "1.0.0" ["nondeterministic_output_order"]
        "Returns all members of a set." Store(sets::smembers);
    "SISMEMBER" 3 [readonly fast] (1 1 1 RO) "set" "1.0.0" []
        "Returns whether a set has a member." Store(sets::sismember);
    "SMISMEMBER" -3 [readonly fast] (1 1 1 RO access) "set" "6.2.0" []
        "Returns which of several members a set has." Store(sets::smismember);
    "SCARD" 2 [readonly fast] (1 1 1 RO) "set" "1.0.0" []
        "Counts the members of a set." Store(sets::scard);
    "SPOP" -2 [write fast] (1 1 1 RW access delete) "set" "1.0.0" ["nondeterministic_output"]
        "Removes members of a set at random and returns them." Store(sets::spop);
    "ZADD" -4 [write denyoom fast] (1 1 1 RW update) "sorted-set" "1.2.0" []
        "Gives members of a sorted set a score each." Store(sorted_sets::zadd);
    "ZINCRBY" 4 [write denyoom fast] (1 1 1 RW access update) "sorted-set" "1.2.0" []
        "Adds to the score of a member." Store(sorted_sets::zincrby);
    "ZREM" -3 [write fast] (1 1 1 RW delete) "sorted-set" "1.2.0" []
        "Removes members from a sorted set." Store(sorted_sets::zrem);
    "ZCARD" 2 [readonly fast] (1 1 1 RO) "sorted-set" "1.2.0" []
        "Counts the members of a sorted set." Store(sorted_sets::zcard);
    "ZSCORE" 3 [readonly fast] (1 1 1 RO access) "sorted-set" "1.2.0" []
        "Returns the score of a member." Store(sorted_sets::zscore);
    "ZMSCORE" -3 [readonly fast] (1 1 1 RO access) "sorted-set" "6.2.0" []
        "Returns the scores of several members." Store(sorted_sets::zmscore);
    "ZRANK" 3 [readonly fast] (1 1 1 RO access) "sorted-set" "2.0.0" []
        "Returns how many members are in front of one."
        Store(|store, call| sorted_sets::rank(store, call, Side::Lowest));
    "ZREVRANK" 3 [readonly fast] (1 1 1 RO access) "sorted-set" "2.0.0" []
        "Returns how many members are behind one."
        Store(|store, call| sorted_sets::rank(store, call, Side::Highest));
    "ZCOUNT" 4 [readonly fast] (1 1 1 RO access) "sorted-set" "2.0.0" []
        "Counts the members with some scores." Store(sorted_sets::zcount);
    "ZRANGE" -4 [readonly] (1 1 1 RO access) "sorted-set" "1.2.0" []
        "Returns the members between two places or scores."
        Store(|store, call| sorted_sets::range(store, call, Query { has_options: true, ..Query::ALL }));
    "ZREVRANGE" -4 [readonly] (1 1 1 RO access) "sorted-set" "1.2.0" []
        "Returns the members between two places, from the end on."
        Store(|store, call| sorted_sets::range(store, call, Query { reverse: true, ..Query::ALL }));
    "ZRANGEBYSCORE" -4 [readonly] (1 1 1 RO access) "sorted-set" "1.0.5" []
        "Returns the members between two scores."
        Store(|store, call| sorted_sets::range(store, call, Query { by_score: true, ..Query::ALL }));
    "ZREVRANGEBYSCORE" -4 [readonly] (1 1 1 RO access) "sorted-set" "2.2.0" []
        "Returns the members between two scores, the highest first."
        Store(|store, call| sorted_sets::range(store, call, Query { by_score: true, reverse: true, ..Query::ALL }));
    "ZPOPMIN" -2 [write fast] (1 1 1 RW access delete) "sorted-set" "5.0.0" []
        "Removes the members with the lowest scores and returns them."
        Store(|store, call| sorted_sets::pop(store, call, Side::Lowest));
    "ZPOPMAX" -2 [write fast] (1 1 1 RW access delete) "sorted-set" "5.0.0" []
        "Removes the members with the highest scores and returns them."
        Store(|store, call| sorted_sets::pop(store, call, Side::Highest));
    "MULTI" 1 [noscript loading stale fast allow_busy] (0 0 0) "transactions" "1.2.0" []
        "Begins a transaction." Connection(transactions::multi);
    "EXEC" 1 [noscript loading stale skip_slowlog] (0 0 0) "transactions" "1.2.0" []
        "Runs a transaction." Connection(transactions::exec);
    "DISCARD" 1 [noscript loading stale fast allow_busy] (0 0 0) "transactions" "2.0.0" []
        "Ends a transaction without running it." Connection(transactions::discard);
    "WATCH" -2 [noscript loading stale fast allow_busy] (1 -1 1 RO) "transactions" "2.2.0" []
        "Watches keys, so that a transaction is not run if they change." Connection(transactions::watch);
    "UNWATCH" 1 [noscript loading stale fast allow_busy] (0 0 0) "transactions" "2.2.0" []
        "Watches no keys any more." Connection(transactions::unwatch);
    "PUBLISH" 3 [pubsub loading stale fast] (0 0 0) "pubsub" "2.0.0" []
        "Sends a message to all that listen to a channel." Connection(pubsub::publish);
    "SUBSCRIBE" -2 [pubsub noscript loading stale] (0 0 0) "pubsub" "2.0.0" []
        "Listens to channels." Connection(pubsub::subscribe);
    "UNSUBSCRIBE" -1 [pubsub noscript loading stale] (0 0 0) "pubsub" "2.0.0" []
        "Ends listening to channels." Connection(pubsub::unsubscribe);
    "PSUBSCRIBE" -2 [pubsub noscript loading stale] (0 0 0) "pubsub" "2.0.0" []
        "Listens to the channels that match a pattern." Connection(pubsub::psubscribe);
    "PUNSUBSCRIBE" -1 [pubsub noscript loading stale] (0 0 0) "pubsub" "2.0.0" []
        "Ends listening to patterns." Connection(pubsub::punsubscribe);
    "PING" -1 [fast] (0 0 0) "connection" "1.0.0" ["request_policy:all_shards" "response_policy:all_succeeded"]
        "Replies, so that one knows that the server lives." Connection(connection::ping);
    "ECHO" 2 [loading stale fast] (0 0 0) "connection" "1.0.0" []
        "Returns what it is given." Connection(connection::echo);
    "HELLO" -1 [noscript loading stale fast no_auth allow_busy] (0 0 0) "connection" "6.0.0" []
        "Chooses the version of the protocol." Connection(connection::hello);
    "AUTH" -2 [noscript loading stale fast no_auth allow_busy] (0 0 0) "connection" "1.0.0" []
        "Says who the client is." Connection(connection::auth);
    "CLIENT" -2 [] (0 0 0) "connection" "2.4.0" []
        "A container of commands about clients." Container(CLIENT);
    "SELECT" 2 [loading stale fast] (0 0 0) "connection" "1.0.0" []
        "Chooses a database, of which there is one." Connection(connection::select);
    "RESET" 1 [noscript loading stale fast no_auth allow_busy] (0 0 0) "connection" "6.2.0" []
        "Makes a connection what it was at first." Connection(connection::reset);
    "QUIT" -1 [noscript loading stale fast no_auth allow_busy] (0 0 0) "connection" "1.0.0" []
        "Closes the connection." Connection(connection::quit);
    "INFO" -1 [loading stale] (0 0 0) "server" "1.0.0" ["nondeterministic_output" "request_policy:all_shards" "response_policy:special"]
        "Returns figures about the server." Connection(info::info);
    "COMMAND" -1 [loading stale] (0 0 0) "server" "2.8.13" ["nondeterministic_output_order"]
        "Returns facts about commands." Container(COMMAND);
    "CONFIG" -2 [] (0 0 0) "server" "2.0.0" []
        "A container of commands about the configuration." Container(CONFIG);
    "PUBSUB" -2 [] (0 0 0) "pubsub" "2.8.0" []
        "A container of commands about channels." Container(PUBSUB);
    "MONITOR" 1 [admin noscript loading stale] (0 0 0) "server" "1.0.0" []
        "Shows all commands of all clients as they come." Connection(monitor::monitor);
};

pub const CLIENT: &[Command] = commands! {
    "ID" 2 [noscript loading stale] (0 0 0) "connection" "5.0.0" []
        "Returns the id of the connection." Connection(client::id);
    "GETNAME" 2 [noscript loading stale] (0 0 0) "connection" "2.6.9" []
        "Returns the name of the connection." Connection(client::getname);
    "SETNAME" 3 [noscript loading stale] (0 0 0) "connection" "2.6.9" []
        "Gives the connection a name." Connection(client::setname);
    "INFO" 2 [noscript loading stale] (0 0 0) "connection" "6.2.0" ["nondeterministic_output"]
        "Returns facts about the connection." Connection(client::info);
    "LIST" -2 [admin noscript loading stale] (0 0 0) "connection" "2.4.0" ["nondeterministic_output"]
        "Returns facts about connections: all, or those with a TYPE, or with an ID." Connection(client::list);
    "KILL" -3 [admin noscript loading stale] (0 0 0) "connection" "2.4.0" []
        "Closes connections: by address, or by ID, ADDR, LADDR, TYPE, USER and SKIPME." Connection(client::kill);
    "UNBLOCK" -3 [admin noscript loading stale] (0 0 0) "connection" "5.0.0" []
        "Ends the wait of a client." Connection(client::unblock);
    "NO-EVICT" 3 [admin noscript loading stale] (0 0 0) "connection" "7.0.0" []
        "Is accepted: nothing is ever evicted." Connection(client::switch);
    "GETREDIR" 2 [noscript loading stale] (0 0 0) "connection" "6.0.0" []
        "Returns -1: there is no tracking." Connection(client::getredir);
    "SETINFO" 4 [noscript loading stale] (0 0 0) "connection" "7.2.0" []
        "Says what library the client is." Connection(client::setinfo);
    "NO-TOUCH" 3 [noscript loading stale] (0 0 0) "connection" "7.2.0" []
        "Is accepted: nothing is ever evicted." Connection(client::switch);
    "HELP" 2 [loading stale] (0 0 0) "connection" "5.0.0" []
        "Prints this." Connection(client::help);
};

pub const COMMAND: &[Command] = commands! {
    "COUNT" 2 [loading stale] (0 0 0) "server" "2.8.13" []
        "Counts the commands." Connection(introspection::count);
    "INFO" -2 [loading stale] (0 0 0) "server" "2.8.13" ["nondeterministic_output_order"]
        "Returns the facts that clients need of commands." Connection(introspection::info);
    "DOCS" -2 [loading stale] (0 0 0) "server" "7.0.0" ["nondeterministic_output_order"]
        "Returns what people need to know of commands." Connection(introspection::docs);
    "LIST" -2 [loading stale] (0 0 0) "server" "7.0.0" ["nondeterministic_output_order"]
        "Returns the names of commands, also of those with a PATTERN or an ACLCAT." Connection(introspection::list);
    "GETKEYS" -4 [loading stale] (0 0 0) "server" "2.8.13" []
        "Returns the keys in a command." Connection(introspection::getkeys);
    "HELP" 2 [loading stale] (0 0 0) "server" "5.0.0" []
        "Prints this." Connection(introspection::help);
};

pub const CONFIG: &[Command] = commands! {
    "GET" -3 [admin noscript loading stale] (0 0 0) "server" "2.0.0" []
        "Returns settings whose names match patterns." Connection(connection::config_get);
    "HELP" 2 [loading stale] (0 0 0) "server" "5.0.0" []
        "Prints this." Connection(connection::config_help);
};

pub const PUBSUB: &[Command] = commands! {
    "CHANNELS" -2 [pubsub loading stale] (0 0 0) "pubsub" "2.8.0" []
        "Returns the channels to which somebody listens, also by pattern." Connection(pubsub::channels);
    "NUMSUB" -2 [pubsub loading stale] (0 0 0) "pubsub" "2.8.0" []
        "Counts the listeners of channels." Connection(pubsub::numsub);
    "NUMPAT" 2 [pubsub loading stale] (0 0 0) "pubsub" "2.8.0" []
        "Counts the patterns to which somebody listens." Connection(pubsub::numpat);
    "HELP" 2 [loading stale] (0 0 0) "pubsub" "6.2.0" []
        "Prints this." Connection(pubsub::help);
};
