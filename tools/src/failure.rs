//! Failures as the program reports them: one line.

use std::fmt;
use std::io;

use crate::terminal;

/// What went wrong, in one line; or that nobody reads the output any more, which is no failure.
#[derive(Debug)]
pub enum Failure {
    /// A line for stderr.
    Message(String),
    /// The reader of stdout went away, as `head` does.
    Closed,
}

/// `Result` with [`Failure`].
pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// A failure with this message; line breaks become spaces, and escape sequences in names are shown as such.
    pub fn new(message: impl fmt::Display) -> Self {
        let words = message.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        Failure::Message(terminal::line(&words).into_owned())
    }
}

impl From<swath::Error> for Failure {
    fn from(e: swath::Error) -> Self {
        Failure::new(e)
    }
}

impl From<swath::benchdnn::ProblemError> for Failure {
    fn from(e: swath::benchdnn::ProblemError) -> Self {
        Failure::new(e)
    }
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        if e.kind() == io::ErrorKind::BrokenPipe {
            Failure::Closed
        } else {
            Failure::new(format_args!("cannot write the output: {e}"))
        }
    }
}
