//! The tools of the benchmarks: the load generator, the stand that measures servers, and the
//! servers written by hand.

mod hand_written;
mod load;
mod stand;
