//! Random streams of commands.

/// Commands with what is put instead of their letters: `k` a key, `v` a value, `i` an integer, `n`
/// a small one, `f` a field, `g` a pattern. What begins with `~` replies in any order, with `%` in
/// pairs, with `^` with a time. Times are such that nothing depends on how fast a server is.
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
    scan 0 foo|auth x|reset x|flushall";

/// A command, and how its reply is to be compared.
pub struct Command {
    pub words: Vec<Vec<u8>>,
    pub order: Order,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Order {
    Fixed,
    Any,
    Pairs,
    /// A number, which may differ by some seconds.
    About,
}

pub fn commands(count: usize, rng: &mut fastrand::Rng) -> Vec<Command> {
    let templates: Vec<&str> = TEMPLATES.split('|').collect();
    (0..count).map(|_| command(templates[rng.usize(..templates.len())], rng)).collect()
}

fn command(template: &str, rng: &mut fastrand::Rng) -> Command {
    let (order, template) = match template.split_at(1) {
        ("~", rest) => (Order::Any, rest),
        ("%", rest) => (Order::Pairs, rest),
        ("^", rest) => (Order::About, rest),
        _ => (Order::Fixed, template),
    };
    // To empty everything more often would leave little to compare.
    let template = if template == "flushall" && rng.u8(..8) > 0 { "dbsize" } else { template };
    let words = template.split(' ').map(|word| fill(word, rng)).collect();
    Command { words, order }
}

fn fill(word: &str, rng: &mut fastrand::Rng) -> Vec<u8> {
    match word {
        "k" => format!("key:{}", rng.u8(..12)).into_bytes(),
        "f" => format!("field{}", rng.u8(..5)).into_bytes(),
        "e" => rng.u16(1_000..9_000).to_string().into_bytes(),
        "n" => rng.u8(1..9).to_string().into_bytes(),
        "g" => {
            rng.choice(["key:*", "*1*", "key:[1-3]", "k?y:[^1]", "", "key:1\\*"]).unwrap().into()
        }
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
