//! The program `load`.

use std::io::{Read, Write};
use std::process::{Command, Output};

use serde_json::Value;

use super::server::{faithful, server};

/// Runs the program with a server that echoes.
fn load(options: &str) -> Output {
    run(&server(faithful).to_string(), options)
}

/// Runs the program, for 200 ms if `options` do not say how long.
fn run(address: &str, options: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_load"));
    command.args([address, "--warm-up", "0"]).args(options.split_whitespace());
    if !options.contains("--seconds") {
        command.args(["--seconds", "0.2"]);
    }
    command.output().unwrap()
}

fn stdout(options: &str) -> String {
    let output = load(options);
    assert!(output.status.success(), "{options}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json(options: &str) -> Value {
    serde_json::from_str(&stdout(&format!("--json {options}"))).unwrap()
}

fn is_number_above(value: &Value, least: f64) -> bool {
    value.as_f64().is_some_and(|number| number > least)
}

#[test]
fn json_has_the_settings() {
    let outcome = json(
        "--connections 3 --size 100 --in-flight 2 --threads 2 --rate 500 --verify sample \
         --idle 1 --flooding 1 --slow 1 --stuck 1 --cores 0",
    );
    let expected = serde_json::json!({
        "connections": 3,
        "message_size": 100,
        "framing": "none",
        "in_flight": 2,
        "duration": 0.2,
        "warm_up": 0.0,
        "threads": 2,
        "cores": [0],
        "mode": { "open": { "rate": 500.0 } },
        "crowd": { "idle": 1, "flooding": 1, "slow": 1, "stuck": 1, "handshakes": 0 },
        "verify": "sample",
        "tls": "off",
        "deadlines": { "connect": 5.0, "stall": 5.0, "drain": 5.0 },
    });
    let mut settings = outcome["load"].clone();
    let address = settings.as_object_mut().unwrap().remove("address").unwrap();
    assert!(address.as_str().unwrap().starts_with("127.0.0.1:"));
    assert_eq!(settings, expected);
}

#[test]
fn json_has_the_figures() {
    let outcome = json("--rate 1000 --size 100");
    let report = &outcome["report"];
    assert_eq!(report["messages"], 200);
    assert_eq!(report["bytes"], 20_000);
    for zero in ["errors", "dropped", "connections_made"] {
        assert_eq!(report[zero], 0, "{zero}");
    }
    for number in ["elapsed", "messages_per_second", "megabytes_per_second"] {
        assert!(is_number_above(&report[number], 0.0), "{number}: {report}");
    }
    for quantile in ["p50", "p90", "p99", "p99.9", "max"] {
        assert!(is_number_above(&report["latency_ns"][quantile], 1_000.0), "{quantile}: {report}");
    }
    assert_eq!(outcome["server"], Value::Null);
}

#[test]
fn json_has_the_connections_of_a_churn() {
    let outcome = json("--churn --connections 2");
    assert_eq!(outcome["load"]["mode"], "churn");
    assert!(is_number_above(&outcome["report"]["connections_made"], 1.0), "{outcome}");
    assert!(is_number_above(&outcome["report"]["connections_per_second"], 1.0), "{outcome}");
}

#[cfg(target_os = "linux")]
#[test]
fn json_has_what_the_processes_spend() {
    // The server is in this process. Two samples are needed, so it takes longer.
    let outcome = json(&format!("--server-pid {} --seconds 0.6", std::process::id()));
    for process in ["server", "generator"] {
        let figures = &outcome[process];
        for number in ["cpu_per_message", "memory"] {
            assert!(is_number_above(&figures[number], 0.0), "{process} {number}: {figures}");
        }
        for number in ["user_share", "context_switches_per_message", "memory_per_connection"] {
            assert!(figures[number].is_f64(), "{process} {number}: {figures}");
        }
    }
}

#[test]
fn people_get_the_same_as_a_table() {
    let text = stdout("--rate 1000 --connections 4 --idle 2");
    for part in ["4 connections", "64-byte", "1000 a second", "2 idle", "every byte checked"] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    for row in ["messages             200   in ", "rate ", "payload ", "errors ", "p99.9 ", "max "]
    {
        assert!(text.lines().any(|line| line.starts_with(row)), "{row:?} is missing in\n{text}");
    }
    let text = stdout("--churn --connections 2");
    assert!(text.lines().any(|line| line.starts_with("connections ")), "{text}");
}

#[test]
fn numbers_and_cores_are_written_as_for_the_benchmark() {
    let outcome = json("--size 1k --in-flight 2 --cores 0-0 --patience 9");
    assert_eq!(outcome["load"]["message_size"], 1_024);
    assert_eq!(outcome["load"]["cores"], serde_json::json!([0]));
    assert_eq!(outcome["load"]["deadlines"]["stall"], 9.0);
}

#[test]
fn the_server_may_have_a_name() {
    let address = format!("localhost:{}", server(faithful).port());
    let output = run(&address, "--seconds 0.2");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_version_is_told() {
    assert_eq!(stdout("--version"), format!("load {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_server_that_echoes_too_little_is_a_failure_with_figures() {
    // Only each connection's first message comes back, so that all connections are there.
    let address = server(|mut stream| {
        let mut message = [0; 64];
        stream.read_exact(&mut message).and_then(|()| stream.write_all(&message)).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let output = run(&address.to_string(), "--connections 2 --patience 1 --json");
    assert_eq!(output.status.code(), Some(1));
    let outcome: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(outcome["report"]["errors"], 2);
    assert_eq!(outcome["report"]["latency_ns"]["p50"], Value::Null);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.ends_with("error: 2 messages were not echoed in time\n"), "{stderr}");
}

#[test]
fn what_cannot_be_done_is_said() {
    for (options, status, message) in [
        ("--rate 10 --churn", 2, "cannot be used with"),
        ("--rate 0", 2, "the rate must be above 0 and at most"),
        ("--rate=-5", 2, "messages per second, not -5"),
        ("--rate nan", 2, "messages per second, not NaN"),
        ("--rate 1e12", 2, "at most 1000000000 messages per second, not 1000000000000"),
        ("--rate many", 2, "invalid value 'many' for '--rate"),
        ("--connections 0", 2, "connections must be from 1 to 1048576, not 0"),
        ("--connections 1024k", 1, "see `ulimit -n`"),
        ("--threads 0", 2, "threads must be from 1 to 1024, not 0"),
        ("--size 0", 2, "the message size must be from 1 to 1073741824, not 0"),
        ("--size 18446744073709551615", 2, "the message size must be from 1 to 1073741824, not 1"),
        ("--in-flight 0", 2, "messages in flight must be from 1 to 1048576, not 0"),
        (
            "--in-flight 1000000000",
            2,
            "messages in flight must be from 1 to 1048576, not 1000000000",
        ),
        ("--in-flight 1024k", 2, "on all connections must be from 1 to 1048576, not 52428800"),
        ("--seconds 0", 2, "must be from 0.1 to 86400 seconds"),
        ("--idle -1", 2, "unexpected argument"),
        ("--connections=x", 2, "no whole number"),
        ("--seconds never", 2, "not a number of seconds"),
        ("--cores 1023", 2, "there is no core 1023"),
        ("--cores one", 2, "neither a core nor a range"),
        ("--verify some", 2, "possible values: all, sample, lengths"),
        ("--server-pid 4194305", 1, "process 4194305, the server, cannot be observed"),
    ] {
        let output = load(options);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{options}: {stderr}");
        assert!(stderr.contains(message), "{options}: {stderr}");
        assert!(output.stdout.is_empty(), "{options}");
    }
}
