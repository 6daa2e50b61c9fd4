//! Servers are started where they are to run, measured, and ended whatever happens.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use millstream_benches::load::LoadError;
use millstream_benches::program::ProgramError;
use millstream_benches::stand::{
    Contestant, Cores, MeasureError, Protocol, Scenario, Server, Stand, StartError, last_line,
};
use rustix::process::{Pid, Signal, kill_process};

const SERVER: &str = env!("CARGO_BIN_EXE_epoll_echo");

fn command(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn epoll_echo() -> Vec<String> {
    command(&format!("{SERVER} --listen 127.0.0.1:{{port}}"))
}

/// A server that is started with that command.
fn contestant(command: Vec<String>, protocol: Protocol<PathBuf>) -> Contestant {
    let name = "mine={port}".parse::<Contestant>().unwrap();
    Contestant { command, protocol, ..name }
}

fn echo(command: impl Into<Vec<String>>) -> Contestant {
    contestant(command.into(), Protocol::Echo)
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

/// A script that starts the server and waits for it, and its command.
fn wrapper(name: &str, redirect: &str) -> Vec<String> {
    let script = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&script, format!("{SERVER} --listen 127.0.0.1:$1 {redirect}\ntrue\n")).unwrap();
    vec!["sh".into(), script.to_str().unwrap().into(), "{port}".into()]
}

/// The processes of a group, by what the system says of each; those that have ended excepted.
fn group(id: u32) -> Vec<PathBuf> {
    let is_of_group = |path: &PathBuf| {
        let stat = fs::read_to_string(path.join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, after_name)| {
            let fields: Vec<&str> = after_name.split(' ').collect();
            fields[2] == id.to_string() && fields[0] != "Z"
        })
    };
    let entries = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    entries.filter(is_of_group).collect()
}

/// Waits until the last process of a group has ended; killing takes a moment.
fn await_end(id: u32) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !group(id).is_empty() {
        assert!(Instant::now() < deadline, "{:?} still run", group(id));
        // sleep: another process's end can only be polled.
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_server_in_a_wrapper_is_measured_and_ended() {
    let command = wrapper("wrapper.sh", "");
    let scenario: Scenario = "2x64x1".parse().unwrap();
    let metrics = stand().measure(&echo(command.clone()), &scenario, 0.0, |_| {}).unwrap();
    assert!(metrics.cpu > 100.0, "{metrics:?}");
    let server = Server::start(&command, &one_core(), &nowhere()).unwrap();
    let id = server.id();
    assert_eq!(group(id).len(), 2, "the shell and the server");
    drop(server);
    await_end(id);
}

#[test]
fn what_a_server_leaves_behind_is_ended() {
    // The shell ends at once, and what it started goes on.
    let server = Server::start(&wrapper("orphaning.sh", "& sleep 0.2"), &one_core(), &nowhere());
    let mut server = server.unwrap();
    (0..200).find_map(|_| server.ended()).expect("the shell ends");
    await_end(server.id());
}

#[test]
fn a_server_that_works_elsewhere_has_no_figures() {
    // `setsid --fork` has it descend from nobody here; the shell waits for the input of no one.
    let pid = Path::new(env!("CARGO_TARGET_TMPDIR")).join("elsewhere.pid");
    let script = Path::new(env!("CARGO_TARGET_TMPDIR")).join("elsewhere.sh");
    let (server, id) = (SERVER, pid.display());
    let text = format!(
        "setsid --fork sh -c 'echo $$ >{id}; exec {server} --listen 127.0.0.1:'$1\nsleep 60\n"
    );
    fs::write(&script, text).unwrap();
    let command = ["sh", script.to_str().unwrap(), "{port}"].map(str::to_owned);
    let scenario: Scenario = "2x64x1".parse().unwrap();
    let measured = stand().measure(&echo(command), &scenario, 0.0, |_| {});
    let id = fs::read_to_string(pid).unwrap().trim().parse().unwrap();
    kill_process(Pid::from_raw(id).unwrap(), Signal::TERM).unwrap();
    assert!(matches!(measured, Err(MeasureError::Idle)), "{measured:?}");
}

#[test]
fn the_last_line_of_a_log_is_found() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("some.log");
    fs::write(&path, "before\nfirst\nlast\n \n").unwrap();
    assert_eq!(last_line(&path, 7).as_deref(), Some("last"));
    assert_eq!(last_line(&path, 18), None);
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
    let metrics = stand().measure(&echo(epoll_echo()), &scenario, 0.0, |_| reports += 1).unwrap();
    assert!(reports > 0);
    for figure in [metrics.cpu, metrics.throughput, metrics.p50, metrics.generator_busy] {
        assert!(figure > 0.0, "{metrics:?}");
    }
    assert!(metrics.p50 <= metrics.p99 && metrics.p99 <= metrics.p999, "{metrics:?}");
}

#[test]
fn a_rate_is_a_part_of_the_capacity() {
    let scenario: Scenario = "open-50".parse().unwrap();
    let metrics = stand().measure(&echo(epoll_echo()), &scenario, 2_000.0, |_| {}).unwrap();
    // Less on a busy machine, where the drain takes its time; but not the whole capacity.
    assert!((100.0..1_100.0).contains(&metrics.throughput), "{metrics:?}");
}

#[test]
fn a_server_that_ends_under_the_load_is_an_error() {
    let command = [command("timeout 0.3"), epoll_echo()].concat();
    let scenario: Scenario = "2x64x1".parse().unwrap();
    let error = stand().measure(&echo(command), &scenario, 0.0, |_| {}).unwrap_err();
    // What `timeout` ends with.
    assert!(
        matches!(error, MeasureError::Ended(status) if status.code() == Some(124)),
        "{error:?}"
    );
}

/// A program that writes `line` instead of putting a load on the server.
fn program(name: &str, line: &str) -> Contestant {
    let script = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&script, format!("#!/bin/sh\necho '{line}'\ncat\n")).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    contestant(epoll_echo(), Protocol::Own(script))
}

#[test]
fn what_a_load_of_another_program_says_is_told() {
    let scenario: Scenario = "2x64x1".parse().unwrap();
    let measure = |contestant| stand().measure(&contestant, &scenario, 0.0, |_| {}).unwrap_err();
    let error = measure(program("failing.sh", r#"{"failure":"it rains"}"#));
    assert!(
        matches!(&error, MeasureError::Program(ProgramError::Failed(why)) if why == "it rains"),
        "{error:?}"
    );
    let error = measure(program("babbling.sh", "42"));
    assert!(matches!(error, MeasureError::Program(ProgramError::Line { .. })), "{error:?}");
    let error = measure(program("ending.sh", r#"{"figures":{}}"#));
    assert!(matches!(error, MeasureError::Program(ProgramError::Line { .. })), "{error:?}");
}

#[test]
fn a_server_of_calls_is_sent_calls() {
    // An echo is not an answer to one.
    let scenario: Scenario = "2x64x1".parse().unwrap();
    let server = contestant(epoll_echo(), Protocol::Rpc);
    let error = stand().measure(&server, &scenario, 0.0, |_| {}).unwrap_err();
    assert!(matches!(error, MeasureError::Load(LoadError::Answer { .. })), "{error:?}");
}
