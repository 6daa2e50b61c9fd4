//! WebSocket: its codec.

mod frames;
