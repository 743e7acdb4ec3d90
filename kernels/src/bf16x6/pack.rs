//! Weights, cut into their three bf16 parts, in the order in which tiles are multiplied.

use super::Bf16x6;
use crate::isa::Isa;
use crate::isa::matrix::{DEPTH, LINE, PARTS, ROWS, TILE};
use crate::layout::BLOCK;
use crate::pass::Body;
use crate::reorder::interleave;
use crate::weights::Weights;

/// Taps of a kernel whose weights are read together, since they lie in the same cache lines: those of a 3x3 one.
const TOGETHER: usize = 9;

/// Two blocks of output channels, or the last one alone.
pub(super) struct Pack<'a> {
    pub d: &'a Bf16x6,
    pub w: &'a Weights<'a>,
    /// The first block, and how many there are.
    pub first: usize,
    pub n: usize,
    /// `[tap][32 input channels][part][block][16 pairs][16 output channels]`
    pub to: &'a mut [f32],
}

impl Body for Pack<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, s: I) {
        let Self { d, w, first, n, to } = self;
        let (taps, depths) = (d.shape.kh * d.shape.kw, d.depths());
        assert_eq!(to.len(), taps * depths * PARTS * n * TILE);
        let together = if taps > TOGETHER { 1 } else { taps };
        // `[input][tap][16 output channels]`
        let mut lines = [0.0; TOGETHER * DEPTH * LINE];
        for (block, depth) in (0..n).flat_map(|block| (0..depths).map(move |depth| (block, depth))) {
            for tap in (0..taps).step_by(together) {
                gather(s, d, w, [first + block, depth], tap..tap + together, &mut lines);
                for (t, i) in (0..together).flat_map(|t| (0..ROWS).map(move |i| (t, i))) {
                    let step = (tap + t) * depths + depth;
                    for v in (0..LINE).step_by(I::LANES) {
                        let at = |input: usize| (input * together + t) * LINE + v;
                        let (x, y) = (&lines[at(i)..][..I::LANES], &lines[at(i + BLOCK)..][..I::LANES]);
                        // SAFETY: slices as long as a vector.
                        let parts = unsafe { s.bf16_pairs(s.load(x.as_ptr()), s.load(y.as_ptr())) };
                        for part in 0..PARTS {
                            let at = ((step * PARTS + part) * n + block) * TILE + i * LINE + v;
                            // SAFETY: as above.
                            unsafe { s.store(to[at..][..I::LANES].as_mut_ptr(), parts[part]) };
                        }
                    }
                }
            }
        }
    }
}

/// The weights of a block of outputs for 32 inputs at some taps, zeros where there are none.
#[inline(always)]
fn gather<I: Isa>(
    s: I,
    d: &Bf16x6,
    w: &Weights<'_>,
    [block, depth]: [usize; 2],
    taps: core::ops::Range<usize>,
    lines: &mut [f32],
) {
    let (o, c) = (block * BLOCK, depth * DEPTH);
    let (outputs, inputs) = (BLOCK.min(d.shape.oc - o), DEPTH.min(d.shape.ic - c));
    let all = d.shape.kh * d.shape.kw;
    if outputs < BLOCK || inputs < DEPTH {
        lines.fill(0.0);
    }
    if let Some((rows, pitch)) = w.rows(o, all)
        && outputs == BLOCK
        && taps.len() == all
    {
        let to = &mut lines[..inputs * all * LINE];
        return interleave(s, &rows[c * all..], pitch, BLOCK, to.into());
    }
    for (input, (t, tap)) in (0..inputs).flat_map(|c| taps.clone().enumerate().map(move |tap| (c, tap))) {
        let line = (input * taps.len() + t) * LINE;
        w.lanes(o, c + input, tap / d.shape.kw, tap % d.shape.kw, &mut lines[line..line + outputs]);
    }
}
