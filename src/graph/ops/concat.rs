//! Channels of several values one after another.

use core::ops::Range;

use swath_kernels::layout::{BLOCK, Layout};

use super::Slice;
use crate::conv::Scratch;
use crate::error::{Error, Result};
use crate::graph::lower::Place;
use crate::graph::step::{Operands, Step, clear_padding};
use crate::graph::{Gradient, Group, Lower, Operator};
use crate::par;

/// Puts channels one after another.
#[derive(Clone, Copy, Debug)]
pub struct Concat;

impl Operator for Concat {
    fn name(&self) -> &'static str {
        "Concat"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let first = inputs[0];
        if first.len() < 2 {
            return Err(Error::Rank { what: "Concat", takes: "[n, c, ..]", gets: first.to_vec() });
        }
        let mut dims = first.to_vec();
        for other in &inputs[1..] {
            if other.len() != first.len() || other[0] != first[0] || other[2..] != first[2..] {
                return Err(Error::Shapes { what: "Concat", left: first.to_vec(), right: other.to_vec() });
            }
            dims[1] += other[1];
        }
        swath_kernels::shape::checked_elements("concatenation", &dims)?;
        Ok(dims)
    }

    /// Parts are read as they lie; the result is blocked if any of them is.
    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let values = cx.inputs(group);
        let places = values.iter().map(|&v| cx.native(v)).collect::<Result<Vec<Place>>>()?;
        let parts: Vec<_> = places.iter().zip(&values).map(|(p, &v)| (p.layout, cx.extents(v))).collect();
        let blocked = places.iter().any(|p| p.layout == Layout::Blocked);
        let layout = if blocked { Layout::Blocked } else { places[0].layout };
        let inputs = places.iter().map(|p| p.buffer).collect();
        cx.step(group, layout, Box::new(ConcatChannels::new(&parts, layout)), inputs, 0)
    }

    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        let mut first = 0;
        for i in 0..g.inputs() {
            let channels = g.fact(g.input(i)).dims[1];
            if g.needs(i) {
                let part = g.push(Slice { dim: 1, start: first, len: channels }, &[g.dy()])?;
                g.add(i, part[0])?;
            }
            first += channels;
        }
        Ok(())
    }
}

/// One part of a concatenation: its layout, extents and first channel in the output.
pub(crate) struct Part {
    layout: Layout,
    dims: [usize; 4],
    at: usize,
}

/// Concatenation of parts in any layouts.
pub(crate) struct ConcatChannels {
    parts: Vec<Part>,
    layout: Layout,
    dims: [usize; 4],
}

impl ConcatChannels {
    /// From the parts' layouts and extents, to an output in `layout`.
    pub(crate) fn new(parts: &[(Layout, [usize; 4])], layout: Layout) -> Self {
        let mut at = 0;
        let parts: Vec<Part> = parts
            .iter()
            .map(|&(layout, dims)| {
                at += dims[1];
                Part { layout, dims, at: at - dims[1] }
            })
            .collect();
        let [n, _, h, w] = parts[0].dims;
        Self { parts, layout, dims: [n, at, h, w] }
    }

    /// Whether planes of channels (of one channel or one block) are copied as they are.
    fn whole(&self) -> bool {
        self.parts.iter().all(|part| match (part.layout, self.layout) {
            (Layout::Nchw, Layout::Nchw) => true,
            (Layout::Blocked, Layout::Blocked) => part.at.is_multiple_of(BLOCK),
            _ => false,
        })
    }

    /// Copies the planes of the output that are numbered `planes`: those of a part and an image lie together.
    fn copy_planes(&self, mut planes: Range<usize>, x: &Operands<'_>, mut y: &mut [f32]) {
        let channels = if self.layout == Layout::Blocked { BLOCK } else { 1 };
        let [_, c, h, w] = self.dims;
        let (len, count) = (h * w * channels, c.div_ceil(channels));
        while !planes.is_empty() {
            let (image, k) = (planes.start / count, planes.start % count);
            let (i, part) = self.part(k * channels);
            let (of_part, first) = (part.dims[1].div_ceil(channels), k - part.at / channels);
            let run = (of_part - first).min(planes.len());
            let (to, rest) = y.split_at_mut(run * len);
            to.copy_from_slice(&x.get(i)[(image * of_part + first) * len..][..run * len]);
            (y, planes.start) = (rest, planes.start + run);
        }
    }

    /// The part that channel `k` of the output comes from.
    fn part(&self, k: usize) -> (usize, &Part) {
        let i = self.parts.partition_point(|part| part.at <= k) - 1;
        (i, &self.parts[i])
    }

    /// Copies a part element by element.
    fn copy(&self, part: &Part, x: &[f32], y: &mut [f32]) {
        let [n, c, h, w] = part.dims;
        let (s, d) = (part.layout.strides(part.dims), self.layout.strides(self.dims));
        for i in 0..n {
            for k in 0..c {
                let o = part.at + k;
                let from = i * s.n + k / BLOCK * s.block + k % BLOCK * s.channel;
                let to = i * d.n + o / BLOCK * d.block + o % BLOCK * d.channel;
                for r in 0..h {
                    for p in 0..w {
                        y[to + r * d.row + p * d.px] = x[from + r * s.row + p * s.px];
                    }
                }
            }
        }
    }
}

impl Step for ConcatChannels {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, _: &mut Scratch) {
        if self.whole() {
            let [_, _, h, w] = self.dims;
            let plane = h * w * if self.layout == Layout::Blocked { BLOCK } else { 1 };
            return par::for_each_piece(y, plane, 1, |planes, y| self.copy_planes(planes, x, y));
        }
        for (i, part) in self.parts.iter().enumerate() {
            self.copy(part, x.get(i), y);
        }
        clear_padding(self.layout, self.dims, y);
    }

    fn describe(&self) -> String {
        format!("Concat of {}", self.parts.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::step::tests::{counting, run};

    #[test]
    fn parts_in_any_layouts_make_a_whole_without_stray_padding() {
        for (a, b) in [(16, 5), (5, 16), (3, 4), (32, 16), (17, 18)] {
            for [la, lb, ly] in Layout::ALL.into_iter().flat_map(|a| Layout::ALL.into_iter().map(move |b| [a, b, b])) {
                let (dims, w) = ([1, a + b, 1, 2], 2);
                let concat = ConcatChannels::new(&[(la, [1, a, 1, w]), (lb, [1, b, 1, w])], ly);
                let y = run(&concat, &[&counting(la, a, w), &counting(lb, b, w)], ly.len(dims));
                let whole = [counting(Layout::Nchw, a, w), counting(Layout::Nchw, b, w)].concat();
                let mut expected = vec![0.0; ly.len(dims)];
                swath_kernels::layout::reorder(Layout::Nchw, &whole, ly, &mut expected, dims);
                assert_eq!(y, expected, "{a} {la:?} and {b} {lb:?}");
            }
        }
    }
}
