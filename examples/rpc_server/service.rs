//! What the server serves and the client calls: the trait that the server implements, and the
//! client's methods.

millstream::rpc::service! {
    /// Greets, and works.
    pub(crate) trait Office in "demo.Office" {
        /// A greeting.
        idempotent fn greet(name: String) -> String;
        /// Works for this many milliseconds, and says what was done.
        later fn work(millis: u64) -> String;
    }

    /// Calls an [`Office`].
    pub(crate) struct OfficeClient;
}
