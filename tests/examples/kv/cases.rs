//! Cases that are written by hand, after what Redis' documentation says of its commands. The same
//! commands to Redis and to ours must give the same replies.

use super::client::{encode, text};
use super::programs::Server;
use super::together::Clients;

/// For each unit, scripts: a script begins with no keys. In front of a command is the number of the
/// client that sends it, if that is not 0. Keys have a tag, so that they are on one shard.
const CASES: [(&str, &[&str]); 10] = [
    (
        "strings",
        &[
            "SET k hello; GET k; GETSET k world; GET k; STRLEN k; APPEND k !; GET k; GETDEL k; GET k; STRLEN k",
            "SET k v NX; SET k w NX; GET k; SET k w XX; GET k; SET n w XX; GET n; SET k x GET; SET n x GET; GET n",
            "SETNX k a; SETNX k b; GET k; MSET k 1 n 2 k 3; MGET k n missing; MSET k 1 n",
            "SET k 10; INCR k; INCRBY k 5; DECR k; DECRBY k 20; GET k; INCR n; GET n; SET k ten; INCR k; INCRBY n x",
            "SET k 9223372036854775807; INCR k; DECRBY k -1; SET k -9223372036854775808; DECR k; GET k",
            "SET k ' 1'; SET k 01; INCR k; SET k 1; APPEND k 2; INCR k; SET k +1; INCR k; SET k -0; INCR k",
            "SET k v EX 100; TTL k; SET k v KEEPTTL; TTL k; SET k v; TTL k; SETEX k 0 v; PSETEX k -1 v; SET k v EX 0",
            "SET k v EX 10 PX 10; SET k v NX XX; SET k v EX; SET k v FOO; GET; SET k; GETSET k",
            "RPUSH l a; GET l; STRLEN l; APPEND l x; INCR l; GETSET l x; GETDEL l; MGET l k; SET l now; GET l; SET k v GET",
        ],
    ),
    (
        "lists",
        &[
            "RPUSH l a b c; LPUSH l x y; LRANGE l 0 -1; LLEN l; LINDEX l 0; LINDEX l -1; LINDEX l 9; LINDEX l -9; LINDEX l x",
            "RPUSH l a b c d e; LRANGE l 1 2; LRANGE l -2 -1; LRANGE l 3 1; LRANGE l -100 100; LRANGE l 5 9; LRANGE n 0 -1",
            "RPUSH l a b c d; LPOP l; RPOP l; LPOP l 0; LPOP l 5; LPOP l; LPOP l 1; EXISTS l; RPOP n 2; LPOP l -1; LPOP l x",
            "RPUSH l a b c; LMOVE l m LEFT RIGHT; LMOVE l m RIGHT LEFT; LRANGE l 0 -1; LRANGE m 0 -1; LMOVE n m LEFT LEFT",
            "RPUSH l a b c; RPOPLPUSH l l; LRANGE l 0 -1; LMOVE l l LEFT RIGHT; LRANGE l 0 -1; LMOVE l l LEFT LEFT; LRANGE l 0 -1",
            "RPUSH l a; RPOPLPUSH l m; EXISTS l; LRANGE m 0 -1; RPOPLPUSH l m; LMOVE l m UP DOWN; LMOVE l m LEFT",
            "SET s v; LPUSH s a; RPOP s; LLEN s; LINDEX s 0; LRANGE s 0 -1; RPUSH l a; LMOVE l s LEFT LEFT; LLEN l; RPOPLPUSH s l",
            "RPUSH l; LLEN; LRANGE l 0; LRANGE l a b; LPOP l 1 2",
        ],
    ),
    (
        "sets",
        &[
            "SADD s a b a; SCARD s; SADD s b c; SISMEMBER s a; SISMEMBER s x; SMISMEMBER s a x c; SREM s a x; SCARD s; SREM s b c",
            "EXISTS s; SCARD s; SMEMBERS s; SISMEMBER s a; SMISMEMBER s a b; SREM s a; SPOP s; SPOP s 3; SPOP s 0; SPOP s -1; SPOP s x",
            "SADD s only; SPOP s; EXISTS s; SADD s only; SPOP s 5; EXISTS s; SADD s only; SPOP s 0; SCARD s; SPOP s 1 2",
            "SET k v; SADD k a; SREM k a; SCARD k; SISMEMBER k a; SMEMBERS k; SPOP k; SPOP k 1; SADD s; SMISMEMBER s",
        ],
    ),
    (
        "hashes",
        &[
            "HSET h a 1 b 2; HSET h a 3 c 4; HGET h a; HGET h x; HMGET h a x c; HLEN h; HEXISTS h a; HEXISTS h x; HDEL h a x; HLEN h",
            "HSET h a 1; HKEYS h; HVALS h; HGETALL h; HDEL h a; EXISTS h; HGETALL h; HKEYS n; HVALS n; HMGET n a; HDEL n a; HLEN n",
            "HINCRBY h n 5; HINCRBY h n -7; HGET h n; HSET h t text; HINCRBY h t 1; HINCRBY h n x; HSET h m 9223372036854775807; HINCRBY h m 1",
            "HMSET h a 1 b 2; HMSET h a; HSET h a; HSET h a 1 b; SET k v; HSET k a 1; HGET k a; HGETALL k; HINCRBY k a 1; HDEL k a; HLEN k",
        ],
    ),
    (
        "sorted sets",
        &[
            "ZADD z 1 a 2 b 3 c; ZADD z 5 a; ZRANGE z 0 -1; ZRANGE z 0 -1 WITHSCORES; ZCARD z; ZSCORE z a; ZSCORE z x; ZMSCORE z a x b",
            "ZADD z 1 b 1 a 1 c; ZRANGE z 0 -1; ZREVRANGE z 0 -1; ZRANK z b; ZREVRANK z a; ZRANK z x; ZADD z 0 c; ZRANGE z 0 -1 WITHSCORES",
            "ZADD z NX 1 a; ZADD z NX 2 a 3 b; ZADD z XX 9 a 9 x; ZADD z CH 10 a 1 n; ZADD z GT 5 a; ZADD z GT CH 20 a; ZADD z LT CH 30 a 1 m; ZRANGE z 0 -1 WITHSCORES",
            "ZADD z INCR 1.5 a; ZADD z INCR 1.5 a; ZADD z NX INCR 1 a; ZADD z XX INCR 1 x; ZINCRBY z -10 a; ZINCRBY z 0.1 b; ZINCRBY z x b; ZADD z INCR 1 a 2 b",
            "ZADD z inf a -inf b 0 c; ZRANGE z 0 -1 WITHSCORES; ZINCRBY z -inf a; ZADD z nan d; ZRANGEBYSCORE z -inf +inf; ZRANGEBYSCORE z (-inf (inf; ZCOUNT z -inf (0",
            "ZADD z 1 a 2 b 3 c 4 d; ZRANGEBYSCORE z 2 3; ZRANGEBYSCORE z (2 3 WITHSCORES; ZRANGEBYSCORE z -inf inf LIMIT 1 2; ZREVRANGEBYSCORE z 3 (1; ZRANGEBYSCORE z 3 2; ZRANGEBYSCORE z a b",
            "ZADD z 1 a 2 b 3 c 4 d; ZRANGE z 1 2; ZRANGE z -2 -1 REV; ZRANGE z (1 3 BYSCORE; ZRANGE z 3 (1 BYSCORE REV LIMIT 0 1 WITHSCORES; ZRANGE z 0 1 LIMIT 0 1; ZRANGE z 9 12; ZRANGE z 2 1",
            "ZADD z 1 a 2 b 3 c 4 d 5 e; ZPOPMIN z; ZPOPMAX z; ZPOPMIN z 2; ZPOPMAX z 9; EXISTS z; ZPOPMIN z; ZPOPMIN z 2; ZPOPMAX z -1; ZPOPMIN z x; ZPOPMIN z 1 2",
            "ZADD z 1 a; ZREM z x; ZREM z a a; EXISTS z; SET k v; ZADD k 1 a; ZSCORE k a; ZRANGE k 0 -1; ZPOPMIN k; ZCARD k; ZRANK k a; ZADD z 1; ZADD z a 1; ZADD z NX XX 1 a; ZADD z GT LT 1 a",
            "ZADD z 3.0 a 1e2 b 0.1 c 100000000000000000000 d 1e-7 e -0.5 f; ZRANGE z 0 -1 WITHSCORES; ZSCORE z d; ZSCORE z e; ZINCRBY z 0.2 c",
        ],
    ),
    (
        "keys",
        &[
            "SET k v; TYPE k; RPUSH l a; TYPE l; SADD s a; TYPE s; HSET h a 1; TYPE h; ZADD z 1 a; TYPE z; TYPE none; EXISTS k l none k; DEL k none; UNLINK l s; EXISTS k l",
            "SET k v; EXPIRE k 100; TTL k; PERSIST k; TTL k; PERSIST k; EXPIRE none 1; TTL none; PTTL none; EXPIRE k 100 NX; EXPIRE k 200 NX; EXPIRE k 300 XX; EXPIRE k 200 GT; EXPIRE k 200 LT; TTL k",
            "SET k v; EXPIRE k 0; EXISTS k; SET k v; EXPIRE k -1; EXISTS k; SET k v; EXPIREAT k 1; EXISTS k; SET k v; PEXPIREAT k 99999999999999; TTL none; EXPIRE k x; EXPIRE k 1 FOO; EXPIRE k 1 NX XX; EXPIRE k 1 GT LT",
            "SET k v; EXPIRE k 9223372036854775807; PEXPIRE k 9223372036854775807; EXPIREAT k 9223372036854775807; EXPIRE k",
        ],
    ),
    (
        "transactions",
        &[
            "MULTI; SET k 1; INCR k; GET k; EXEC; GET k; EXEC; DISCARD; MULTI; SET k 9; DISCARD; GET k; EXEC",
            "MULTI; INCR k; LPOP k; INCR k; EXEC; GET k; MULTI; NOSUCH k; SET k 9; EXEC; GET k; MULTI; GET; EXEC; MULTI; MULTI; WATCH k; EXEC",
            "WATCH k; 1:SET k 1; MULTI; SET n 1; EXEC; GET n; MULTI; SET n 1; EXEC; WATCH k n; 1:GET k; MULTI; EXEC; WATCH k; SET k 2; MULTI; GET k; EXEC",
            "WATCH k; 1:SET k 1; UNWATCH; MULTI; PING; EXEC; WATCH k; 1:SET k 2; MULTI; DISCARD; MULTI; PING; EXEC; WATCH k; 1:SET k 2; EXEC; MULTI; PING; EXEC",
            "SET k v; WATCH k; 1:EXPIRE k 0; MULTI; PING; EXEC; WATCH k; 1:DEL k; MULTI; PING; EXEC; SET k v; WATCH k; 1:PERSIST k; MULTI; PING; EXEC; WATCH k; 1:FLUSHALL; MULTI; PING; EXEC; WATCH k; 1:FLUSHALL; MULTI; PING; EXEC",
            "SADD s a; WATCH s; 1:SADD s a; MULTI; PING; EXEC; WATCH s; 1:SREM s x; MULTI; PING; EXEC; WATCH s; 1:SADD s b; MULTI; PING; EXEC; HSET h a 1; WATCH h; 1:HSET h a 1; MULTI; PING; EXEC; WATCH h; 1:HDEL h x; MULTI; PING; EXEC",
            "ZADD z 1 a; WATCH z; 1:ZADD z 1 a; MULTI; PING; EXEC; WATCH z; 1:ZADD z NX 2 a; MULTI; PING; EXEC; WATCH z; 1:ZADD z 2 a; MULTI; PING; EXEC; WATCH z; 1:ZPOPMIN z 0; MULTI; PING; EXEC; WATCH z; 1:ZREM z b; MULTI; PING; EXEC",
            "RPUSH l a b; WATCH l; 1:LPOP l 0; MULTI; PING; EXEC; WATCH l; 1:LMOVE l l LEFT RIGHT; MULTI; PING; EXEC; WATCH l; 1:SET l x XX GET; MULTI; PING; EXEC; SET k a; WATCH k; 1:SET k b NX; MULTI; PING; EXEC; WATCH k; 1:INCR k; MULTI; PING; EXEC",
            "MULTI; BLPOP k 0; BLMOVE k n LEFT RIGHT 0; BZPOPMIN k 0; RPUSH k a; BLPOP k 0; EXEC; MULTI; PUBLISH c x; ECHO e; SELECT 0; EXEC; EXEC now; MULTI x; WATCH",
            "MULTI; SET k 1; RESET; EXEC; GET k; MULTI; CLIENT NOSUCH; EXEC; MULTI; CLIENT GETNAME x; EXEC; MULTI; CLIENT GETNAME; EXEC",
        ],
    ),
    (
        "waiting",
        &[
            "1:BLPOP k 0; 2:BLPOP k 0; RPUSH k a; RPUSH k b; LLEN k; RPUSH k c d; 1:BLPOP k 0; 2:BRPOP n k 0",
            "1:BLPOP a b 0; RPUSH b 1; 1:BLPOP a b 0; MULTI; RPUSH b 2; RPUSH a 1; EXEC; LRANGE a 0 -1; LRANGE b 0 -1",
            "1:BLPOP k 0; SET k v; DEL k; SADD k m; DEL k; ZADD k 1 m; DEL k; RPUSH k a; 1:BLPOP k 0; MULTI; RPUSH k a; LPOP k; EXEC; MULTI; RPUSH k x; DEL k; RPUSH k y; EXEC",
            "1:BLMOVE k n LEFT RIGHT 0; RPUSH k a; LRANGE n 0 -1; 1:BRPOPLPUSH k n 0; RPUSH k b; LRANGE n 0 -1; 1:BLMOVE k k LEFT RIGHT 0; RPUSH k x y; LRANGE k 0 -1",
            "SET n v; 1:BLMOVE k n LEFT RIGHT 0; RPUSH k a; LRANGE k 0 -1; 1:BLMOVE k n LEFT RIGHT 0; DEL n k; 2:BRPOPLPUSH k n 0; RPUSH k b; LRANGE n 0 -1",
            "1:BLPOP k 0; 2:BLMOVE n k LEFT LEFT 0; RPUSH n a; EXISTS n k; 1:BZPOPMIN k 0; 2:BLPOP k 0; RPUSH k a; ZADD k 1 m 2 n; ZRANGE k 0 -1; 1:BZPOPMAX z k 0",
            "BLPOP k 0.01; BRPOP k n 0.01; BLMOVE k n LEFT LEFT 0.01; BRPOPLPUSH k n 0.01; BZPOPMIN k 0.01; BZPOPMAX k 0.01; BLPOP k -1; BLPOP k x; BLPOP k; BLMOVE k n LEFT UP 0; BLMOVE k n LEFT LEFT -1",
            "SET k v; BLPOP k 0; BLMOVE k n LEFT LEFT 0; BZPOPMIN k 0; RPUSH l a; BLPOP l k 0; BLPOP k l 0; RPUSH l a; BRPOPLPUSH l k 0; LLEN l",
        ],
    ),
    (
        "messages",
        &[
            "1:SUBSCRIBE a; PUBLISH a x; PUBLISH b x; 1:UNSUBSCRIBE a; PUBLISH a x; 1:UNSUBSCRIBE; 1:PUNSUBSCRIBE; 1:PING; PUBSUB NUMSUB a; PUBSUB NUMPAT",
            "1:PSUBSCRIBE a*; PUBSUB NUMPAT; PUBSUB CHANNELS; PUBSUB CHANNELS x y; PUBSUB NOSUCH; PUBSUB; PUBLISH a; 1:GET k; 1:PING; 1:PING x; 1:PUBSUB NUMPAT",
        ],
    ),
    (
        "the server",
        &[
            "PING; PING x; PING x y; ECHO x; ECHO; SELECT 0; SELECT 99; SELECT x; AUTH x; AUTH default x; AUTH nobody x; HELLO 9; HELLO x; HELLO 2 FOO; QUIT x",
            "CLIENT SETNAME me; CLIENT GETNAME; CLIENT SETNAME 'a b'; CLIENT SETNAME; CLIENT NOSUCH; CLIENT; CLIENT ID x; CLIENT NO-EVICT on; CLIENT NO-EVICT x; CLIENT GETREDIR; CLIENT UNBLOCK 999999; CLIENT UNBLOCK x; CLIENT UNBLOCK 1 NOW; RESET; CLIENT GETNAME",
            "CLIENT KILL nobody; CLIENT KILL ID 999999; CLIENT KILL ID 0; CLIENT KILL ID x; CLIENT KILL TYPE nobody; CLIENT KILL USER nobody; CLIENT KILL FOO x; CLIENT KILL ID; CLIENT KILL TYPE pubsub SKIPME maybe; CLIENT LIST FOO; CLIENT LIST TYPE nobody; CLIENT LIST ID x; CLIENT LIST TYPE pubsub; CLIENT LIST ID 999999",
            "COMMAND GETKEYS GET k; COMMAND GETKEYS MSET a 1 b 2; COMMAND GETKEYS BLPOP a b 0; COMMAND GETKEYS PING; COMMAND GETKEYS NOSUCH; COMMAND GETKEYS GET; COMMAND GETKEYS LMOVE a b LEFT RIGHT; COMMAND COUNT x; COMMAND NOSUCH; COMMAND INFO nosuch client|nosuch; COMMAND DOCS nosuch; COMMAND LIST FILTERBY PATTERN hset; COMMAND LIST FILTERBY x; COMMAND LIST FILTERBY FOO x",
            "CONFIG GET save; CONFIG GET nosuch; CONFIG GET; CONFIG NOSUCH; CONFIG; DBSIZE; SET k v; DBSIZE; FLUSHALL ASYNC; DBSIZE; FLUSHDB nope; NOSUCH a b; INFO nosuch; RANDOMKEY; KEYS x; SCAN x; SCAN 0 COUNT 0",
        ],
    ),
];

/// Puts a tag in front of the names of keys, which have one letter.
fn tagged(word: &str) -> String {
    let is_key = word.len() == 1 && word.chars().all(|letter| letter.is_ascii_lowercase());
    if is_key { format!("{{t}}{word}") } else { word.to_owned() }
}

fn words(command: &str) -> Vec<u8> {
    // What is between quotes has spaces.
    let words: Vec<String> = command.split(' ').map(tagged).collect();
    let joined = words.join(" ");
    let mut all: Vec<String> = Vec::new();
    for (index, part) in joined.split('\'').enumerate() {
        if index % 2 == 1 {
            all.push(part.to_owned());
        } else {
            all.extend(part.split(' ').filter(|word| !word.is_empty()).map(str::to_owned));
        }
    }
    encode(&all.iter().map(String::as_bytes).collect::<Vec<_>>())
}

/// Runs a script, and returns the first difference.
fn run(servers: [&Server; 2], script: &str, version: &str) -> Option<String> {
    let mut both = servers.map(|server| Clients::connect(server, 3));
    for clients in &mut both {
        (0..3).for_each(|client| drop(clients.of(client).ask(version)));
        clients.of(0).ask("FLUSHALL");
    }
    for command in script.split("; ") {
        let (client, command) = match command.split_once(':') {
            Some((client, command)) => (client.parse().expect("a number"), command),
            None => (0, command),
        };
        let waits_shortly = command.ends_with(" 0.01");
        let [ours, theirs] = both.each_mut().map(|clients| {
            clients.send(client, &words(command));
            if waits_shortly {
                return vec![(client, text(&clients.last_reply(client)))];
            }
            let replies = clients.replies().into_iter();
            replies.map(|(client, reply)| (client, text(&reply))).collect()
        });
        if ours != theirs {
            return Some(format!("{ours:?} instead of {theirs:?}: {command} in {script}"));
        }
    }
    None
}

fn compare(options: &[&str]) {
    let Some(redis) = Server::redis() else { return };
    let ours = Server::kv(options);
    let mut differences = Vec::new();
    for (unit, scripts) in CASES {
        for version in ["HELLO 2", "HELLO 3"] {
            let found = scripts.iter().filter_map(|script| run([&ours, &redis], script, version));
            differences.extend(found.map(|found| format!("{unit}, {version}: {found}")));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn cases_are_those_of_redis() {
    compare(&[]);
}

#[test]
fn cases_of_shards_are_those_of_redis() {
    compare(&["--reactors", "3"]);
}
