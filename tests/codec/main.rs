//! Codecs: the framings, the wrappers around them, RESP, HTTP and WebSocket; and `Framed`, which
//! serves them.

mod check;
#[path = "../common/mod.rs"]
mod common;

/// Runs each of these functions three times: with nothing between socket and handler (`plain`),
/// with a layer there that flips every bit (`in_layers`), and with TLS (`in_tls`).
macro_rules! on_each_wire {
    ($($name:ident)*) => {
        mod plain {
            use crate::common::wire::Wire;
            $(#[test] fn $name() { super::$name(Wire::Plain); })*
        }

        mod in_layers {
            use crate::common::wire::Wire;
            $(#[test] fn $name() { super::$name(Wire::Flipped); })*
        }

        mod in_tls {
            use crate::common::wire::Wire;
            $(#[test] fn $name() { super::$name(Wire::Tls); })*
        }
    };
}

mod compat;
mod forwarding;
mod frame_timeout;
mod framed;
mod framings;
mod http;
mod resp;
#[cfg(feature = "tokio-util")]
mod upgrading;
mod websocket;
mod wrapping;
