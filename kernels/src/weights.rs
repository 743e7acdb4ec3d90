//! Weights as kernels read them while they pack: in PyTorch's order, or turned for a data gradient.
//!
//! The gradient at a convolution's input is a convolution of the gradient at its output, with the weights turned by
//! half a turn and with input and output channels exchanged:
//!
//! ```text
//! forward   [oc][ic / groups][ky][kx]                      as they lie
//! turned    [ic][oc / groups][kh - 1 - ky][kw - 1 - kx]    all taps, or every few of them for a phase of a stride
//! ```
//!
//! Kernels are packed through this view, so that the same packing serves both passes and no turned copy exists.

use crate::shape::ConvShape;

/// The weights of a convolution `[outputs][inputs of a group][rows][columns]`, anywhere in a slice.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    data: &'a [f32],
    /// Outputs of a group.
    outputs: usize,
    /// Inputs of a group.
    inputs: usize,
    /// Rows and columns of taps.
    taps: [usize; 2],
    /// Where the first tap of the first output's first input lies.
    first: usize,
    /// From group to group.
    group: usize,
    /// From output to output of a group.
    output: usize,
    /// From input to input of a group.
    input: usize,
    /// From row to row of taps.
    row: isize,
    /// From column to column of taps.
    column: isize,
}

/// Every so many taps of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taps {
    /// The first one.
    pub first: usize,
    /// From one to the next.
    pub step: usize,
    /// How many.
    pub n: usize,
}

impl Taps {
    /// All taps of a kernel.
    pub fn all(n: usize) -> Self {
        Self { first: 0, step: 1, n }
    }
}

impl<'a> Weights<'a> {
    /// Weights `[oc, ic / groups, kh, kw]` for the convolution itself.
    ///
    /// # Panics
    /// If the slice's length is not what the shape says.
    pub fn forward(s: &ConvShape, data: &'a [f32]) -> Self {
        assert_eq!(data.len(), s.weights().iter().product::<usize>(), "weights' length");
        let taps = s.kh * s.kw;
        Self {
            data,
            outputs: s.ocg(),
            inputs: s.icg(),
            taps: [s.kh, s.kw],
            first: 0,
            group: s.ocg() * s.icg() * taps,
            output: s.icg() * taps,
            input: taps,
            row: s.kw as isize,
            column: 1,
        }
    }

    /// Weights `[oc, ic / groups, kh, kw]` of `s` for its data gradient: these taps of them, the last one first, whose
    /// outputs are the input channels.
    ///
    /// # Panics
    /// If the slice's length is not what the shape says, or the taps lie beyond the kernel.
    pub fn turned(s: &ConvShape, data: &'a [f32], taps: [Taps; 2]) -> Self {
        Self::forward(s, data).turn(taps)
    }

    /// The same of weights that [`Weights::forward`] made.
    ///
    /// # Panics
    /// If the taps lie beyond the kernel.
    #[must_use]
    pub fn turn(&self, [y, x]: [Taps; 2]) -> Self {
        assert!(y.n > 0 && x.n > 0, "a kernel has taps");
        let last = |t: Taps| t.first + (t.n - 1) * t.step;
        let [rows, columns] = self.taps;
        assert!(last(y) < rows && last(x) < columns, "taps {y:?} and {x:?} of {rows}x{columns}");
        Self {
            outputs: self.inputs,
            inputs: self.outputs,
            taps: [y.n, x.n],
            first: self.tap(self.first, last(y), last(x)),
            output: self.input,
            input: self.output,
            row: -(y.step as isize * self.row),
            column: -(x.step as isize * self.column),
            ..*self
        }
    }

    /// All weights, in PyTorch's order.
    pub fn data(&self) -> &'a [f32] {
        self.data
    }

    /// The weight of output `o` for input `c` of its group at tap `(ky, kx)`.
    #[inline]
    pub fn at(&self, o: usize, c: usize, ky: usize, kx: usize) -> f32 {
        self.data[self.tap(self.pair(o, c), ky, kx)]
    }

    /// The weights of outputs `o..o + lanes.len()` of one group for input `c` at tap `(ky, kx)`.
    #[inline]
    pub fn lanes(&self, o: usize, c: usize, ky: usize, kx: usize, lanes: &mut [f32]) {
        let first = self.tap(self.pair(o, c), ky, kx);
        // Of one group: so far apart throughout. The bound of the last one covers all.
        let last = first + lanes.len().saturating_sub(1) * self.output;
        let from = &self.data[first..=last];
        if self.output == 1 {
            return lanes.copy_from_slice(&from[..lanes.len()]);
        }
        lanes.iter_mut().enumerate().for_each(|(lane, to)| *to = from[lane * self.output]);
    }

    /// The weights of outputs `o..` of one group, where inputs of a group are adjacent with all of their `taps`: from the first
    /// output's first input on, and from output to output.
    pub(crate) fn rows(&self, o: usize, taps: usize) -> Option<(&'a [f32], usize)> {
        let adjacent = self.input == taps && (taps == 1 || self.column == 1);
        adjacent.then(|| (&self.data[self.pair(o, 0)..], self.output))
    }

    /// Where the taps of output `o` for input `c` of its group begin, for [`Weights::tap`].
    #[inline]
    fn pair(&self, o: usize, c: usize) -> usize {
        self.first + o / self.outputs * self.group + o % self.outputs * self.output + c * self.input
    }

    #[inline]
    fn tap(&self, pair: usize, ky: usize, kx: usize) -> usize {
        pair.wrapping_add_signed(ky as isize * self.row + kx as isize * self.column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turned_weights_are_the_forward_ones() {
        let s = ConvShape::builder([1, 6, 9, 9], [4, 3, 3, 5]).groups(2).build().unwrap();
        let data: Vec<f32> = (0..4 * 3 * 15).map(|i| i as f32).collect();
        let forward = Weights::forward(&s, &data);
        let (y, x) = (Taps { first: 0, step: 2, n: 2 }, Taps { first: 1, step: 2, n: 2 });
        for (taps, n) in [([Taps::all(3), Taps::all(5)], [3, 5]), ([y, x], [2, 2])] {
            let turned = Weights::turned(&s, &data, taps);
            for (ic, oc) in (0..6).flat_map(|i| (0..2).map(move |o| (i, o))) {
                for (ky, kx) in (0..n[0]).flat_map(|y| (0..n[1]).map(move |x| (y, x))) {
                    let (fy, fx) = (
                        taps[0].first + (n[0] - 1 - ky) * taps[0].step,
                        taps[1].first + (n[1] - 1 - kx) * taps[1].step,
                    );
                    assert_eq!(turned.at(ic, oc, ky, kx), forward.at(ic / 3 * 2 + oc, ic % 3, fy, fx));
                    let mut lanes = [0.0; 3];
                    let lanes = &mut lanes[..turned.outputs - ic % turned.outputs];
                    turned.lanes(ic, oc, ky, kx, lanes);
                    let one_by_one = (ic..ic + lanes.len()).map(|o| turned.at(o, oc, ky, kx));
                    assert!(one_by_one.eq(lanes.iter().copied()));
                }
            }
        }
    }
}
