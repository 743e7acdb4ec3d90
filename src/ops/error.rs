//! What an operator says when it refuses.

use std::fmt;

/// Why an operator refuses its inputs or attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpError(String);

impl OpError {
    /// The reason, with the numbers that disagree.
    pub fn new(problem: impl Into<String>) -> Self {
        Self(problem.into())
    }
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OpError {}

/// `Result` with [`OpError`].
pub type OpResult<T> = Result<T, OpError>;

/// Returns an [`OpError`]: `refuse!("axis is {axis}")`.
macro_rules! refuse {
    ($($text:tt)*) => { return Err($crate::ops::OpError::new(format!($($text)*))) };
}
pub(crate) use refuse;
