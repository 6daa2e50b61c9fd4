//! The hand-written echo loop on plain epoll, to tell what mio costs from what the kernel does: one
//! `recv` and one `send` per event, a loop per thread. SIGTERM ends it, by its default action.
#![allow(clippy::print_stderr)]

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    use clap::Parser;
    use millstream_benches::echo::EchoConnection;
    use millstream_benches::echo_server::{BUFFER, Options, run_on_threads};
    use millstream_benches::epoll_server::EpollServer;

    run_on_threads(&Options::parse(), |listener| {
        EpollServer::new(listener, BUFFER, |stream| Ok(EchoConnection::new(stream)))?.run()
    })
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("only Linux has epoll");
    std::process::ExitCode::FAILURE
}
