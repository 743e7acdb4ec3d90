//! The one error type.

use core::fmt::{self, Write};
use std::path::PathBuf;

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
    /// Another number of inputs than a graph has.
    #[error("the graph takes {takes} inputs, but gets {gets}")]
    Inputs {
        /// How many there are.
        takes: usize,
        /// How many were given.
        gets: usize,
    },
    /// A graph without outputs.
    #[error("a graph needs an output")]
    Outputs,
    /// An output that does not exist.
    #[error("output {asked} was asked for, but there are {outputs}")]
    NoOutput {
        /// The number asked for, from 0.
        asked: usize,
        /// How many there are.
        outputs: usize,
    },
    /// An operator that cannot be differentiated.
    #[error("{operator} has no gradient")]
    NoGradient {
        /// Which operator.
        operator: &'static str,
    },
    /// What went wrong in a named layer of a model.
    #[error("layer `{}`: {error}", shown(.layer))]
    Layer {
        /// The layer's dotted name.
        layer: String,
        /// What is wrong there.
        error: Box<Error>,
    },
    /// A linear layer behind a wrong number of features.
    #[error("Linear takes {takes} features, gets {gets}")]
    Features {
        /// Features that the layer was made for.
        takes: usize,
        /// Features that arrive.
        gets: usize,
    },
    /// A layer behind a wrong number of channels.
    #[error("{what} takes {takes} channels, gets {gets}")]
    Channels {
        /// The operator.
        what: &'static str,
        /// Channels that the layer was made for.
        takes: usize,
        /// Channels that arrive.
        gets: usize,
    },
    /// A tensor of the wrong number of dimensions.
    #[error("{what} takes {takes}, gets the shape {gets:?}")]
    Rank {
        /// Operator or function.
        what: &'static str,
        /// The form it takes, such as `[n, c, h, w]`.
        takes: &'static str,
        /// The shape that arrives.
        gets: Vec<usize>,
    },
    /// Two shapes that should agree.
    #[error("{what}: the shapes {left:?} and {right:?} do not agree")]
    Shapes {
        /// Where.
        what: &'static str,
        /// The one shape.
        left: Vec<usize>,
        /// The other shape.
        right: Vec<usize>,
    },
    /// A layer option that does not go with the others, or with the input.
    #[error("{what} is {value}, but {rule}")]
    Setting {
        /// The option.
        what: &'static str,
        /// Its value.
        value: String,
        /// The rule that it breaks, with the other number.
        rule: String,
    },
    /// Values of two different models were combined.
    #[error("{what} combines values of two different models")]
    Foreign {
        /// The operator.
        what: &'static str,
    },
    /// Two different layers declare a parameter of the same name.
    #[error("two layers declare the parameter `{}`; give one of them a name of its own with `.named(..)`", shown(.name))]
    DuplicateParameter {
        /// The dotted name.
        name: String,
    },
    /// No parameter, or no tensor, of this name.
    #[error("{} has no tensor `{}`; it has: {}", shown(.place), shown(.name), list(.known))]
    UnknownTensor {
        /// The model or the file.
        place: String,
        /// The name asked for.
        name: String,
        /// The names that exist.
        known: Vec<String>,
    },
    /// No network of this name in the zoo.
    #[error("there is no network {name:?}; there are {}", .known.join(", "))]
    UnknownNetwork {
        /// The name asked for.
        name: String,
        /// The names that exist.
        known: Vec<&'static str>,
    },
    /// A parameter is set to a tensor of another shape.
    #[error("tensor `{}` has the shape {actual:?}, but the model's parameter has {expected:?}", shown(.name))]
    ParameterShape {
        /// The dotted name.
        name: String,
        /// Shape of the tensor on offer.
        actual: Vec<usize>,
        /// Shape of the model's parameter.
        expected: Vec<usize>,
    },
    /// Strict loading: the file lacks parameters of the model, or has tensors that the model lacks.
    #[error("{} does not fit the model: missing {}; unexpected {}", shown(.file), list(.missing), list(.unexpected))]
    ParameterNames {
        /// The file.
        file: String,
        /// Parameters that the file lacks.
        missing: Vec<String>,
        /// Tensors that the model does not know.
        unexpected: Vec<String>,
    },
    /// A tensor of an element type that cannot be read.
    #[error("tensor `{}` of {} has elements of type {dtype}; only F16, BF16, F32 and F64 can be read", shown(.name), shown(.file))]
    ElementType {
        /// The file.
        file: String,
        /// The tensor.
        name: String,
        /// Its element type.
        dtype: String,
    },
    /// A file that is damaged or is not what it should be.
    #[error("{}: {}", shown(.file), shown(.problem))]
    Format {
        /// The file.
        file: String,
        /// What is wrong, with both numbers.
        problem: String,
    },
    /// More memory than the system gives.
    #[error("no memory for {bytes} bytes")]
    Memory {
        /// What was asked for.
        bytes: usize,
    },
    /// A loss that is NaN or infinite.
    #[error("the loss is {loss} at step {step}: the first that is not finite is {first}")]
    NotFinite {
        /// The loss.
        loss: f32,
        /// Updates before it.
        step: u64,
        /// The tensor that went bad first.
        first: String,
    },
    /// There is no folder for the tuning file.
    #[error("no place for the tuning file: {reason}; SWATH_TUNE_FILE can name one")]
    TuningFolder {
        /// Why the user's configuration folder cannot be found.
        reason: String,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {error}", shown(&path.to_string_lossy()))]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Its reason.
        error: std::io::Error,
    },
}

impl Error {
    /// Says in which layer the error arose. The innermost layer speaks first, and its name stays.
    pub(crate) fn in_layer(self, layer: &str) -> Self {
        match self {
            e @ Error::Layer { .. } => e,
            e if layer.is_empty() => e,
            e => Error::Layer { layer: layer.into(), error: Box::new(e) },
        }
    }
}

/// A text from outside, such as a path or a name from a file, as part of one line: line breaks and what terminals act on are
/// shown as escapes.
fn shown(text: &str) -> impl fmt::Display {
    fmt::from_fn(move |f| {
        text.chars()
            .try_for_each(|c| if c.is_control() { write!(f, "{}", c.escape_default()) } else { f.write_char(c) })
    })
}

/// Names for a message: all of a few, the first of many.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 8;
    if names.is_empty() {
        return "none".into();
    }
    let shown = names.iter().take(SHOWN).map(|n| format!("`{}`", shown(n))).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// `Result` with this crate's [`enum@Error`].
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// `Ok` if `actual == expected`, else [`Error::Length`].
pub(crate) fn check_len(what: &'static str, actual: usize, expected: usize) -> Result<()> {
    if actual == expected { Ok(()) } else { Err(Error::Length { what, actual, expected }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_whatever_names_hold() {
        let name = || "a\n\u{1b}[31m\u{9b}".to_string();
        let unknown = Error::UnknownTensor { place: name(), name: name(), known: vec![name()] };
        let format = Error::Format { file: name(), problem: name() };
        let io = Error::Io { action: "read", path: name().into(), error: std::io::ErrorKind::NotFound.into() };
        let layer = Error::Layer { layer: name(), error: Box::new(Error::Memory { bytes: 1 }) };
        for e in [unknown, format, io, layer] {
            let text = e.to_string();
            assert!(text.contains("a\\n\\u{1b}[31m\\u{9b}") && !text.contains(char::is_control), "{text}");
        }
    }
}
