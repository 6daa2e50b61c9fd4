//! The guide: how to build on the engine.
//!
//! 1. [A first server](first_server)
//! 2. [Input, and how long it lives](input)
//! 3. [Write your own protocol](protocols)
//! 4. [Output and backpressure](backpressure)
//! 5. [Timers and deadlines](timers)
//! 6. [Request timeouts and keep-alive](keep_alive)
//! 7. [Threads](threads)
//! 8. [Talking to other connections](other_connections)
//! 9. [Listening](listening)
//! 10. [Connecting](connecting)
#![cfg_attr(any(feature = "tls", feature = "tls-ring"), doc = "11. [TLS](tls)")]
//! 12. [Handing sockets over](handing_over)
//! 13. [Datagrams](datagrams)
//! 14. [Closing and shutting down](shutting_down)
//! 15. [Restarting](restarting)
#![cfg_attr(feature = "http", doc = "16. [HTTP](http)")]
#![cfg_attr(feature = "websocket", doc = "17. [WebSocket](websocket)")]
#![cfg_attr(feature = "rpc", doc = "18. [Remote procedure calls](rpc)")]
//! 19. [Several protocols](several_protocols)
#![cfg_attr(feature = "sim", doc = "20. [Testing your server](testing)")]
//! 21. [Watching a server](watching)
//! 22. [What is guaranteed, and what is not](guarantees)
//! 23. [How we measure](measuring)
//! 24. [Coming from gnet, netpoll, libuv or mio](migrating)
//! 25. [What is in it, what is not, and the examples](overview)

#[doc = include_str!("../docs/guide/first_server.md")]
pub mod first_server {}

#[doc = include_str!("../docs/guide/input.md")]
pub mod input {}

#[doc = include_str!("../docs/guide/protocols.md")]
pub mod protocols {}

#[doc = include_str!("../docs/guide/several_protocols.md")]
pub mod several_protocols {}

#[doc = include_str!("../docs/guide/backpressure.md")]
pub mod backpressure {}

#[doc = include_str!("../docs/guide/timers.md")]
pub mod timers {}

#[doc = include_str!("../docs/guide/keep_alive.md")]
pub mod keep_alive {}

#[doc = include_str!("../docs/guide/threads.md")]
pub mod threads {}

#[doc = include_str!("../docs/guide/other_connections.md")]
pub mod other_connections {}

#[doc = include_str!("../docs/guide/listening.md")]
pub mod listening {}

#[doc = include_str!("../docs/guide/connecting.md")]
pub mod connecting {}

#[cfg(any(feature = "tls", feature = "tls-ring"))]
#[doc = include_str!("../docs/guide/tls.md")]
pub mod tls {}

#[doc = include_str!("../docs/guide/handing_over.md")]
pub mod handing_over {}

#[doc = include_str!("../docs/guide/datagrams.md")]
pub mod datagrams {}

#[doc = include_str!("../docs/guide/shutting_down.md")]
pub mod shutting_down {}

#[doc = include_str!("../docs/guide/restarting.md")]
pub mod restarting {}

#[cfg(feature = "http")]
#[doc = include_str!("../docs/guide/http.md")]
pub mod http {}

#[cfg(feature = "websocket")]
#[doc = include_str!("../docs/guide/websocket.md")]
pub mod websocket {}

#[cfg(feature = "rpc")]
#[doc = include_str!("../docs/guide/rpc.md")]
pub mod rpc {}

#[cfg(feature = "sim")]
#[doc = include_str!("../docs/guide/testing.md")]
pub mod testing {}

#[doc = include_str!("../docs/guide/watching.md")]
pub mod watching {}

#[doc = include_str!("../docs/guide/guarantees.md")]
pub mod guarantees {}

#[doc = include_str!("../docs/guide/measuring.md")]
pub mod measuring {}

#[doc = include_str!("../docs/guide/migrating.md")]
pub mod migrating {}

#[doc = include_str!("../docs/guide/overview.md")]
pub mod overview {}
