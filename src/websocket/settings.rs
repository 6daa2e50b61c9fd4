//! What all connections of one kind have in common.

use std::time::Duration;

use super::limits::MessageLimits;

/// What connections are set to.
#[derive(Clone, Debug)]
pub(super) struct SocketSettings {
    pub(super) limits: MessageLimits,
    pub(super) ping_interval: Option<Duration>,
    pub(super) pong_timeout: Duration,
    pub(super) close_timeout: Duration,
    pub(super) backlog: usize,
}

impl Default for SocketSettings {
    fn default() -> Self {
        SocketSettings {
            limits: MessageLimits::default(),
            ping_interval: Some(Duration::from_secs(30)),
            pong_timeout: Duration::from_secs(15),
            close_timeout: Duration::from_secs(5),
            backlog: 1 << 20,
        }
    }
}
