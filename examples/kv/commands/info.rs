//! INFO: figures about the server, from all of its reactors.

use std::fmt::Write as _;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use millstream::codec::FramedConn;
use millstream::codec::resp::{Arguments, Replies, Reply};
use millstream::{Action, Stats};

use super::connection::REDIS_VERSION;
use super::{Call, Failure, Outcome};
use crate::encoded::Encoded;
use crate::server::Server;
use crate::shards::{Copied, Gather};

/// What each reactor tells: how many clients it has, how many of them wait, how many commands it
/// has run, how many it ran in a second, how many keys it has, and how many of those expire.
type Figures = [u64; 6];

pub fn info(
    server: &mut Server,
    conn: &mut FramedConn<'_, Server>,
    arguments: Arguments<'_>,
) -> Result<Action, Failure> {
    let wanted: Vec<Vec<u8>> = arguments.map(<[u8]>::to_ascii_lowercase).collect();
    let port = conn.local_addr().ok().and_then(|address| address.port()).unwrap_or(0);
    let uptime = server.started.elapsed().as_secs();
    let stats = server.engine.as_ref().map(millstream::Engine::stats);
    let gather = move |told: Vec<Encoded>, replies: &mut Replies<'_, '_>| {
        let figures = sum(&told);
        let text = sections(&wanted, &figures, stats.as_ref(), port, uptime);
        replies.verbatim(*b"txt", text.as_bytes());
    };
    server.ask_everywhere(conn, tell, &Copied::of(&[]), Gather::By(Box::new(gather)));
    Ok(Action::Continue)
}

/// Tells of one reactor.
fn tell(server: &mut Server, mut call: Call<'_, '_>) -> Outcome {
    call.replies.array(Figures::default().len());
    call.replies.count(server.clients.len());
    call.replies.count(server.shards.blocked.len());
    call.replies.integer(server.commands.try_into().unwrap_or(i64::MAX));
    call.replies.integer(server.rate.per_second.try_into().unwrap_or(i64::MAX));
    call.replies.count(server.store.len());
    call.replies.count(server.store.expiring());
    Ok(())
}

fn sum(told: &[Encoded]) -> Figures {
    let mut sums = Figures::default();
    for reply in told {
        let Some((Reply::Array(numbers), _)) = Reply::split_first(reply.first()) else { continue };
        for (sum, number) in sums.iter_mut().zip(numbers) {
            if let Reply::Integer(number) = number {
                *sum += number.unsigned_abs();
            }
        }
    }
    sums
}

/// A section's name, and its lines.
type Section = (&'static str, String);

fn sections(
    wanted: &[Vec<u8>],
    figures: &Figures,
    stats: Option<&Stats>,
    port: u16,
    uptime: u64,
) -> String {
    let sections = [
        server_section(stats, port, uptime),
        clients_section(figures),
        memory_section(),
        ("Persistence", PERSISTENCE.to_owned()),
        stats_section(figures, stats),
        ("Replication", "role:master\r\nconnected_slaves:0\r\nmaster_repl_offset:0\r\n".to_owned()),
        ("Cluster", "cluster_enabled:0\r\n".to_owned()),
        keyspace_section(figures),
    ];
    let is_all = |name: &Vec<u8>| matches!(name.as_slice(), b"all" | b"default" | b"everything");
    let all = wanted.is_empty() || wanted.iter().any(is_all);
    let mut text = String::new();
    for (name, lines) in sections {
        if all || wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(name.as_bytes())) {
            let gap = if text.is_empty() { "" } else { "\r\n" };
            let _ = write!(text, "{gap}# {name}\r\n{lines}");
        }
    }
    text
}

/// There is none; the names are for programs that look for them.
const PERSISTENCE: &str = "loading:0\r\nrdb_changes_since_last_save:0\r\n\
                           rdb_bgsave_in_progress:0\r\naof_enabled:0\r\n\
                           aof_rewrite_in_progress:0\r\n";

fn server_section(stats: Option<&Stats>, port: u16, uptime: u64) -> Section {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let text = format!(
        "redis_version:{REDIS_VERSION}\r\nmillstream_version:{}\r\nredis_mode:standalone\r\n\
         os:{} {}\r\narch_bits:{}\r\nmultiplexing_api:{}\r\nprocess_id:{}\r\ntcp_port:{port}\r\n\
         server_time_usec:{now}\r\nuptime_in_seconds:{uptime}\r\nuptime_in_days:{}\r\n\
         io_threads_active:0\r\nreactors:{}\r\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH,
        usize::BITS,
        stats.map_or("", |stats| stats.driver),
        std::process::id(),
        uptime / (24 * 60 * 60),
        stats.map_or(0, |stats| stats.reactors.len()),
    );
    ("Server", text)
}

fn clients_section(figures: &Figures) -> Section {
    let [clients, blocked, ..] = figures;
    let text = format!(
        "connected_clients:{clients}\r\ncluster_connections:0\r\nblocked_clients:{blocked}\r\n\
         tracking_clients:0\r\n"
    );
    ("Clients", text)
}

/// What the system says of the whole process, where it does.
fn memory_section() -> Section {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bytes = |name| {
        let line = status.lines().find_map(|line: &str| line.strip_prefix(name));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
        kibibytes.unwrap_or(0_u64) * 1024
    };
    let (now, peak) = (bytes("VmRSS:"), bytes("VmHWM:"));
    let text = format!(
        "used_memory:{now}\r\nused_memory_human:{}\r\nused_memory_rss:{now}\r\n\
         used_memory_rss_human:{}\r\nused_memory_peak:{peak}\r\nused_memory_peak_human:{}\r\n\
         maxmemory:0\r\nmaxmemory_human:0B\r\nmaxmemory_policy:noeviction\r\n",
        human(now),
        human(now),
        human(peak),
    );
    ("Memory", text)
}

fn human(bytes: u64) -> String {
    format!("{:.2}M", bytes as f64 / (1024.0 * 1024.0))
}

fn stats_section(figures: &Figures, stats: Option<&Stats>) -> Section {
    let [_, _, commands, rate, ..] = figures;
    let reactors = || stats.into_iter().flat_map(|stats| &stats.reactors);
    let text = format!(
        "total_connections_received:{}\r\ntotal_commands_processed:{commands}\r\n\
         instantaneous_ops_per_sec:{rate}\r\ntotal_net_input_bytes:{}\r\n\
         total_net_output_bytes:{}\r\nrejected_connections:{}\r\nevicted_keys:0\r\n",
        reactors().map(|reactor| reactor.accepted).sum::<u64>(),
        reactors().map(|reactor| reactor.bytes_in).sum::<u64>(),
        reactors().map(|reactor| reactor.bytes_out).sum::<u64>(),
        stats.map_or(0, |stats| stats.refused),
    );
    ("Stats", text)
}

fn keyspace_section(figures: &Figures) -> Section {
    let [.., keys, expires] = figures;
    let text = format!("db0:keys={keys},expires={expires},avg_ttl=0\r\n");
    let text = if *keys == 0 { String::new() } else { text };
    ("Keyspace", text)
}
