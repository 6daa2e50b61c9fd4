//! The hand-written server of HTTP/1.1 on plain epoll, a loop per thread. SIGTERM ends it, by its
//! default action.
#![allow(clippy::print_stderr)]

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    use std::rc::Rc;

    use clap::Parser;
    use millstream_benches::echo_server::{BUFFER, Options, run_on_threads};
    use millstream_benches::epoll_server::EpollServer;
    use millstream_benches::http_server::{HttpConnection, Responses};

    run_on_threads(&Options::parse(), |listener| {
        let responses = Responses::new();
        let accepted = |stream| Ok(HttpConnection::new(stream, Rc::clone(&responses)));
        EpollServer::new(listener, BUFFER, accepted)?.run()
    })
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("only Linux has epoll");
    std::process::ExitCode::FAILURE
}
