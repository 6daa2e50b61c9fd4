//! What a layer costs that only lets calls pass: calls without a connection, through none, one and
//! ten such layers, and through the layers that there are, each on its own.
//!
//!     cargo bench -p millstream-benches --bench rpc_layers

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use millstream::internals::LoneCall;
use millstream::rpc::{
    Answer, Authenticate, Call, Chain, Deadline, Handler, Logging, Metadata, Middleware, Recovery,
    SetMetadata, Status,
};

/// Lets calls pass.
struct Pass;

impl Middleware for Pass {
    fn handle(&self, call: &mut Call<'_>, next: &mut impl Handler) -> Result<Answer, Status> {
        next.handle(call)
    }
}

/// The cost of ten layers, less that of none, is exact enough for the cost of one.
fn ten() -> impl Middleware {
    let two = || Chain::new(Pass, Pass);
    let four = || Chain::new(two(), two());
    Chain::new(Chain::new(four(), four()), two())
}

fn layers(criterion: &mut Criterion) {
    fn case(criterion: &mut Criterion, name: &str, layer: &impl Middleware) {
        let mut group = criterion.benchmark_group("rpc/layers");
        let call = LoneCall::new();
        let mut handler =
            |call: &mut Call<'_>| call.answer_bytes(black_box(Bytes::from_static(b"yes")));
        assert!(call.make(layer, &mut handler, || {}).result.is_ok());
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| black_box(&call).make(black_box(layer), &mut handler, || {}));
        });
        group.finish();
    }
    case(criterion, "none", &());
    case(criterion, "one that passes", &Pass);
    case(criterion, "ten that pass", &ten());
    case(criterion, "Recovery", &Recovery::new());
    case(criterion, "Logging, nobody listens", &Logging::new());
    case(criterion, "Deadline", &Deadline::new().or(Duration::from_secs(1)));
    case(criterion, "SetMetadata, one pair", &{
        let mut metadata = Metadata::new();
        metadata.insert("key", "value").expect("it is a pair");
        SetMetadata::pairs(metadata)
    });
    case(criterion, "SetMetadata, a trace begins", &SetMetadata::trace());
    case(criterion, "Authenticate", &Authenticate::with(|_: &mut Call<'_>| Ok(7_u64)));
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = layers
}
criterion_main!(benches);
