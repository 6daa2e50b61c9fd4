//! A server has all methods of its service, with the service's types.

use millstream::rpc::{Call, Status};

millstream::rpc::service! {
    trait Two in "test.Two" {
        fn first(number: u8) -> u8;
        fn second();
    }

    struct TwoClient;
}

struct One;

impl Two for One {
    type Error = Status;

    fn first(&mut self, _call: &mut Call<'_>, _number: u16) -> Result<u8, Status> {
        Ok(0)
    }
}

fn main() {}
