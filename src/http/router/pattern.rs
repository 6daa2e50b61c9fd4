//! What is wrong with routes.

use matchit::InsertError;

/// Why a router can't be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// Two patterns match the same paths, and neither comes before the other.
    #[error("the pattern {pattern:?} is in the way of {with:?}")]
    Conflict {
        /// The pattern that was added later.
        pattern: String,
        /// The earlier one.
        with: String,
    },
    /// A method of a pattern has two handlers.
    #[error("{method} of {pattern:?} has two handlers")]
    Twice {
        /// The method, or `any`.
        method: String,
        /// The pattern.
        pattern: String,
    },
    /// A pattern is not one.
    #[error("{pattern:?} is not a pattern: {source}")]
    Pattern {
        /// What it is instead.
        pattern: String,
        /// What is wrong with it.
        source: PatternError,
    },
    /// A method's name is not a token.
    #[error("{method:?} is not the name of a method")]
    Method {
        /// The name.
        method: String,
    },
}

/// What is wrong with a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// It does not begin with a slash.
    #[error("it does not begin with a slash")]
    NoSlash,
    /// It is a prefix, and ends with a slash, as what follows begins with one.
    #[error("a prefix does not end with a slash")]
    Prefix,
    /// It has something that comes in no path: a space, a question mark, a fragment, a character
    /// that is not ASCII.
    #[error("no path has such a character")]
    Character,
    /// Braces are not in pairs, or there is no name in them.
    #[error("a parameter is a name in braces")]
    Parameter,
    /// A segment has more than one parameter.
    #[error("a segment has two parameters")]
    TwoInSegment,
    /// Two parameters have one name.
    #[error("two parameters have one name")]
    SameName,
    /// A `{*name}` is not at the end, or not a whole segment.
    #[error("the rest of a path is at its end")]
    Rest,
}

impl RouteError {
    /// Why `pattern` was not added to these.
    pub(super) fn of(error: InsertError, pattern: &str, patterns: &[String]) -> Self {
        let source = match error {
            InsertError::Conflict { with } => {
                let other = patterns.iter().find(|other| conflict(other, pattern)).cloned();
                return RouteError::Conflict {
                    pattern: pattern.to_owned(),
                    with: other.unwrap_or(with),
                };
            }
            InsertError::InvalidParamSegment => PatternError::TwoInSegment,
            InsertError::InvalidCatchAll => PatternError::Rest,
            _ => PatternError::Parameter,
        };
        RouteError::Pattern { pattern: pattern.to_owned(), source }
    }
}

/// Whether these two alone are in each other's way.
fn conflict(one: &str, other: &str) -> bool {
    let mut tree = matchit::Router::new();
    tree.insert(one, ()).is_ok() && tree.insert(other, ()).is_err()
}

/// Looks for what the tree of patterns does not mind.
pub(super) fn check_pattern(pattern: &str) -> Result<(), RouteError> {
    let fail = |source| Err(RouteError::Pattern { pattern: pattern.to_owned(), source });
    if !pattern.starts_with('/') {
        return fail(PatternError::NoSlash);
    }
    if pattern.bytes().any(|byte| !byte.is_ascii_graphic() || b"?#".contains(&byte)) {
        return fail(PatternError::Character);
    }
    let mut names: Vec<&str> = names(pattern).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return fail(PatternError::SameName);
    }
    Ok(())
}

/// The names of a pattern's parameters.
fn names(pattern: &str) -> impl Iterator<Item = &str> {
    let mut rest = pattern;
    std::iter::from_fn(move || {
        loop {
            let (_, behind) = rest.split_once('{')?;
            match behind.strip_prefix('{') {
                Some(behind) => rest = behind, // A brace that is meant.
                None => {
                    let (name, behind) = behind.split_once('}')?;
                    rest = behind;
                    return Some(name.trim_start_matches('*'));
                }
            }
        }
    })
}
