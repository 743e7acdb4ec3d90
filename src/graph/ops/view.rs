//! Reshape and Flatten, which cost nothing where the value lies in row-major order, and Transpose.

use swath_kernels::layout::Layout;
use swath_kernels::shape::checked_elements;

use crate::conv::Scratch;
use crate::error::{Error, Result};
use crate::graph::step::{Operands, Step};
use crate::graph::{Fact, Gradient, Group, Lower, Operator};
use crate::par;

/// `[n, ..]` to `[n, features]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flatten;

impl Operator for Flatten {
    fn name(&self) -> &'static str {
        "Flatten"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        match inputs[0] {
            [n, rest @ ..] if !rest.is_empty() => Ok(vec![*n, checked_elements("flattened tensor", rest)?]),
            other => Err(Error::Rank { what: "Flatten", takes: "[n, ..]", gets: other.to_vec() }),
        }
    }

    /// Nothing runs: the view is made when something asks for it ([`Lower::native`]).
    fn lower(&self, _: &Group, _: &mut Lower<'_>) -> Result<()> {
        Ok(())
    }

    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        let dims = g.fact(g.input(0)).dims.clone();
        let dx = g.push(Reshape::to(&dims), &[g.dy()])?;
        g.add(0, dx[0])
    }

    fn is_flatten(&self) -> bool {
        true
    }
}

/// The same elements in row-major order under other extents: PyTorch's `reshape`. One extent may be -1: what is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reshape {
    pub(crate) dims: Vec<isize>,
}

impl Reshape {
    /// To these extents, of which one may be -1.
    pub fn new(dims: &[isize]) -> Self {
        Self { dims: dims.to_vec() }
    }

    /// To extents that are known.
    pub fn to(dims: &[usize]) -> Self {
        Self { dims: dims.iter().map(|&e| e as isize).collect() }
    }
}

impl Operator for Reshape {
    fn name(&self) -> &'static str {
        "Reshape"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let refused =
            || Error::Rank { what: "Reshape", takes: "a value of as many elements", gets: inputs[0].to_vec() };
        let (all, mut known, mut open) = (inputs[0].iter().product::<usize>(), 1usize, 0);
        for &e in &self.dims {
            match usize::try_from(e) {
                Ok(e) => known = known.saturating_mul(e),
                Err(_) => open += 1,
            }
        }
        let fits = match open {
            0 => known == all,
            1 => known > 0 && all % known == 0,
            _ => false,
        };
        if !fits {
            return Err(refused());
        }
        Ok(self.dims.iter().map(|&e| usize::try_from(e).unwrap_or(all / known.max(1))).collect())
    }

    fn facts(&self, inputs: &[&Fact]) -> Result<Vec<Fact>> {
        Ok(vec![Fact { dims: self.dims(&[&inputs[0].dims])?, element: inputs[0].element }])
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let buffer = cx.want(cx.input(group, 0), Layout::Nchw)?;
        cx.alias(group.value, buffer, Layout::Nchw);
        Ok(())
    }

    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        let dims = g.fact(g.input(0)).dims.clone();
        let dx = g.push(Reshape::to(&dims), &[g.dy()])?;
        g.add(0, dx[0])
    }
}

/// Exchanges axes: axis `i` of the result is axis `permutation[i]` of the input. PyTorch's `permute`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transpose {
    pub(crate) permutation: Vec<usize>,
}

impl Transpose {
    /// From the axes of the input, in the order of the result.
    pub fn new(permutation: &[usize]) -> Self {
        Self { permutation: permutation.to_vec() }
    }
}

impl Operator for Transpose {
    fn name(&self) -> &'static str {
        "Transpose"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let mut sorted = self.permutation.clone();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..inputs[0].len()) {
            let (value, rule) = (format!("{:?}", self.permutation), format!("there are {} axes", inputs[0].len()));
            return Err(Error::Setting { what: "the axes of Transpose", value, rule });
        }
        Ok(self.permutation.iter().map(|&axis| inputs[0][axis]).collect())
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let x = cx.input(group, 0);
        let dims = cx.fact(x).dims.clone();
        let mut strides = vec![1; dims.len()];
        for axis in (1..dims.len()).rev() {
            strides[axis - 1] = strides[axis] * dims[axis];
        }
        let axes = self.permutation.iter().map(|&axis| [dims[axis], strides[axis]]).collect();
        let inputs = vec![cx.want(x, Layout::Nchw)?];
        cx.step(group, Layout::Nchw, Box::new(TransposeStep { axes }), inputs, 0)
    }

    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        let mut inverse = vec![0; self.permutation.len()];
        self.permutation.iter().enumerate().for_each(|(i, &axis)| inverse[axis] = i);
        let dx = g.push(Transpose::new(&inverse), &[g.dy()])?;
        g.add(0, dx[0])
    }
}

/// Extent and stride in the input of each axis of the result.
struct TransposeStep {
    axes: Vec<[usize; 2]>,
}

impl Step for TransposeStep {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, _: &mut Scratch) {
        let x = x.get(0);
        let [outer @ .., [row, stride]] = &self.axes[..] else { return y.copy_from_slice(x) };
        if *row == 0 {
            return;
        }
        par::for_each_piece(y, *row, 1, |rows, y| {
            for (r, y) in rows.zip(y.chunks_mut(*row)) {
                let (mut at, mut rest) = (0, r);
                for [extent, stride] in outer.iter().rev() {
                    at += rest % extent * stride;
                    rest /= extent;
                }
                y.iter_mut().zip(x[at..].iter().step_by(*stride)).for_each(|(y, x)| *y = *x);
            }
        });
    }

    fn describe(&self) -> String {
        "Transpose".into()
    }
}
