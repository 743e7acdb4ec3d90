//! The loops of a tile: the one body of all kernels, and its two short cuts, for a single tap and for stems of the
//! usual widths.

use core::ops::Range;
use core::ptr;
use core::sync::atomic::{Ordering, compiler_fence};

use super::args::{LONG, Loop, Place, Soon, TileArgs, overhang};
use crate::isa::{Isa, Kernel, Level};
use crate::layout::BLOCK;

/// The body for `MR` pixels, `NV` vectors, pixel stride `PS` and element step `KS` (0, and 3 for `PS`: run time). Of
/// blocked input, the first and the last pixels sit out the iterations of the innermost loop that they lack.
pub struct Tile<const MR: usize, const NV: usize, const PS: usize, const KS: usize>;

/// The pixel stride of [`Tile`] that stands for those of NCHW, at run time: what the small tiles of `Plain1`, `Plain2`
/// and `Plain4` share. They are at the ends of a row, or at rows of a few pixels; a copy for each stride was 0.1 MB of
/// every program. Not the scalar level's, which has no others: stems are 17 % slower with it.
pub(super) const PLAIN: usize = 3;

/// What a step needs of [`TileArgs`], in registers: the fences between steps would have it read from memory each time.
#[derive(Clone, Copy)]
struct Strides {
    px: usize,
    w_block: usize,
    w_step: usize,
}

impl Strides {
    #[inline(always)]
    fn of(a: &TileArgs) -> Self {
        Self { px: a.px, w_block: a.w_block, w_step: a.w_step }
    }
}

/// Elements at the end of a short sum, a single tap's or a stem's, that are taken for a few pixels at a time, which are
/// then stored. Stores wait for their sums, and more than about six of them hold up what comes after: on Zen 3, twelve
/// in a row cost 25 cycles, where 16 channels take 96.
const LATE: usize = 4;

/// The numbers of taps to the row whose stems are written out, by pixel stride: calls a macro with each.
macro_rules! stems {
    ($stem:ident $args:tt) => {
        $stem!($args 1: [3 5] 2: [3 7] 4: [4])
    };
}

/// Returns from the kernel by [`Tile::stem`], if the stem is written out, and stored in groups.
macro_rules! stem_in_groups {
    (($s:ident, $a:ident) $($ps:literal: [$($k:literal)*])*) => {
        $($(
            if const { PS == $ps && Self::writes_out(I::REGISTERS) && Self::in_groups(I::LEVEL) }
                && Self::is_stem($a, $k)
                && $a.out.takes_tiles(NV * I::LANES)
            {
                // SAFETY: the kernel's contract.
                return unsafe { Self::stem::<I, $k>($s, $a) };
            }
        )*)*
    };
}

/// Adds up a tile by [`Tile::stem_sums`], if the stem is written out, else by [`Tile::sums`].
macro_rules! sums_of_stem_or_any {
    (($s:ident, $own:ident, $x:expr, $soon:expr, $acc:expr) $($ps:literal: [$($k:literal)*])*) => {
        $($(
            if const { PS == $ps && Self::writes_out(I::REGISTERS) && !Self::in_groups(I::LEVEL) }
                && Self::is_stem($own, $k)
            {
                Self::stem_sums::<I, $k>($s, $own, $x, $acc);
            } else
        )*)*
        {
            Self::sums($s, $own, $x, $soon, $acc);
        }
    };
}

/// Calls [`Tile::finish`] for all groups of pixels, each number a constant: a loop around their loops is not unrolled.
macro_rules! finish_groups {
    ($args:tt; $($g:literal)*) => {
        $(if const { $g * Self::group(I::REGISTERS) < MR } {
            Self::finish::<I, $g> $args;
        })*
    };
}

/// Calls [`Tile::steps`] for the pixels that do not lack the tap, with their numbers as constants. `$most` pixels at an
/// end may lack it. rustc generates no code for the branches of an `if const` that are not taken; LLVM would have to
/// remove four times as much.
macro_rules! edge_steps {
    ($lacking:expr, $most:expr, $args:tt) => {
        if const { $most == 0 } {
            Self::steps::<I, 0, 0> $args
        } else if const { $most == 1 } {
            match $lacking {
                [0, 0] => Self::steps::<I, 0, 0> $args,
                [1, 0] => Self::steps::<I, 1, 0> $args,
                [0, 1] => Self::steps::<I, 0, 1> $args,
                _ => Self::steps::<I, 1, 1> $args,
            }
        } else {
            match $lacking {
                [0, 0] => Self::steps::<I, 0, 0> $args,
                [1, 0] => Self::steps::<I, 1, 0> $args,
                [0, 1] => Self::steps::<I, 0, 1> $args,
                [2, _] => Self::steps::<I, 2, 0> $args,
                [3, _] => Self::steps::<I, 3, 0> $args,
                [_, 2] => Self::steps::<I, 0, 2> $args,
                [_, 3] => Self::steps::<I, 0, 3> $args,
                _ => Self::steps::<I, 1, 1> $args,
            }
        }
    };
}

impl<const MR: usize, const NV: usize, const PS: usize, const KS: usize> Tile<MR, NV, PS, KS> {
    /// Pixels that are stored together: about four vectors with 16 registers, all with more. On a core with two
    /// multiply-adds a cycle, to load the weights again for each group costs more than the stores do (Granite Rapids,
    /// 16 channels: 149 -> 167).
    const fn group(registers: usize) -> usize {
        match NV {
            _ if registers > 16 => MR,
            1..4 => 4 / NV,
            _ => 1,
        }
    }

    /// Whether the first and the last pixels may lack taps.
    const EDGE: bool = KS == 1 && PS >= BLOCK;

    /// Pixels at each end that may lack taps.
    const fn edge_pixels(level: Level) -> usize {
        if Self::EDGE { overhang(level, PS / BLOCK, MR) } else { 0 }
    }

    /// Whether short sums, a single tap's or a stem's, are stored in [groups](Tile::group) while the others are still
    /// added to. AVX-512's tiles have one group: copies of their loops and stores for it were a third of their code,
    /// and gained nothing on a Zen 4.
    const fn in_groups(level: Level) -> bool {
        !matches!(level, Level::Avx512)
    }

    /// Steps that [`Tile::steps`] of all pixels but `lacking` at the start and the end takes together: four with
    /// AVX-512's tiles and the large ones of AVX2, so that the loop itself costs few instructions, which are what is
    /// short where another thread shares the core (Zen 3), or where a tap has few cycles (Granite Rapids: 7x1 taps 165
    /// -> 172). Pixels at a run-time stride would spill pointers. Taps that a pixel lacks are some, those that more
    /// than one lacks are rare.
    const fn unroll(level: Level, lacking: [usize; 2]) -> usize {
        let lacking = lacking[0] + lacking[1];
        let steps = match level {
            Level::Avx512 if lacking == 0 => 4,
            Level::Avx512 if lacking == 1 => 2,
            Level::Avx2 if NV == 2 && lacking == 0 => 4,
            _ => 1,
        };
        if MR >= LONG && KS == 1 && PS >= BLOCK { steps } else { 1 }
    }

    /// Whether weights are fetched ahead in each step. Those follow each other, so that the hardware does it too, and
    /// in small tiles a load more is what is short. Zen 3, AVX2's large tiles, 24 layers: 1 % faster without, 3 to 8 %
    /// beside another thread. Granite Rapids, weights in L2 | beyond: 7x32 150 -> 155 | 110 -> 102, 14x32 168 -> 169 |
    /// 154 -> 140.
    const fn fetches_weights(level: Level) -> bool {
        Self::FETCHES && (Self::unroll(level, [0, 0]) == 1 || matches!(level, Level::Avx512) && MR >= 9)
    }

    /// Whether a step loads inputs that another pixel had in the step before. The compiler would keep them, in
    /// registers that the sums need, so that it may not see that.
    const OVERLAPS: bool = KS == 1 && PS > 0 && PS < BLOCK;

    /// Whether anything is fetched ahead. A stem's weights stay in L1, and its inner loops are too short to hide what
    /// that costs.
    const FETCHES: bool = KS != 1 || PS == 0 || PS >= BLOCK;

    /// Whether the rows of stems of the usual widths are written out: loops over so few taps cost half as much again.
    /// Only where the sums fill at least half of the registers, since smaller tiles are met by rows of a few pixels
    /// alone; and with 16 registers, tiles of one vector or four would spill.
    const fn writes_out(registers: usize) -> bool {
        KS == 1 && 2 * MR * NV >= registers && (registers > 16 || NV == 2 || NV == 3)
    }

    /// From pixel to pixel of the input.
    #[inline(always)]
    fn px(a: Strides) -> usize {
        if PS == 0 || PS == PLAIN { a.px } else { PS }
    }

    /// From element to element of the reduction, in the input.
    #[inline(always)]
    fn ks(a: Strides) -> usize {
        if KS == 0 { a.px } else { KS }
    }

    /// The same in the weights.
    #[inline(always)]
    fn ws(a: Strides) -> usize {
        if KS == 0 { a.w_step } else { BLOCK }
    }

    /// The sums that the tile with its outputs at `y` begins with, and a request for the outputs that are needed next:
    /// its own, or the next tile's.
    ///
    /// # Safety
    /// As for the kernel.
    #[inline(always)]
    unsafe fn begin<I: Isa>(s: I, a: &TileArgs, y: usize, next: usize) -> [[I::V; NV]; MR] {
        if !a.accumulate {
            // Only at AVX-512 it depends: sums of 9 terms at AVX2 lose 3 % by the question alone.
            if !matches!(I::LEVEL, Level::Avx512) || a.fetch_output {
                a.out.prefetch::<I, MR, NV>(s, y);
            }
            return [[s.zero(); NV]; MR];
        }
        // SAFETY: the same contract.
        let acc = unsafe { a.out.load(s, y) };
        // The next tile's sums, which it needs at once.
        a.out.prefetch::<I, MR, NV>(s, next);
        acc
    }

    /// Asks for the inputs of all pixels that lie [`TileArgs::ahead`] of `x`.
    #[inline(always)]
    fn prefetch_ahead<I: Isa>(s: I, a: &TileArgs, x: *const f32) {
        if a.ahead != 0 {
            for i in 0..MR {
                s.prefetch(x.wrapping_add(i * Self::px(Strides::of(a)) + a.ahead));
            }
        }
    }

    /// Offset of vector `v`'s weights from the first one's.
    #[inline(always)]
    fn w_at<I: Isa>(a: Strides, v: usize) -> usize {
        v * I::LANES / BLOCK * a.w_block + v * I::LANES % BLOCK
    }

    /// Asks for the weights at `w` of all vectors.
    #[inline(always)]
    fn prefetch_weights<I: Isa>(s: I, a: Strides, w: *const f32) {
        for line in (0..NV).step_by(BLOCK / I::LANES) {
            s.prefetch(w.wrapping_add(Self::w_at::<I>(a, line)));
        }
    }

    /// Asks for the next of the weights that other tiles need soon.
    #[inline(always)]
    fn prefetch_soon<I: Isa>(s: I, a: &TileArgs, soon: &mut *const f32) {
        if *soon < a.soon.end {
            let step = const { Soon::step(MR * NV * I::LANES) };
            for line in (0..step).step_by(BLOCK) {
                s.prefetch_l2(soon.wrapping_add(line));
            }
            *soon = soon.wrapping_add(step);
        }
    }

    /// Adds the products of one element, whose input of the first pixel and weights are at `x` and `w`, to the sums of
    /// some pixels.
    ///
    /// # Safety
    /// The inputs of the pixels that take part and the weights of all vectors are readable.
    #[inline(always)]
    unsafe fn step<I: Isa>(
        s: I,
        a: Strides,
        (x, w): (*const f32, *const f32),
        pixels: Range<usize>,
        acc: &mut [[I::V; NV]; MR],
    ) {
        let px = Self::px(a);
        if Self::OVERLAPS {
            compiler_fence(Ordering::SeqCst);
        }
        // SAFETY: the same contract.
        unsafe {
            let mut wv = [s.zero(); NV];
            for v in 0..NV {
                wv[v] = s.load(w.add(Self::w_at::<I>(a, v)));
            }
            for i in pixels {
                let xv = s.load_splat(x.wrapping_add(i * px));
                for v in 0..NV {
                    acc[i][v] = s.fma(wv[v], xv, acc[i][v]);
                }
            }
        }
    }

    /// [`Tile::step`] of all pixels but the first `L` and the last `R` for a range of elements, while the same
    /// elements' weights from `next` on are asked for.
    ///
    /// # Safety
    /// As for [`Tile::step`], of each element.
    #[inline(always)]
    unsafe fn steps<I: Isa, const L: usize, const R: usize>(
        s: I,
        a: Strides,
        (x, w): (*const f32, *const f32),
        next: Option<*const f32>,
        elements: Range<usize>,
        acc: &mut [[I::V; NV]; MR],
    ) {
        let Range { start: mut k, end } = elements;
        let unroll = const { Self::unroll(I::LEVEL, [L, R]) };
        // SAFETY: the same contract.
        unsafe {
            if unroll > 1 && k + unroll <= end {
                s.align();
            }
            while unroll > 1 && k + unroll <= end {
                // Not over `k..k + unroll`, whose bounds would be compared: the sum might overflow.
                for i in 0..unroll {
                    if I::REGISTERS > 16 {
                        // Loads of the next step would take registers that the sums need.
                        compiler_fence(Ordering::SeqCst);
                    }
                    Self::element::<I, L, R>(s, a, (x, w), next, k + i, acc);
                }
                k += unroll;
            }
            while k < end {
                Self::element::<I, L, R>(s, a, (x, w), next, k, acc);
                k += 1;
            }
        }
    }

    /// Element `k` of [`Tile::steps`].
    ///
    /// # Safety
    /// As for [`Tile::step`].
    #[inline(always)]
    unsafe fn element<I: Isa, const L: usize, const R: usize>(
        s: I,
        a: Strides,
        (x, w): (*const f32, *const f32),
        next: Option<*const f32>,
        k: usize,
        acc: &mut [[I::V; NV]; MR],
    ) {
        if let Some(next) = next {
            Self::prefetch_weights(s, a, next.wrapping_add(k * Self::ws(a)));
        }
        let pixels = L..MR.saturating_sub(R);
        // SAFETY: the same contract.
        unsafe { Self::step(s, a, (x.wrapping_add(k * Self::ks(a)), w.wrapping_add(k * Self::ws(a))), pixels, acc) };
    }

    /// Adds the sum of a tile whose first input is at `x`, and asks for the weights that are needed soon.
    ///
    /// # Safety
    /// As for the kernel.
    #[inline(always)]
    unsafe fn sums<I: Isa>(s: I, a: &TileArgs, mut x: *const f32, soon: &mut *const f32, acc: &mut [[I::V; NV]; MR]) {
        let [lb, ly, lx] = &a.loops;
        // How far it is from the last step of an inner loop to the next step of the one around it: for `x` from behind
        // that step, for `w` from the step itself.
        let back = |outer: usize, n: usize, inner: usize| outer.wrapping_sub(n.wrapping_mul(inner));
        let overhang = const { Self::edge_pixels(I::LEVEL) };
        let strides = Strides::of(a);
        let mut w = a.w;
        for b in 0..lb.n {
            for ky in 0..ly.n {
                for kx in 0..lx.n {
                    let k0 = if b == 0 { a.head } else { 0 };
                    let k1 = if b + 1 == lb.n { a.tail } else { a.depth };
                    // A fence: else there would be loops of their own for taps without elements, unrolled to 1 kB of
                    // each kernel.
                    let k1 = s.opaque(ptr::without_provenance::<f32>(k1)).addr();
                    if Self::FETCHES {
                        Self::prefetch_soon(s, a, soon);
                    }
                    if Self::FETCHES && KS == 1 {
                        Self::prefetch_ahead(s, a, x);
                    }
                    // The next tap; after the last one the next tile starts with these weights again.
                    let next = if kx + 1 < lx.n {
                        w.wrapping_add(lx.w)
                    } else {
                        let row = back(ly.w, lx.n.wrapping_sub(1), lx.w);
                        if ky + 1 < ly.n {
                            w.wrapping_add(row)
                        } else if b + 1 < lb.n {
                            w.wrapping_add(row).wrapping_add(back(lb.w, ly.n, ly.w))
                        } else {
                            a.w
                        }
                    };
                    // The same step of the next tap, about 16 * MR * NV cycles ahead: far enough for L3. A packed panel
                    // just goes on.
                    let ahead = if KS == 1 { next } else { w.wrapping_add(BLOCK * Self::ws(strides)) };
                    let fetched = const { Self::fetches_weights(I::LEVEL) }.then_some(ahead);
                    let lacking = if overhang > 0 && a.edge.lacks() { a.edge.lacking(overhang, kx) } else { [0, 0] };
                    // SAFETY: all pointers stay inside what the contract grants.
                    unsafe {
                        edge_steps!(lacking, Self::edge_pixels(I::LEVEL), (s, strides, (x, w), fetched, k0..k1, acc))
                    };
                    (x, w) = (x.wrapping_add(lx.x), next);
                }
                x = x.wrapping_add(back(ly.x, lx.n, lx.x));
            }
            x = x.wrapping_add(back(lb.x, ly.n, ly.x));
        }
    }

    /// The loop over the input blocks of a single tap, if [`Tile::pointwise`] is to take it: blocks that are whole but
    /// for the last one, to be stored from registers.
    #[inline(always)]
    fn single_tap<I: Isa>(a: &TileArgs) -> Option<Loop> {
        if const { PS != BLOCK || KS != 1 || !Self::in_groups(I::LEVEL) } {
            return None;
        }
        if (a.depth, a.head) != (BLOCK, 0) || a.edge.lacks() || !a.out.takes_tiles(NV * I::LANES) {
            return None;
        }
        match a.loops {
            [blocks, Loop { n: 1, .. }, Loop { n: 1, .. }] if blocks.n > 0 && a.tail >= LATE => Some(blocks),
            [Loop { n: 1, .. }, Loop { n: 1, .. }, blocks] if blocks.n > 0 && a.tail == BLOCK => Some(blocks),
            _ => None,
        }
    }

    /// The kernel for 1x1 convolutions, whose sums are so short that each cycle around them counts.
    ///
    /// # Safety
    /// As for the kernel; `blocks` is its [`Tile::single_tap`].
    #[inline(always)]
    unsafe fn pointwise<I: Isa>(s: I, a: &TileArgs, blocks: Loop) {
        let tail = a.tail - LATE;
        let mut soon = a.soon.from;
        // SAFETY: all pointers stay inside what the contract grants.
        unsafe {
            let mut coming = Place::first(&a.sweep);
            for _ in 0..a.sweep.tiles.n * a.sweep.rows.n {
                let at = coming;
                coming = at.next(&a.sweep);
                let (mut x, mut w, y) = (a.x.wrapping_add(at.x), a.w, at.y);
                let mut acc = Self::begin(s, a, y, coming.y);
                let mut left = blocks.n;
                loop {
                    left -= 1;
                    Self::prefetch_soon(s, a, &mut soon);
                    Self::prefetch_ahead(s, a, x);
                    let (next, end) = if left > 0 { (w.wrapping_add(blocks.w), BLOCK) } else { (a.w, tail) };
                    let fetched = const { Self::fetches_weights(I::LEVEL) }.then_some(next);
                    Self::steps::<I, 0, 0>(s, Strides::of(a), (x, w), fetched, 0..end, &mut acc);
                    if left == 0 {
                        break;
                    }
                    (x, w) = (x.wrapping_add(blocks.x), next);
                }
                let end = (x.add(tail), w.add(tail * BLOCK), LATE);
                finish_groups!((s, a, end, y, &mut acc); 0 1 2 3 4 5 6 7 8 9 10 11 12 13);
                a.out.pad::<I, MR, NV>(s, y);
            }
        }
    }

    /// Whether a sum is a stem's of so many taps to the row: all of each row.
    #[inline(always)]
    fn is_stem(a: &TileArgs, taps: usize) -> bool {
        let [channels, rows, columns] = a.loops;
        (a.head, a.depth, a.tail) == (0, taps, taps) && channels.n > 0 && rows.n > 0 && columns.n == 1
    }

    /// Adds the sum of a [stem](Tile::is_stem) of `K` taps to the row, whose first input is at `x`: loops over so few
    /// taps cost half as much again.
    ///
    /// # Safety
    /// As for the kernel.
    #[inline(always)]
    unsafe fn stem_sums<I: Isa, const K: usize>(s: I, a: &TileArgs, mut x: *const f32, acc: &mut [[I::V; NV]; MR]) {
        let [channels, rows, _] = a.loops;
        let strides = Strides::of(a);
        let mut w = a.w;
        for _ in 0..channels.n {
            let (mut row_x, mut row_w) = (x, w);
            for _ in 0..rows.n {
                for k in 0..K {
                    // SAFETY: all pointers stay inside what the contract grants.
                    unsafe { Self::step(s, strides, (row_x.add(k), row_w.add(k * BLOCK)), 0..MR, acc) };
                }
                (row_x, row_w) = (row_x.wrapping_add(rows.x), row_w.wrapping_add(rows.w));
            }
            (x, w) = (x.wrapping_add(channels.x), w.wrapping_add(channels.w));
        }
    }

    /// The kernel for stems of the usual widths, `K` taps to the row.
    ///
    /// # Safety
    /// As for the kernel; it is a [stem](Tile::is_stem) of `K` taps to the row.
    #[inline(always)]
    unsafe fn stem<I: Isa, const K: usize>(s: I, a: &TileArgs) {
        let [channels, rows, _] = a.loops;
        // From behind a channel's last row to the next channel.
        let back = |outer: usize, inner: usize| outer.wrapping_sub(rows.n.wrapping_mul(inner));
        let (back_x, back_w) = (back(channels.x, rows.x), back(channels.w, rows.w));
        // SAFETY: all pointers stay inside what the contract grants.
        unsafe {
            let mut coming = Place::first(&a.sweep);
            for _ in 0..a.sweep.tiles.n * a.sweep.rows.n {
                let at = coming;
                coming = at.next(&a.sweep);
                let mut acc = Self::begin(s, a, at.y, coming.y);
                let (mut x, mut w) = (a.x.wrapping_add(at.x), a.w);
                let mut left = channels.n;
                loop {
                    left -= 1;
                    for _ in 0..rows.n - usize::from(left == 0) {
                        for k in 0..K {
                            Self::step(s, Strides::of(a), (x.add(k), w.add(k * BLOCK)), 0..MR, &mut acc);
                        }
                        (x, w) = (x.wrapping_add(rows.x), w.wrapping_add(rows.w));
                    }
                    if left == 0 {
                        break;
                    }
                    (x, w) = (x.wrapping_add(back_x), w.wrapping_add(back_w));
                }
                let early = K.saturating_sub(LATE);
                for k in 0..early {
                    Self::step(s, Strides::of(a), (x.add(k), w.add(k * BLOCK)), 0..MR, &mut acc);
                }
                let end = (x.add(early), w.add(early * BLOCK), K - early);
                finish_groups!((s, a, end, at.y, &mut acc); 0 1 2 3 4 5 6 7 8 9 10 11 12 13);
                a.out.pad::<I, MR, NV>(s, at.y);
            }
        }
    }

    /// Adds the last `n` elements, of which the first are at `x` and `w`, to the sums of group `G` of the pixels, and
    /// stores these.
    ///
    /// # Safety
    /// As for [`Tile::pointwise`] and [`Tile::stem`].
    #[inline(always)]
    unsafe fn finish<I: Isa, const G: usize>(
        s: I,
        a: &TileArgs,
        (x, w, n): (*const f32, *const f32, usize),
        y: usize,
        acc: &mut [[I::V; NV]; MR],
    ) {
        let group = const { Self::group(I::REGISTERS) };
        let pixels = G * group..MR.min((G + 1) * group);
        // SAFETY: the same contract.
        unsafe {
            for k in 0..n {
                Self::step(s, Strides::of(a), (x.add(k), w.add(k * BLOCK)), pixels.clone(), acc);
            }
            a.out.store_pixels(s, y, pixels, acc);
        }
    }
}

impl<I: Isa, const MR: usize, const NV: usize, const PS: usize, const KS: usize> Kernel<I> for Tile<MR, NV, PS, KS> {
    type Args = TileArgs;

    /// # Safety
    /// * every `x[..]` of the sum above is readable, for all tiles, loops, `head..depth..tail` elements and `MR` pixels
    ///   (of blocked input, where the pixel takes part);
    /// * the weights of `NV * LANES / 16` blocks are readable likewise, 16 columns wide;
    /// * `out` is as `Output::store` asks for `MR` pixels and `NV` vectors of every tile.
    #[inline(always)]
    unsafe fn run(s: I, a: &TileArgs) {
        const { assert!(MR * NV + NV < I::REGISTERS && BLOCK.is_multiple_of(I::LANES)) };
        if let Some(blocks) = Self::single_tap::<I>(a) {
            // SAFETY: the same contract.
            return unsafe { Self::pointwise(s, a, blocks) };
        }
        stems!(stem_in_groups(s, a));
        // SAFETY: all pointers stay inside what the contract above grants.
        unsafe {
            let mut soon = a.soon.from;
            let mut coming = Place::first(&a.sweep);
            for _ in 0..a.sweep.tiles.n * a.sweep.rows.n {
                let at = coming;
                coming = at.next(&a.sweep);
                let mut acc = Self::begin(s, a, at.y, coming.y);
                // An edge pixel that sits out may lie outside of the input, so pointers are formed with wrapping
                // arithmetic.
                stems!(sums_of_stem_or_any(s, a, a.x.wrapping_add(at.x), &mut soon, &mut acc));
                a.out.store(s, at.y, &mut acc);
                a.out.pad::<I, MR, NV>(s, at.y);
            }
        }
    }
}
