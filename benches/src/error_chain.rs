//! An error in one line.

use std::error::Error;

/// The error and what caused it, separated by colons.
#[must_use]
pub fn describe(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::LoadError;

    #[test]
    fn causes_follow() {
        let source = std::io::Error::other("no luck");
        let error = LoadError::Connection { connection: 7, source };
        assert_eq!(describe(&error), "connection 7 failed: no luck");
    }
}
