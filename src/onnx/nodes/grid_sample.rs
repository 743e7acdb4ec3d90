//! GridSample: every pixel is a weighted sum of pixels around a place that the grid names.
//!
//! Where the pixels lie and what they weigh is the same for all channels, so that it is computed first, for each image once. Then rows of
//! outputs are sums over vectors of channels in blocks and in NHWC, over pixels one by one in NCHW.

use swath_kernels::layout::{BLOCK, Layout};

use super::fixed;
use crate::conv::Scratch;
use crate::error::Result;
use crate::graph::step::Planes;
use crate::graph::{Fact, Group, Lower, Operands, Operator, Step};
use crate::ops::Sampler;
use crate::par;

/// `x [n, c, h, w]` at the places of a grid `[n, oh, ow, 2]`, each `[x, y]`.
#[derive(Clone, Debug)]
pub(crate) struct GridSample {
    pub sampler: Sampler,
    pub inputs: [Fact; 2],
    pub output: Fact,
}

impl Operator for GridSample {
    fn name(&self) -> &'static str {
        "GridSample"
    }

    fn dims(&self, _: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(self.output.dims.clone())
    }

    fn facts(&self, inputs: &[&Fact]) -> Result<Vec<Fact>> {
        fixed("GridSample", &self.inputs, inputs, std::slice::from_ref(&self.output))
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let (x, grid) = (cx.input(group, 0), cx.input(group, 1));
        // Vectors of channels are worth a reorder of both images.
        let layout = match cx.native(x)?.layout {
            Layout::Nchw if cx.extents(x)[1] >= BLOCK / 2 => Layout::Blocked,
            native => native,
        };
        let planes = Planes::new(layout, cx.extents(x));
        let step = GridStep { sampler: self.sampler, layout, planes, output: cx.extents(group.value) };
        let inputs = vec![cx.want(x, layout)?, cx.want(grid, Layout::Nchw)?];
        let scratch = step.points() * step.words();
        cx.step(group, layout, Box::new(step), inputs, scratch)
    }
}

struct GridStep {
    sampler: Sampler,
    layout: Layout,
    planes: Planes,
    output: [usize; 4],
}

/// Behind the last of a point's pixels.
const END: u32 = u32::MAX;

impl GridStep {
    /// Pixels of the output.
    fn points(&self) -> usize {
        let [n, _, h, w] = self.output;
        n * h * w
    }

    /// Words for a point: the number of each pixel that it is computed from, then their weights.
    fn words(&self) -> usize {
        2 * self.sampler.reach * self.sampler.reach
    }

    fn look_up(&self, grid: &[f32], table: &mut [f32]) {
        let Planes { h, w, .. } = self.planes;
        let words = self.words();
        par::for_each_piece(table, words, 4, |points, table| {
            for (p, entry) in points.zip(table.chunks_exact_mut(words)) {
                let [down, across] = [(1, h), (0, w)].map(|(i, len)| self.sampler.taps(grid[2 * p + i].into(), len));
                let (numbers, weights) = entry.split_at_mut(words / 2);
                let all = down.iter().flat_map(|&(y, a)| across.iter().map(move |&(x, b)| (y * w + x, a * b)));
                let mut count = 0;
                for ((number, weight), (at, value)) in numbers.iter_mut().zip(weights).zip(all) {
                    (*number, *weight) = (f32::from_bits(at as u32), value as f32);
                    count += 1;
                }
                numbers[count..].fill(f32::from_bits(END));
            }
        });
    }

    /// The output, with at most `K` pixels for each.
    fn sample<const K: usize>(&self, x: &[f32], table: &[f32], y: &mut [f32]) {
        let Planes { h, w, inner } = self.planes;
        let [n, _, oh, ow] = self.output;
        let units = y.len() / (n * oh * ow * inner);
        par::for_each_piece(y, ow * inner, K, |rows, y| {
            for (row, y) in rows.zip(y.chunks_exact_mut(ow * inner)) {
                let (unit, oy) = (row / oh, row % oh);
                let x = &x[unit * h * w * inner..][..h * w * inner];
                let table = &table[(unit / units * oh + oy) * ow * 2 * K..][..ow * 2 * K];
                for (y, entry) in y.chunks_exact_mut(inner).zip(table.chunks_exact(2 * K)) {
                    let (numbers, weights) = entry.split_at(K);
                    let ends = numbers.iter().take_while(|number| number.to_bits() != END);
                    let taps = ends.zip(weights).map(|(at, &weight)| (at.to_bits() as usize * inner, weight));
                    if inner == 1 {
                        y[0] = taps.map(|(at, weight)| weight * x[at]).sum();
                        continue;
                    }
                    let mut blocks = y.chunks_exact_mut(BLOCK);
                    let mut c = 0;
                    for y in &mut blocks {
                        let mut sums = [0.0f32; BLOCK];
                        for (at, weight) in taps.clone() {
                            let x: &[f32; BLOCK] = x[at + c..][..BLOCK].try_into().expect("a block");
                            sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += weight * x);
                        }
                        y.copy_from_slice(&sums);
                        c += BLOCK;
                    }
                    let rest = blocks.into_remainder().iter_mut().enumerate();
                    rest.for_each(|(i, y)| *y = taps.clone().map(|(at, weight)| weight * x[at + c + i]).sum());
                }
            }
        });
    }
}

impl Step for GridStep {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, scratch: &mut Scratch) {
        let table = scratch.take(self.points() * self.words()).expect("it was reserved");
        self.look_up(x.get(1), table);
        match self.sampler.reach {
            1 => self.sample::<1>(x.get(0), table, y),
            2 => self.sample::<4>(x.get(0), table, y),
            _ => self.sample::<16>(x.get(0), table, y),
        }
    }

    fn describe(&self) -> String {
        let [_, _, h, w] = self.output;
        format!("GridSample {}x{} to {h}x{w} {}", self.planes.h, self.planes.w, self.layout.name())
    }
}
