//! Elementwise sum of two values of one shape: the residual connection.

use super::Operator;
use super::forward::{Forward, Operands};
use crate::conv::Scratch;
use crate::error::{Error, Result};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Add;

impl Operator for Add {
    fn name(&self) -> &'static str {
        "Add"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let (left, right) = (inputs[0], inputs[1]);
        if left != right {
            return Err(Error::Shapes { what: "Add", left: left.to_vec(), right: right.to_vec() });
        }
        Ok(left.to_vec())
    }
}

/// A sum that no convolution could take along.
pub(crate) struct AddInto;

impl Forward for AddInto {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], in_place: bool, _: &mut Scratch) {
        if in_place {
            y.iter_mut().zip(x.get(1)).for_each(|(y, b)| *y += b);
        } else {
            y.iter_mut().zip(x.get(0).iter().zip(x.get(1))).for_each(|(y, (a, b))| *y = a + b);
        }
    }

    fn in_place(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        "Add".into()
    }
}
