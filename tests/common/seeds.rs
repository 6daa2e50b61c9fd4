//! Many seeds, by default or as the environment says.

pub use millstream::sim::for_each_seed;
