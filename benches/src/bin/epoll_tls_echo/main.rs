//! The hand-written echo loop on plain epoll with rustls in it, in either of its two interfaces: as
//! fast as we could write it with each. SIGTERM ends it, by its default action.
#![allow(clippy::print_stderr)]

#[cfg(target_os = "linux")]
mod buffered;
#[cfg(target_os = "linux")]
mod unbuffered;

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    use std::sync::Arc;

    use clap::Parser;
    use millstream_benches::echo_server::run_on_threads;
    use millstream_benches::epoll_server::EpollServer;
    use millstream_benches::tls_server::{TlsOptions, config};

    /// Echoes what comes in over TLS. SIGTERM ends it.
    #[derive(Parser)]
    struct LoopOptions {
        #[command(flatten)]
        tls: TlsOptions,
        /// By the interface of rustls that has no buffers.
        #[arg(long)]
        unbuffered: bool,
    }

    let LoopOptions { tls, unbuffered } = LoopOptions::parse();
    let config = config(&tls.tls_cert, &tls.tls_key)?;
    Ok(run_on_threads(&tls.plain, move |listener| {
        let config = Arc::clone(&config);
        if unbuffered {
            use unbuffered::{SHARED, Unbuffered};
            EpollServer::new(listener, SHARED, |stream| Unbuffered::new(stream, &config))?.run()
        } else {
            use buffered::{Buffered, SHARED};
            EpollServer::new(listener, SHARED, |stream| Buffered::new(stream, &config))?.run()
        }
    })?)
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("only Linux has epoll");
    std::process::ExitCode::FAILURE
}
