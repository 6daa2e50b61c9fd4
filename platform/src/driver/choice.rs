//! The choice of a driver: the one place that names those which an engine can be started on.

use std::env;
use std::fmt;
use std::str::FromStr;

use super::{Readiness, SystemDriver};

/// Which driver an engine uses. Its text is its name in lower case.
#[doc(alias("epoll", "kqueue", "poller"))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DriverChoice {
    /// `automatic`: the best one that the system has, which today is always `readiness`.
    #[default]
    Automatic,
    /// `readiness`: epoll on Linux, kqueue on macOS and the BSDs.
    Readiness,
}

/// What an operator forces a driver with.
const VARIABLE: &str = "MILLSTREAM_DRIVER";

const NAMES: [(&str, DriverChoice); 2] =
    [("automatic", DriverChoice::Automatic), ("readiness", DriverChoice::Readiness)];

/// A text names no driver.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no driver {name:?}; there are: {}", NAMES.map(|(name, _)| name).join(", "))]
pub struct UnknownDriver {
    /// The text.
    pub name: String,
}

/// What is done with a driver, whichever it is: see [`run_on`].
pub trait OnDriver {
    /// What comes of it.
    type Output;

    /// Does it with this driver.
    fn run<D: SystemDriver>(self) -> Self::Output;
}

/// What the environment variable `MILLSTREAM_DRIVER` says; `None` if it is not set, or empty.
///
/// # Errors
/// It names no driver.
pub fn forced() -> Result<Option<DriverChoice>, UnknownDriver> {
    let value = env::var_os(VARIABLE).filter(|value| !value.is_empty());
    value.map(|value| value.to_string_lossy().parse()).transpose()
}

/// Does something with the driver that was chosen.
pub fn run_on<T: OnDriver>(choice: DriverChoice, task: T) -> T::Output {
    match choice {
        DriverChoice::Automatic | DriverChoice::Readiness => task.run::<Readiness>(),
    }
}

impl FromStr for DriverChoice {
    type Err = UnknownDriver;

    fn from_str(text: &str) -> Result<Self, UnknownDriver> {
        let named = NAMES.iter().find(|(name, _)| *name == text);
        let (_, choice) = named.ok_or_else(|| UnknownDriver { name: text.to_owned() })?;
        Ok(*choice)
    }
}

impl fmt::Display for DriverChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = NAMES.iter().find(|(_, choice)| choice == self);
        f.pad(named.expect("each has a name").0)
    }
}
