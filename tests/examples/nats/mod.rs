//! The broker, run as a user runs it: by itself, with clients that others wrote, and compared with
//! nats-server.

#![allow(unreachable_pub, reason = "modules of a program")]

mod client;
mod clients;
mod differential;
mod limits;
mod modules;
mod programs;
mod reactors;
mod serving;
mod tls;
