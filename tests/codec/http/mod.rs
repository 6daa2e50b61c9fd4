//! HTTP/1.1: requests as the codec takes them.

mod requests;
mod table;
