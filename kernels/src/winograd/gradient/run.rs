//! One run of Winograd's weight gradient: who transforms which tiles, who multiplies which pairs, and where their sums
//! go.

use core::ops::Range;

use super::kernels::{GatherArgs, OuterArgs, SpreadArgs};
use super::{FEW, GROUPS, M, P, PRODUCTS, WinogradWeights};
use crate::backward_weights::{PAIR_OF_NINE, Pairs};
use crate::exec::{Executor, Shared, cut, for_each_part_with};
use crate::layout::{BLOCK, Layout, blocks};
use crate::tile::pieces;
use crate::winograd::input::InputArgs;

/// Groups of blocks of output and of input channels, that all are cut into.
#[derive(Clone, Copy)]
struct Groups {
    group: [usize; 2],
    blocks: [usize; 2],
}

impl Groups {
    fn len(&self) -> usize {
        self.blocks[0].div_ceil(self.group[0]) * self.blocks[1].div_ceil(self.group[1])
    }

    /// The blocks of output and of input channels of group `i`.
    fn at(&self, i: usize) -> [Range<usize>; 2] {
        let across = self.blocks[1].div_ceil(self.group[1]);
        let range = |axis: usize, i: usize| i * self.group[axis]..((i + 1) * self.group[axis]).min(self.blocks[axis]);
        [range(0, i / across), range(1, i % across)]
    }
}

/// One run: the plan, its tensors, and the sums.
pub(super) struct Run<'a> {
    pub d: &'a WinogradWeights,
    pub x: &'a [f32],
    pub dy: &'a [f32],
    pub dw: Shared<'a>,
    pub sums: Shared<'a>,
}

/// A chunk's transformed tensors.
struct Chunk<'a> {
    v: Shared<'a>,
    u: Shared<'a>,
}

impl<'a> Chunk<'a> {
    /// In scratch memory, of which the rest is given back.
    fn new(d: &WinogradWeights, scratch: &'a mut [f32]) -> (Self, &'a mut [f32]) {
        let [v, u] = d.transforms();
        let (v, scratch) = scratch.split_at_mut(v);
        let (u, scratch) = scratch.split_at_mut(u);
        (Self { v: Shared::new(v), u: Shared::new(u) }, scratch)
    }
}

impl Run<'_> {
    /// The groups of so many pairs.
    fn groups(&self, group: [usize; 2]) -> Groups {
        Groups { group, blocks: [self.d.shape.oc, self.d.shape.ic].map(blocks) }
    }

    /// Slice after slice: threads share out a chunk's tiles, and then its groups of pairs.
    pub fn together(&self, scratch: &mut [f32], executor: &dyn Executor) {
        let d = self.d;
        let (to, own) = Chunk::new(d, scratch);
        let many = d.longest() >= FEW;
        let enough = |group: &[usize; 2]| many && self.groups(*group).len() >= 2 * executor.threads();
        let groups = self.groups(GROUPS.into_iter().find(enough).unwrap_or(GROUPS[GROUPS.len() - 1]));
        for (slice, chunks) in (0..d.slices).map(|slice| (slice, cut(d.chunks, d.slices, slice))) {
            for chunk in chunks.clone() {
                let tiles = d.chunk(chunk);
                for_each_part_with(executor, tiles.len(), &mut [], 0, |i, _| self.transform(tiles.start + i, i, &to));
                for_each_part_with(executor, groups.len(), own, d.products(), |i, own| {
                    let group = groups.at(i);
                    self.products(&group, &to, tiles.len(), own);
                    let complete = d.slices == 1 && chunk + 1 == chunks.end;
                    self.gather(&group, (slice, chunk > chunks.start), own, complete);
                });
            }
        }
    }

    /// Threads share out slices.
    pub fn in_slices(&self, scratch: &mut [f32], executor: &dyn Executor) {
        let d = self.d;
        let own = d.transforms().iter().sum::<usize>() + d.products();
        let groups = self.groups(GROUPS[if d.longest() >= FEW { 0 } else { GROUPS.len() - 1 }]);
        for_each_part_with(executor, d.slices, scratch, own, |slice, own| {
            let (to, own) = Chunk::new(d, own);
            let chunks = cut(d.chunks, d.slices, slice);
            for chunk in chunks.clone() {
                let tiles = d.chunk(chunk);
                tiles.clone().for_each(|tile| self.transform(tile, tile - tiles.start, &to));
                for group in (0..groups.len()).map(|i| groups.at(i)) {
                    self.products(&group, &to, tiles.len(), own);
                    self.gather(&group, (slice, chunk > chunks.start), own, false);
                }
            }
        });
    }

    /// Adds the sums of all slices, and stores them.
    pub fn add_slices(&self, executor: &dyn Executor) {
        let d = self.d;
        let rows = self.groups(GROUPS[1]);
        for_each_part_with(executor, rows.len(), &mut [], 0, |i, _| {
            let [ocbs, icbs] = rows.at(i);
            for ocb in ocbs {
                // SAFETY: all slices are summed, and these pairs belong to this part alone.
                let sums = unsafe { self.pairs(0, ocb, &icbs) };
                for slice in 1..d.slices {
                    // SAFETY: as above.
                    let more = unsafe { self.pairs(slice, ocb, &icbs) };
                    sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += *more);
                }
                self.store(ocb, &icbs, sums);
            }
        });
    }

    /// The sums of a slice's pairs, in scratch.
    ///
    /// # Safety
    /// Nobody else has them meanwhile.
    #[allow(clippy::mut_from_ref)] // of memory that `Shared` hands out
    unsafe fn pairs(&self, slice: usize, ocb: usize, icbs: &Range<usize>) -> &mut [f32] {
        let [of, across] = [self.d.shape.oc, self.d.shape.ic].map(blocks);
        let at = ((slice * of + ocb) * across + icbs.start) * PAIR_OF_NINE;
        assert!(at + icbs.len() * PAIR_OF_NINE <= self.sums.len(), "the sums of all pairs");
        // SAFETY: they lie in the scratch (asserted), and the caller alone has them.
        unsafe { core::slice::from_raw_parts_mut(self.sums.at(at), icbs.len() * PAIR_OF_NINE) }
    }

    /// Stores the sums of pairs to the weights.
    fn store(&self, ocb: usize, icbs: &Range<usize>, sums: &[f32]) {
        let (shape, level) = (&self.d.shape, self.d.core.level);
        let pairs = Pairs { shape, dw: self.dw, ocb, icbs: icbs.clone(), sums, len: PAIR_OF_NINE };
        // SAFETY: one part stores the weights of these pairs.
        unsafe { pairs.store(level) };
    }

    /// Transforms the input and the gradient of a tile, which becomes tile `at` of the chunk.
    fn transform(&self, tile: usize, at: usize, to: &Chunk<'_>) {
        let d = self.d;
        let s = &d.shape;
        let [down, across] = d.tiles;
        let (n, ty, tx) = (tile / (down * across), tile / across % down, tile % across);
        let input = InputArgs {
            x: self.x.as_ptr().wrapping_add(n * d.xs.n),
            strides: d.xs,
            ic: s.ic,
            extent: [s.ih, s.iw],
            first: [(ty * M) as isize - s.pad.top as isize, (tx * M) as isize - s.pad.left as isize],
            next: core::ptr::null(),
            v: to.v.at(at * BLOCK),
            v_point: d.point(s.ic),
            v_block: d.longest() * BLOCK,
        };
        let ds = Layout::Blocked.strides(s.output());
        let gradient = SpreadArgs {
            dy: self.dy.as_ptr().wrapping_add(n * ds.n + ty * M * ds.row + tx * M * ds.px),
            row: ds.row,
            block: ds.block,
            blocks: blocks(s.oc),
            valid: [(s.oh - ty * M).min(M), (s.ow - tx * M).min(M)],
            u: to.u.at(at * BLOCK),
            u_point: d.point(s.oc),
            u_block: d.longest() * BLOCK,
        };
        // SAFETY: the level is available, and tensors reach as far as their strides say (asserted in `run`); tile `at`
        // lies in each point and block of `v` and `u`, and belongs to this part alone.
        unsafe {
            (d.transform.input)(&input);
            (d.row.spread)(&gradient);
        }
    }

    /// The products of a group of pairs over a chunk of tiles: `[pair][point][16 oc][16 ic]`.
    fn products(&self, [ocbs, icbs]: &[Range<usize>; 2], of: &Chunk<'_>, tiles: usize, m: &mut [f32]) {
        let (d, s) = (self.d, &self.d.shape);
        let block = d.longest() * BLOCK;
        assert!(m.len() >= ocbs.len() * icbs.len() * PRODUCTS, "the products of a group");
        // Kernels of as many blocks of input at once as there are.
        let widest = |left: usize| d.row.outer.iter().rev().find(|&&(_, wide, _)| wide <= left).map_or(1, |k| k.1);
        let points = if d.longest() < FEW { P * P } else { 1 };
        for point in (0..P * P).step_by(points) {
            let mut icb = icbs.start;
            while icb < icbs.end {
                let wide = widest(icbs.end - icb);
                let kernels = || d.row.outer.iter().filter(move |&&(_, w, _)| w == wide);
                let most = kernels().map(|&(mr, ..)| mr).max().unwrap_or(1);
                for (ocb, (o, mr)) in ocbs.clone().flat_map(|ocb| pieces(BLOCK, most).map(move |piece| (ocb, piece))) {
                    let pair = (ocb - ocbs.start) * icbs.len() + icb - icbs.start;
                    let args = OuterArgs {
                        points,
                        u: of.u.at(point * d.point(s.oc) + ocb * block + o),
                        u_point: d.point(s.oc),
                        v: of.v.at(point * d.point(s.ic) + icb * block),
                        v_point: d.point(s.ic),
                        v_block: block,
                        tiles,
                        m: m.as_mut_ptr().wrapping_add(pair * PRODUCTS + (point * BLOCK + o) * BLOCK),
                        m_block: PRODUCTS,
                    };
                    let outer = kernels().find(|&&(rows, ..)| rows == mr).expect("pieces of a block have kernels").2;
                    // SAFETY: the level is available; the chunk's tiles of these blocks were transformed before; `m`
                    // holds a block of rows of each pair at every point (asserted).
                    unsafe { outer(&args) };
                }
                icb += wide;
            }
        }
    }

    /// What a group's products add to the sums of a slice, or put in their place; if those are complete, the weights.
    fn gather(&self, [ocbs, icbs]: &[Range<usize>; 2], (slice, add): (usize, bool), own: &mut [f32], complete: bool) {
        let d = self.d;
        let (m, own) = own.split_at_mut(GROUPS[0].iter().product::<usize>() * PRODUCTS);
        for (ocb, m) in ocbs.clone().zip(m.chunks_exact(icbs.len() * PRODUCTS)) {
            let sums = if d.chunks > 1 {
                // SAFETY: the pairs' sums of this slice belong to this part alone.
                unsafe { self.pairs(slice, ocb, icbs) }
            } else {
                &mut own[..icbs.len() * PAIR_OF_NINE]
            };
            for (m, sums) in m.chunks_exact(PRODUCTS).zip(sums.chunks_exact_mut(PAIR_OF_NINE)) {
                let args = GatherArgs { m: m.as_ptr(), sums: sums.as_mut_ptr(), add };
                // SAFETY: the level is available; products and sums have those lengths.
                unsafe { (d.row.gather)(&args) };
            }
            if complete {
                self.store(ocb, icbs, sums);
            }
        }
    }
}
