//! Servers are started where they are to run, measured, and ended whatever happens.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use millstream_benches::stand::{Cores, MeasureError, Scenario, Server, Stand, StartError};

const SERVER: &str = env!("CARGO_BIN_EXE_epoll_echo");

fn command(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn epoll_echo() -> Vec<String> {
    command(&format!("{SERVER} --listen 127.0.0.1:{{port}}"))
}

fn nowhere() -> File {
    File::options().write(true).open("/dev/null").unwrap()
}

fn one_core() -> Cores {
    Cores::available().first(1)
}

fn stand() -> Stand {
    Stand {
        server_cores: one_core(),
        load_cores: one_core(),
        warm_up: Duration::from_millis(50),
        duration: Duration::from_millis(600),
        log: nowhere(),
    }
}

fn process(server: &Server) -> PathBuf {
    Path::new("/proc").join(server.id().to_string())
}

#[test]
fn a_server_runs_on_its_core_until_it_is_dropped() {
    let server = Server::start(&epoll_echo(), &one_core(), &nowhere()).unwrap();
    let process = process(&server);
    assert_eq!(fs::read_link(process.join("exe")).unwrap(), fs::canonicalize(SERVER).unwrap());
    let status = fs::read_to_string(process.join("status")).unwrap();
    let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    assert_eq!(cores.unwrap().trim(), one_core().to_string());
    drop(server);
    assert!(!process.exists(), "the server still runs");
}

#[test]
fn a_server_that_cannot_start_is_an_error() {
    let error = Server::start(&command("false {port}"), &one_core(), &nowhere()).unwrap_err();
    assert!(matches!(error, StartError::Ended(status) if status.code() == Some(1)), "{error:?}");
    let error = Server::start(&command("no-such-program"), &one_core(), &nowhere()).unwrap_err();
    assert!(matches!(error, StartError::Ended(_)), "{error:?}");
}

#[test]
fn a_measurement_has_figures() {
    let scenario: Scenario = "2x64x1".parse().unwrap();
    let mut reports = 0;
    let metrics = stand().measure(&epoll_echo(), &scenario, 0.0, |_| reports += 1).unwrap();
    assert!(reports > 0);
    for figure in [metrics.cpu, metrics.throughput, metrics.p50, metrics.generator_busy] {
        assert!(figure > 0.0, "{metrics:?}");
    }
    assert!(metrics.p50 <= metrics.p99 && metrics.p99 <= metrics.p999, "{metrics:?}");
}

#[test]
fn a_rate_is_a_part_of_the_capacity() {
    let scenario: Scenario = "open-50".parse().unwrap();
    let metrics = stand().measure(&epoll_echo(), &scenario, 2_000.0, |_| {}).unwrap();
    // Less on a busy machine, where the drain takes its time; but not the whole capacity.
    assert!((100.0..1_100.0).contains(&metrics.throughput), "{metrics:?}");
}

#[test]
fn a_server_that_ends_under_the_load_is_an_error() {
    let command = [command("timeout 0.3"), epoll_echo()].concat();
    let scenario: Scenario = "2x64x1".parse().unwrap();
    let error = stand().measure(&command, &scenario, 0.0, |_| {}).unwrap_err();
    // What `timeout` ends with.
    assert!(
        matches!(error, MeasureError::Ended(status) if status.code() == Some(124)),
        "{error:?}"
    );
}
