//! A service that is not written as it should be says how it is written.

millstream::rpc::service! {
    trait Nameless {
        fn method();
    }

    struct NamelessClient;
}

millstream::rpc::service! {
    trait Hasty in "test.Hasty" {
        async fn method() -> u8;
    }

    struct HastyClient;
}

fn main() {}
