//! Random streams of commands.

use super::client::{encode, text};

/// Commands with what is put instead of their letters: `k` a key, `v` a value, `i` an integer, `n`
/// a small one, `f` a field, `g` a pattern, `s` a score. What begins with `~` replies in any order,
/// with `%` in pairs, with `^` with a time. Times are such that nothing depends on how fast a
/// server is.
const TEMPLATES: &str = "get k|get k|get k|set k v|set k v|set k i|set k v ex e|set k v px 100000|set k v nx|\
    set k v xx get|set k v keepttl|set k v get|set k v nx get|set k v exat 99999999999|set k v foo|set k v ex x|\
    set k v nx xx|set k v ex 0|set k v px -1|set k v keepttl ex 5|set k|setnx k v|setex k e v|psetex k 100000 v|\
    setex k x v|getset k v|getdel k|mget k k k|mset k v k i|mset k v k|incr k|decr k|incrby k i|decrby k i|\
    incrby k x|decrby k -9223372036854775808|append k v|append k i|strlen k|del k|del k k k|unlink k|\
    exists k k k|type k|~keys g|~keys *|dbsize|expire k e|expire k 100000 nx|expire k 100000 xx|\
    expireat k 99999999999 gt|expireat k 88888888888 lt|expire k 1 nx xx|expire k 1 gt lt|expire k x|expire k 1 foo|\
    expire k -1|expire k 9223372036854775807|pexpire k 100000|pexpire k 9223372036854775807|\
    expireat k 99999999999|expireat k 1|pexpireat k 99999999999999|^ttl k|persist k|hset k f v|hset k f v f i|\
    hset k f v f|hmset k f v f v|hget k f|hget k f|hmget k f f|%hgetall k|hdel k f f|hlen k|hexists k f|\
    hincrby k f i|hincrby k f x|~hkeys k|~hvals k|lpush k v v|rpush k v i v|lpop k|rpop k|lpop k n|rpop k n|\
    lpop k -1|lpop k 1 2|lrange k n n|lrange k 0 -1|lrange k -3 -1|lrange k i i|lrange k x 1|llen k|lindex k n|\
    lindex k -1|lindex k i|lindex k x|sadd k v v i|srem k v v|~smembers k|sismember k v|scard k|ping|ping v|\
    ping v v|echo v|echo|get|get k k|flushdb nope|frobnicate k v|frobnicate|select 0|select x|publish k v|\
    client getname|client setname f|client id x|client nope|hello 4|hello x|config get save|\
    command count x|unsubscribe|punsubscribe k|expire k|hset k f|scan x|scan 0 count 0|scan 0 count x|\
    scan 0 foo|auth x|reset x|flushall|smismember k v f|~spop k 1000|spop k 0|spop k -1|spop k x|spop k 1 2|\
    zadd k s f|zadd k s f s f|zadd k s f s f s f|zadd k nx s f|zadd k xx ch s f|zadd k gt s f|zadd k lt ch s f|\
    zadd k incr s f|zadd k nx incr s f|zadd k xx gt incr s f|zadd k nx xx s f|zadd k gt lt s f|\
    zadd k nx gt s f|zadd k incr s f s f|zadd k s|zadd k x f|zadd k ch s f s|zadd k inf f -inf f|\
    zincrby k s f|zincrby k -inf f|zincrby k x f|zrem k f f|zcard k|zscore k f|zmscore k f f x|zrank k f|\
    zrevrank k f|zcount k s s|zcount k (1 s|zcount k x 1|zrange k 0 -1|zrange k 0 -1 withscores|\
    zrange k i i rev withscores|zrange k s s byscore|zrange k s s byscore rev limit n n withscores|\
    zrange k -inf inf byscore limit 1 -1|zrange k 0 1 limit 0 1|zrange k 0 x|zrevrange k n n|\
    zrevrange k 0 -1 withscores|zrevrange k 0 -1 rev|zrangebyscore k s s|zrangebyscore k (s (s|\
    zrangebyscore k -inf (1 limit 1 2 withscores|zrangebyscore k (inf inf|zrangebyscore k (-inf (inf limit -1 2|\
    zrevrangebyscore k inf (1|zrevrangebyscore k s s withscores|zpopmin k|zpopmin k n|zpopmin k 0|\
    zpopmax k n|zpopmax k|zpopmin k -1|zpopmin k x|zpopmin k 1 2";

const SCORES: [&str; 14] = [
    "0",
    "1",
    "2",
    "3",
    "-1",
    "1.5",
    "0.1",
    "1e3",
    "-2.25e-7",
    "1e300",
    "inf",
    "-inf",
    "100000000000000000000",
    "3.0",
];

/// A command, and how its reply is to be compared.
pub struct Command {
    pub words: Vec<Vec<u8>>,
    pub order: Order,
}

impl Command {
    pub fn encoded(&self) -> Vec<u8> {
        encode(&self.words.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    /// As a person would type it, if it is short.
    pub fn shown(&self) -> String {
        let short = |word: &Vec<u8>| text(&word[..word.len().min(30)]);
        self.words.iter().map(short).collect::<Vec<_>>().join(" ")
    }
}

#[derive(Clone, Copy, PartialEq)]
pub enum Order {
    Fixed,
    Any,
    Pairs,
    /// A number, which may differ by some seconds.
    About,
}

/// What is sent.
#[derive(Clone, Copy, PartialEq)]
pub enum Mode {
    /// Commands, one by one.
    Single,
    /// Also commands in transactions, and such as take several keys; all keys are on one shard.
    Transactions,
    /// And such as wait.
    Waiting,
}

/// What moves elements; at first what doesn't wait.
const MOVING: [&str; 22] = [
    "lmove k k left right",
    "lmove k k right left",
    "lmove k k left up",
    "rpoplpush k k",
    "rpush k v",
    "lpush k v v",
    "zadd k s f s f",
    "blpop k x",
    "brpop k -1",
    "blmove k k up left 0",
    "blpop k k 0",
    "blpop k 0",
    "brpop k k k 0",
    "brpop k 100",
    "blmove k k left right 0",
    "blmove k k right right 1.5e3",
    "brpoplpush k k 0",
    "brpoplpush k k 0",
    "bzpopmin k 0",
    "bzpopmin k k k 0",
    "bzpopmax k 100",
    "bzpopmax k k 0",
];
const NOT_WAITING: usize = 10;

/// Chooses commands.
pub struct Stream {
    mode: Mode,
    /// There was a MULTI, and no end of it.
    is_within: bool,
}

/// What is not in a transaction here: its reply has no order, it goes to all shards, or it is found
/// out later that it is wrong.
const NEVER_WITHIN: [&str; 8] =
    ["keys", "dbsize", "flushall", "flushdb", "scan", "hello", "client", "command"];

impl Stream {
    pub fn new(mode: Mode) -> Self {
        Stream { mode, is_within: false }
    }

    pub fn commands(&mut self, count: usize, rng: &mut fastrand::Rng) -> Vec<Command> {
        (0..count).map(|_| self.command(rng)).collect()
    }

    pub fn command(&mut self, rng: &mut fastrand::Rng) -> Command {
        let together = self.mode != Mode::Single;
        let waits = self.mode == Mode::Waiting || self.is_within;
        let template = if together && rng.u8(..8) == 0 {
            self.transaction(rng)
        } else if together && rng.u8(..8) == 0 {
            let choices = if waits { &MOVING[..] } else { &MOVING[..NOT_WAITING] };
            choices[rng.usize(..choices.len())]
        } else {
            let templates: Vec<&str> = TEMPLATES.split('|').collect();
            templates[rng.usize(..templates.len())]
        };
        let (order, template) = match template.split_at(1) {
            ("~", rest) => (Order::Any, rest),
            ("%", rest) => (Order::Pairs, rest),
            ("^", rest) => (Order::About, rest),
            _ => (Order::Fixed, template),
        };
        // To empty everything more often would leave little to compare.
        let rarely = template == "flushall" && rng.u8(..8) > 0;
        let never = order != Order::Fixed
            || NEVER_WITHIN.contains(&template.split(' ').next().unwrap_or_default());
        let (order, template) = match template {
            _ if self.is_within && never => (Order::Fixed, "strlen k"),
            _ if rarely => (Order::Fixed, "dbsize"),
            template => (order, template),
        };
        let tag = if together { "{tag}" } else { "" };
        let words = template.split(' ').map(|word| fill(word, tag, rng)).collect();
        Command { words, order }
    }

    fn transaction(&mut self, rng: &mut fastrand::Rng) -> &'static str {
        let within = ["exec", "exec", "exec", "discard", "multi", "watch k", "unwatch"];
        let outside =
            ["multi", "multi", "multi", "watch k", "watch k k", "unwatch", "exec", "discard"];
        let choices: &[&str] = if self.is_within { &within } else { &outside };
        let chosen = choices[rng.usize(..choices.len())];
        match chosen {
            "multi" => self.is_within = true,
            "exec" | "discard" => self.is_within = false,
            _ => {}
        }
        chosen
    }
}

fn fill(word: &str, tag: &str, rng: &mut fastrand::Rng) -> Vec<u8> {
    match word {
        "k" => format!("{tag}key:{}", rng.u8(..12)).into_bytes(),
        "f" => format!("field{}", rng.u8(..5)).into_bytes(),
        "e" => rng.u16(1_000..9_000).to_string().into_bytes(),
        "n" => rng.u8(1..9).to_string().into_bytes(),
        "g" => {
            rng.choice(["key:*", "*1*", "key:[1-3]", "k?y:[^1]", "", "key:1\\*"]).unwrap().into()
        }
        "s" => rng.choice(SCORES).unwrap().into(),
        "(s" => format!("({}", rng.choice(SCORES).unwrap()).into_bytes(),
        "i" => match rng.u8(..6) {
            0 => rng.choice([i64::MAX, i64::MIN, 0, -1]).unwrap().to_string().into_bytes(),
            _ => rng.i64(-20..20).to_string().into_bytes(),
        },
        "v" => {
            let length = [0, 3, 8, 20, 200, 5_000][rng.usize(..6)];
            (0..length).map(|_| *rng.choice(b"ab1 \r\n\0\xff").unwrap()).collect()
        }
        word => word.into(),
    }
}
