//! Elementwise sum of two values of one shape: the residual connection.

use swath_kernels::layout::BLOCK;

use super::Operator;
use super::forward::{Forward, Operands};
use crate::conv::Scratch;
use crate::error::{Error, Result};
use crate::par;

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
        let (a, b) = (if in_place { &[] } else { x.get(0) }, x.get(1));
        // A line of floats as the unit, of which the last piece may hold a part.
        par::for_each_piece(y, BLOCK.min(y.len().max(1)), 1, |lines, y| {
            let here = lines.start * BLOCK..lines.start * BLOCK + y.len();
            if in_place {
                y.iter_mut().zip(&b[here]).for_each(|(y, b)| *y += b);
            } else {
                y.iter_mut().zip(a[here.clone()].iter().zip(&b[here])).for_each(|(y, (a, b))| *y = a + b);
            }
        });
    }

    fn in_place(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        "Add".into()
    }
}
