//! What is known of a value before anything runs: its extents and the type of its elements.

pub use crate::ops::{ElementType, Fact};
