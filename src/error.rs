//! The one error type.

use swath_kernels::isa::LevelError;
use swath_kernels::shape::ShapeError;
use thiserror::Error;

use crate::benchdnn::ProblemError;

/// Everything that can go wrong. Variants carry both of the numbers that disagree.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A geometry that does not exist.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// An instruction-set level that is unknown or that this machine lacks.
    #[error(transparent)]
    Level(#[from] LevelError),
    /// The environment variable `SWATH_LEVEL` names a level that is unknown or that this machine lacks.
    #[error("SWATH_LEVEL: {0}")]
    LevelVariable(LevelError),
    /// A problem in benchdnn's notation that cannot be read.
    #[error(transparent)]
    Problem(#[from] ProblemError),
    /// A buffer of the wrong length.
    #[error("{what} has {actual} elements, but {expected} are needed")]
    Length {
        /// Which buffer.
        what: &'static str,
        /// Its length.
        actual: usize,
        /// The length that is needed.
        expected: usize,
    },
    /// An algorithm that is unknown or does not support the shape.
    #[error("algorithm {name:?}: {why}")]
    Algo {
        /// What was asked for.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// Weights that were packed for another plan.
    #[error("the weights were packed for {packed}, but this plan needs {expected}")]
    Weights {
        /// What they were packed for.
        packed: String,
        /// What the plan needs.
        expected: String,
    },
    /// A thread pool that could not be started.
    #[error("cannot start threads: {reason}")]
    Threads {
        /// The system's reason.
        reason: String,
    },
}

/// `Result` with this crate's [`enum@Error`].
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// `Ok` if `actual == expected`, else [`Error::Length`].
pub(crate) fn check_len(what: &'static str, actual: usize, expected: usize) -> Result<()> {
    if actual == expected { Ok(()) } else { Err(Error::Length { what, actual, expected }) }
}
