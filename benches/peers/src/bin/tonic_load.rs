//! Puts a load on the RPC echo server on tonic: see `calls` in the library.

use std::process::ExitCode;

use millstream_peers::calls::be_load;
use millstream_peers::tonic_echo::Client;

fn main() -> ExitCode {
    be_load::<Client>()
}
