//! Load over TLS.

use millstream_benches::load::{Load, LoadError, Tls, run};

use super::server::{faithful, server, short_load};

#[cfg(not(feature = "tls"))]
#[test]
fn it_needs_a_feature() {
    let load = Load { tls: Tls::Full, ..short_load(server(faithful)) };
    assert!(matches!(run(&load, |_| {}), Err(LoadError::NoTls)));
}

#[cfg(feature = "tls")]
mod compiled_in {
    use std::io::{Read, Write};
    use std::net::SocketAddr;
    use std::sync::Arc;

    use millstream_benches::load::Mode;
    use rcgen::generate_simple_self_signed;
    use rustls::server::NoServerSessionStorage;
    use rustls::{ServerConfig, ServerConnection, StreamOwned};

    use super::*;

    /// An echo server, with sessions that can be resumed or not.
    fn tls_server(resumes: bool) -> SocketAddr {
        let certified = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = certified.signing_key.serialize_der().try_into().unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        if !resumes {
            config.session_storage = Arc::new(NoServerSessionStorage {});
        }
        let config = Arc::new(config);
        server(move |socket| {
            socket.set_nodelay(true).unwrap();
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(session, socket);
            let mut buffer = vec![0; 50_000];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..count]).and_then(|()| stream.flush()).is_err() {
                    return;
                }
            }
        })
    }

    #[test]
    fn messages_of_all_sizes_pass() {
        for (message_size, in_flight) in [(64, 1), (1, 16), (300_001, 5)] {
            let load =
                Load { tls: Tls::Full, message_size, in_flight, ..short_load(tls_server(true)) };
            let report = run(&load, |_| {}).unwrap();
            assert!(report.messages > 0 && report.failure().is_none(), "{report}");
        }
    }

    #[test]
    fn a_server_without_tls_is_an_error() {
        let load = Load { tls: Tls::Full, ..short_load(server(faithful)) };
        assert!(matches!(run(&load, |_| {}), Err(LoadError::Connection { .. })));
    }

    #[test]
    fn connections_go_on_with_the_session_of_another_one() {
        let churn = |tls, resumes| {
            let load = Load { tls, mode: Mode::Churn, ..short_load(tls_server(resumes)) };
            run(&load, |_| {}).unwrap()
        };
        let resumed = churn(Tls::Resumed, true);
        assert!(resumed.connections_made > 0 && resumed.failure().is_none(), "{resumed}");
        assert!(churn(Tls::Full, true).failure().is_none());
        let failure = churn(Tls::Resumed, false).failure();
        assert!(failure.is_some_and(|failure| failure.contains("not resumed")));
    }
}
