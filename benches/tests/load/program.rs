//! The program `load`.

use std::process::{Command, Output};

use serde_json::Value;

use super::server::{faithful, server};

/// Runs the program with a server that echoes, for 200 ms if `options` do not say how long.
fn load(options: &str) -> Output {
    let address = server(faithful).to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_load"));
    command.args([&address, "--warm-up", "0"]).args(options.split_whitespace());
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
        "in_flight": 2,
        "duration": 0.2,
        "warm_up": 0.0,
        "threads": 2,
        "cores": [0],
        "mode": { "open": { "rate": 500.0 } },
        "crowd": { "idle": 1, "flooding": 1, "slow": 1, "stuck": 1 },
        "verify": "sample",
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
fn what_cannot_be_done_is_said() {
    for (options, status, message) in [
        ("--rate 10 --churn", 2, "cannot be used with"),
        ("--rate 0", 1, "the rate must be above 0 messages per second, and is 0"),
        ("--rate many", 2, "invalid value 'many' for '--rate"),
        ("--connections 0", 1, "connections must be at least 1"),
        ("--threads 0", 1, "threads must be at least 1"),
        ("--idle -1", 2, "unexpected argument"),
        ("--connections=x", 2, "invalid digit"),
        ("--seconds never", 2, "not a number of seconds"),
        ("--cores 1023", 1, "could not be pinned to core 1023"),
        ("--cores one", 2, "invalid value 'one' for '--cores"),
        ("--verify some", 2, "possible values: all, sample, lengths"),
        ("--server-pid 4194305", 1, "the server's process could not be read"),
    ] {
        let output = load(options);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{options}: {stderr}");
        assert!(stderr.contains(message), "{options}: {stderr}");
        assert!(output.stdout.is_empty(), "{options}");
    }
}
