//! Operators on arrays of any element type, in plain Rust: exact for integers, summed in double precision for floats.
//!
//! They compute what an imported model says of shapes (integer arithmetic that folds away once the input's shape is known),
//! and whatever a network holds that has no kernel. Arrays have NumPy's form: any number of dimensions, the last one
//! contiguous.

pub mod array;

pub use array::{Array, Data, ElementType};
