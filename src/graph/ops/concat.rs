//! Channels of several values one after another.

use core::ops::Range;

use swath_kernels::layout::{BLOCK, Layout};

use super::Slice;
use crate::conv::Scratch;
use crate::error::{Error, Result};
use crate::graph::lower::Place;
use crate::graph::step::{Operands, Step};
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

    /// In blocks where a part lies so, else in NCHW. A part that lies otherwise is reordered first, by vectors, where copying its
    /// elements here would take as long as ten of these.
    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let values = cx.inputs(group);
        let places = values.iter().map(|&v| cx.native(v)).collect::<Result<Vec<Place>>>()?;
        let dims: Vec<[usize; 4]> = values.iter().map(|&v| cx.extents(v)).collect();
        let blocked = places.iter().any(|p| p.layout == Layout::Blocked);
        let layout = if blocked { Layout::Blocked } else { Layout::Nchw };
        let inputs = values.iter().map(|&v| cx.want(v, layout)).collect::<Result<_>>()?;
        let begin_blocks = dims[..dims.len() - 1].iter().all(|[_, c, ..]| c.is_multiple_of(BLOCK));
        let step: Box<dyn Step> = match blocked && !begin_blocks {
            true => Box::new(ConcatWithinBlocks::new(&dims)),
            false => Box::new(ConcatPlanes::new(&dims, layout)),
        };
        cx.step(group, layout, step, inputs, 0)
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

/// The parts of an image of the output, counted in planes or in channels.
struct Parts {
    /// How many each has, and the number of its first in the whole.
    each: Vec<[usize; 2]>,
    /// How many all have.
    count: usize,
}

impl Parts {
    fn new(counts: impl Iterator<Item = usize>) -> Self {
        let mut count = 0;
        let each = counts.map(|of_part| {
            count += of_part;
            [of_part, count - of_part]
        });
        Self { each: each.collect(), count }
    }

    /// Of number `at` of the whole: its part, how many that one has, and its number there.
    fn at(&self, at: usize) -> [usize; 3] {
        let part = self.each.partition_point(|&[_, first]| first <= at) - 1;
        let [of_part, first] = self.each[part];
        [part, of_part, at - first]
    }

    fn describe(&self) -> String {
        format!("Concat of {}", self.each.len())
    }
}

/// Concatenation of planes: of one channel each in NCHW, of a block of them in blocks.
struct ConcatPlanes {
    /// Floats of a plane.
    plane: usize,
    /// Planes.
    parts: Parts,
}

impl ConcatPlanes {
    /// From the parts' extents; in blocks, all parts but the last fill theirs.
    fn new(parts: &[[usize; 4]], layout: Layout) -> Self {
        let channels = if layout == Layout::Blocked { BLOCK } else { 1 };
        let [_, _, h, w] = parts[0];
        let planes = parts.iter().map(|[_, c, ..]| c.div_ceil(channels));
        Self { plane: h * w * channels, parts: Parts::new(planes) }
    }

    /// Copies the planes of the output that are numbered `planes`: those of a part and an image lie together.
    fn copy(&self, mut planes: Range<usize>, x: &Operands<'_>, mut y: &mut [f32]) {
        while !planes.is_empty() {
            let (image, at) = (planes.start / self.parts.count, planes.start % self.parts.count);
            let [part, of_part, own] = self.parts.at(at);
            let run = (of_part - own).min(planes.len());
            let (to, rest) = y.split_at_mut(run * self.plane);
            let from = (image * of_part + own) * self.plane;
            to.copy_from_slice(&x.get(part)[from..][..run * self.plane]);
            (y, planes.start) = (rest, planes.start + run);
        }
    }
}

impl Step for ConcatPlanes {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, _: &mut Scratch) {
        par::for_each_piece(y, self.plane, 1, |planes, y| self.copy(planes, x, y));
    }

    fn describe(&self) -> String {
        self.parts.describe()
    }
}

/// Concatenation in blocks of parts that begin within one: each block of the output is put together of runs of channels.
struct ConcatWithinBlocks {
    /// Pixels of a plane.
    pixels: usize,
    /// Channels.
    parts: Parts,
}

impl ConcatWithinBlocks {
    fn new(parts: &[[usize; 4]]) -> Self {
        let [_, _, h, w] = parts[0];
        Self { pixels: h * w, parts: Parts::new(parts.iter().map(|&[_, c, ..]| c)) }
    }

    /// Fills block `k` of an image, whose pixels are `y`.
    fn block(&self, image: usize, k: usize, x: &Operands<'_>, y: &mut [f32]) {
        let (mut at, end) = (k * BLOCK, ((k + 1) * BLOCK).min(self.parts.count));
        if end - at < BLOCK {
            y.fill(0.0);
        }
        while at < end {
            let [part, of_part, own] = self.parts.at(at);
            // As many as lie in one block of the part, too.
            let run = (end - at).min(of_part - own).min(BLOCK - own % BLOCK);
            let from = (image * of_part.div_ceil(BLOCK) + own / BLOCK) * self.pixels * BLOCK + own % BLOCK;
            let pixels = x.get(part)[from..].chunks(BLOCK).zip(y.chunks_exact_mut(BLOCK));
            pixels.for_each(|(x, y)| y[at % BLOCK..][..run].copy_from_slice(&x[..run]));
            at += run;
        }
    }
}

impl Step for ConcatWithinBlocks {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, _: &mut Scratch) {
        let (plane, count) = (self.pixels * BLOCK, self.parts.count.div_ceil(BLOCK));
        par::for_each_piece(y, plane, 1, |planes, y| {
            for (plane, y) in planes.zip(y.chunks_exact_mut(plane)) {
                self.block(plane / count, plane % count, x, y);
            }
        });
    }

    fn describe(&self) -> String {
        self.parts.describe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Value;
    use crate::graph::step::tests::{counting, run};
    use crate::nn::{Conv2d, Module};

    #[test]
    fn parts_make_a_whole_without_stray_padding() {
        let blocked = Layout::Blocked;
        for (layout, parts) in [(Layout::Nchw, [3, 4, 1]), (blocked, [16, 32, 5]), (blocked, [16, 16, 16])] {
            let w = 2;
            let dims: Vec<[usize; 4]> = parts.iter().map(|&c| [1, c, 1, w]).collect();
            let whole = [1, parts.iter().sum(), 1, w];
            let inputs: Vec<Vec<f32>> = parts.iter().map(|&c| counting(layout, c, w)).collect();
            let operands: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
            let y = run(&ConcatPlanes::new(&dims, layout), &operands, layout.len(whole));
            let planes = parts.map(|c| counting(Layout::Nchw, c, w)).concat();
            let mut expected = vec![0.0; layout.len(whole)];
            swath_kernels::layout::reorder(Layout::Nchw, &planes, layout, &mut expected, whole);
            assert_eq!(y, expected, "{parts:?}");
        }
    }

    #[test]
    fn parts_may_lie_otherwise_or_begin_within_a_block() {
        // Convolutions put out blocks, and an input is NCHW.
        for (a, b) in [(16, 5), (5, 16), (3, 4), (32, 16), (17, 18)] {
            let conv = Conv2d::new(a, b, 1);
            let both = move |x: &Value| Ok(x.push(Concat, &[x, &conv.call(x)?, x]));
            let model = both.build(1).unwrap();
            let x: Vec<f32> = (0..2 * a * 6).map(|i| (i as f32).sin()).collect();
            let y = model.compile([2, a, 2, 3]).unwrap().run(&x).unwrap().clone();
            let conv = Conv2d::new(a, b, 1).build(1).unwrap().compile([2, a, 2, 3]).unwrap().run(&x).unwrap().clone();
            let image = |all: &[f32], c: usize, i: usize| all[i * c * 6..][..c * 6].to_vec();
            for i in 0..2 {
                let parts = [image(&x, a, i), image(conv.as_slice(), b, i), image(&x, a, i)].concat();
                assert_eq!(image(y.as_slice(), 2 * a + b, i), parts, "{a} and {b}");
            }
        }
    }
}
