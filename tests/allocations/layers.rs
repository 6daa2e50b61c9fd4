//! A call allocates nothing on its way through the layers that have nothing to keep, as long as
//! nobody listens to what they log.

use std::time::Duration;

use crate::ALLOCATOR;
use crate::common::alone::alone;
use millstream::Bytes;
use millstream::internals::LoneCall;
use millstream::rpc::{Call, Chain, Deadline, Logging, Recovery};
use stats_alloc::Region;
use tracing::subscriber::with_default;

#[test]
fn layers_allocate_nothing_when_nobody_listens() {
    alone(|| {
        let deadline = Deadline::new().or(Duration::from_secs(1)).at_most(Duration::from_secs(2));
        let layers = Chain::new(Chain::new(Recovery::new(), Logging::new()), deadline);
        let call = LoneCall::new();
        let allocated = || {
            let region = Region::new(ALLOCATOR);
            let mut handler = |call: &mut Call<'_>| call.answer_bytes(Bytes::from_static(b"yes"));
            let end = call.make(&layers, &mut handler, || {});
            assert_eq!(end.result.expect("it is answered"), "yes");
            let change = region.change();
            change.allocations + change.reallocations
        };
        allocated(); // The first one registers what may be logged.
        assert_eq!(allocated(), 0);
        let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG);
        let listened = with_default(subscriber.with_writer(std::io::sink).finish(), allocated);
        assert_ne!(listened, 0, "a call that is logged has a hook");
    });
}
