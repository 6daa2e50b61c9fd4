//! The RPC server, called frame by frame: every way to answer, deadlines, limits, the life of a
//! connection, bad input, and the services that are built in.

mod answers;
mod bad_input;
mod deadlines;
mod life;
mod limits;
mod services;
mod unsent;
