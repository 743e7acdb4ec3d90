//! Operators on arrays of any element type, in plain Rust: exact for integers, summed in double precision for floats.
//!
//! They compute what an imported model says of shapes (integer arithmetic that folds away once the input's shape is known),
//! and whatever a network holds that has no kernel. Arrays have NumPy's form: any number of dimensions, the last one
//! contiguous. Names and meanings are ONNX's, of all versions since 1.
//!
//! ```
//! use swath::ops::{Array, Attributes, Call, operator};
//!
//! let (a, b) = (Array::vector(vec![1i64, 2, 3]), Array::scalar(10i64));
//! let call = Call { opset: 13, attributes: &Attributes::new(), inputs: &[Some(&a), Some(&b)], outputs: 1 };
//! let sum = operator("Add").expect("there is one").run(&call)?;
//! assert_eq!(sum, [Array::vector(vec![11i64, 12, 13])]);
//! # Ok::<(), swath::ops::OpError>(())
//! ```

// The same code for elements of every type: some of them are not `Copy`, and some have no negative values.
#![allow(clippy::clone_on_copy, clippy::absurd_extreme_comparisons, clippy::unnecessary_cast)]

mod array;
mod attention;
mod binary;
mod call;
mod conv;
mod detect;
mod doubles;
mod error;
mod gather;
mod infer;
mod loss;
mod matrix;
mod norm;
pub mod npy;
mod number;
mod pool;
mod quantize;
mod recurrent;
mod reduce;
mod resize;
mod room;
mod shape;
mod unary;
mod view;
mod wide;
mod window;

pub use array::{Array, Data, Element, ElementType};
pub use call::{Attribute, Attributes, Call};
pub use doubles::cast;
pub use error::{OpError, OpResult};
pub use infer::{Fact, Inference, Known};
use view::Move;
/// What lowering ONNX models asks for.
#[cfg(feature = "onnx")]
pub(crate) use {
    array::zeros,
    conv::transposed_axes,
    recurrent::{Named, activations},
    resize::{Sampler, resize_sums},
    room::{checked_count, count, limited, room},
    unary::erf,
    view::View,
    window::{Axis, pool_axes, window_axes},
};

/// An operator: its name and what it computes.
#[derive(Debug, Clone, Copy)]
pub struct Operator {
    /// ONNX's name.
    pub name: &'static str,
    how: How,
}

/// How an operator makes its outputs.
#[derive(Debug, Clone, Copy)]
enum How {
    /// By computing.
    Compute(fn(&Call<'_>) -> OpResult<Vec<Array>>),
    /// By moving elements of input 0, which has these dimensions. Nothing is asked of its elements.
    Move(Mover),
}

/// Where the elements of outputs lie in input 0 of these dimensions.
pub(crate) type Mover = fn(&Call<'_>, &[usize]) -> OpResult<Vec<Move>>;

impl Operator {
    const fn new(name: &'static str, run: fn(&Call<'_>) -> OpResult<Vec<Array>>) -> Self {
        Self { name, how: How::Compute(run) }
    }

    const fn moving(name: &'static str, mover: Mover) -> Self {
        Self { name, how: How::Move(mover) }
    }

    /// What tells where its outputs' elements lie, if they only move.
    pub(crate) fn mover(&self) -> Option<Mover> {
        match self.how {
            How::Compute(_) => None,
            How::Move(mover) => Some(mover),
        }
    }

    /// The outputs, at least as many as the call wants.
    ///
    /// # Errors
    ///
    /// [`OpError`] if inputs or attributes are missing, of a wrong type, or do not go together.
    pub fn run(&self, call: &Call<'_>) -> OpResult<Vec<Array>> {
        let outputs = match self.how {
            How::Compute(run) => run(call)?,
            How::Move(mover) => {
                let x = call.input(0)?;
                mover(call, x.dims())?.iter().map(|m| m.array(x)).collect::<OpResult<_>>()?
            }
        };
        if outputs.len() < call.outputs {
            return Err(OpError::new(format!("{} outputs, but {} are wanted", outputs.len(), call.outputs)));
        }
        Ok(outputs)
    }
}

/// Every operator, by the file that holds it.
const OPERATORS: &[&[Operator]] = &[
    attention::OPERATORS,
    binary::OPERATORS,
    conv::OPERATORS,
    detect::OPERATORS,
    gather::OPERATORS,
    loss::OPERATORS,
    matrix::OPERATORS,
    norm::OPERATORS,
    pool::OPERATORS,
    quantize::OPERATORS,
    recurrent::OPERATORS,
    reduce::OPERATORS,
    resize::OPERATORS,
    shape::OPERATORS,
    unary::OPERATORS,
];

/// All operators.
pub fn operators() -> impl Iterator<Item = &'static Operator> {
    OPERATORS.iter().copied().flatten()
}

/// The operator of ONNX's name; `None` if there is none.
pub fn operator(name: &str) -> Option<&'static Operator> {
    operators().find(|op| op.name == name)
}
