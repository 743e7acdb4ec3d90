//! What is known of a value before anything runs: its extents and the type of its elements.

use core::fmt;

pub use crate::ops::ElementType;

/// Extents and element type of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Extents, outermost first; `[n, c, h, w]` for images whatever their layout.
    pub dims: Vec<usize>,
    /// Type of the elements.
    pub element: ElementType,
}

impl Fact {
    /// Floats of these extents.
    pub fn f32(dims: impl Into<Vec<usize>>) -> Self {
        Self { dims: dims.into(), element: ElementType::F32 }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims)?;
        match self.element {
            ElementType::F32 => Ok(()),
            other => write!(f, " {other}"),
        }
    }
}
