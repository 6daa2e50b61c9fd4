//! The hand-written echo loop on plain epoll, to tell what mio costs from what the kernel does: one
//! `recv` and one `send` per event, a loop per thread. SIGTERM ends it, by its default action.
#![allow(clippy::print_stderr)]

#[cfg(target_os = "linux")]
mod server;

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    use clap::Parser;
    use millstream_benches::echo_server::{Options, run_on_threads};

    run_on_threads(&Options::parse(), |listener| server::Server::new(listener)?.run())
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("only Linux has epoll");
    std::process::ExitCode::FAILURE
}
