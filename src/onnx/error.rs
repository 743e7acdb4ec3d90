//! What can be wrong with a file.

use std::fmt::{self, Write};

/// A file that is not an ONNX model, is damaged, or holds a form that this crate refuses; with the place in the file.
///
/// ```
/// let error = swath::onnx::ModelProto::read(b"\x3a\x7f").unwrap_err();
/// assert_eq!(error.to_string(), "byte 2, in the model: a field of 127 bytes, but 0 are left");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnnxError {
    offset: usize,
    places: Vec<String>,
    problem: String,
}

impl OnnxError {
    /// The problem at a byte offset of the file.
    pub(crate) fn new(offset: usize, problem: impl Into<String>) -> Self {
        Self { offset, places: Vec::new(), problem: problem.into() }
    }

    /// Names the message that the problem lies in. The innermost message speaks first.
    pub(crate) fn within(mut self, place: impl FnOnce() -> String) -> Self {
        self.places.push(place());
        self
    }

    /// Where in the file the problem is, in bytes from its start.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// What is wrong, without the place.
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

impl fmt::Display for OnnxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}", self.offset)?;
        for (i, place) in self.places.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { ", in " } else { " of " }, Printable(place))?;
        }
        write!(f, ": {}", Printable(&self.problem))
    }
}

/// Text with names from a file, whose line breaks and control codes must not reach a terminal.
struct Printable<'a>(&'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .chars()
            .try_for_each(|c| if c.is_control() { write!(f, "{}", c.escape_default()) } else { f.write_char(c) })
    }
}

impl std::error::Error for OnnxError {}

/// `Result` with [`OnnxError`].
pub(crate) type Read<T> = Result<T, OnnxError>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_control_codes_are_told_in_one_line() {
        let error = OnnxError::new(7, "input `a\u{1b}[2J` is missing").within(|| "node 0 `els\ny\u{e9}`".into());
        assert_eq!(error.to_string(), "byte 7, in node 0 `els\\ny\u{e9}`: input `a\\u{1b}[2J` is missing");
    }
}
