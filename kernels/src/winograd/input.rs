//! The input transform: `B^T d B` of one tile, for all its channel blocks.
//!
//! A window of P x P pixels is transformed down its columns and then along its rows, two rows of the result at a time: these need
//! `2 P` registers, and what is loaded again comes from L1. For P = 6 that is 84 loads, 36 stores and about 96
//! multiply-adds for 16 channels (AVX-512), where keeping all 36 intermediate vectors would spill them.
//!
//! A window that hangs over the border, or whose channels are not blocked, is gathered into a buffer first, with zeros
//! for what is outside.

use super::transform::Transform;
use crate::isa::{Isa, Kernel};
use crate::layout::{BLOCK, Strides};
use crate::tile::load_channels;

/// What a tile's transform works on. Lengths and steps in floats.
#[derive(Clone, Copy, Debug)]
pub struct InputArgs {
    /// The image.
    pub x: *const f32,
    /// Its strides.
    pub strides: Strides,
    /// Its channels.
    pub ic: usize,
    /// Its height and width.
    pub extent: [usize; 2],
    /// Row and column of the window's first pixel, which may lie outside.
    pub first: [isize; 2],
    /// The first pixel of the window that comes next, to be fetched meanwhile; null for none.
    pub next: *const f32,
    /// The tile at the first point and channel block.
    pub v: *mut f32,
    /// From point to point.
    pub v_point: usize,
    /// From channel block to channel block.
    pub v_block: usize,
}

/// Floats of the largest window, 8 x 8 pixels of a block.
const WINDOW: usize = 64 * BLOCK;

/// The body for windows of `P` x `P` pixels.
pub struct InputTile<T, const M: usize, const P: usize>(T);

impl<I: Isa, T: Transform<M, P>, const M: usize, const P: usize> Kernel<I> for InputTile<T, M, P> {
    type Args = InputArgs;

    /// # Safety
    /// * `x` is an image of `ic` channels (blocked: of whole blocks) with these strides and extents;
    /// * `v` is writable for `P * P` points of all channel blocks.
    #[inline(always)]
    unsafe fn run(s: I, a: &InputArgs) {
        const { assert!(P * P * BLOCK <= WINDOW) };
        let [h, w] = a.extent;
        let [y0, x0] = a.first;
        let inside = y0 >= 0 && x0 >= 0 && y0 as usize + P <= h && x0 as usize + P <= w;
        let blocked = a.strides.channel == 1 && a.strides.px == BLOCK;
        let start = a.x.wrapping_offset(y0 * a.strides.row as isize + x0 * a.strides.px as isize);
        let mut window = [0.0f32; WINDOW];
        for b in 0..a.ic.div_ceil(BLOCK) {
            let mut src = start.wrapping_add(b * a.strides.block);
            let mut row = a.strides.row;
            if !(inside && blocked) {
                // SAFETY: only pixels inside the image are read.
                unsafe { gather::<I, P>(s, a, b, &mut window) };
                (src, row) = (window.as_ptr(), P * BLOCK);
            }
            if !a.next.is_null() {
                // Its first two columns were this one's last two.
                for y in 0..P {
                    for x in 2..P {
                        s.prefetch(a.next.wrapping_add(b * a.strides.block + y * a.strides.row + x * BLOCK));
                    }
                }
            }
            for part in (0..BLOCK).step_by(I::LANES) {
                // SAFETY: the window is inside the image, or in the buffer; v has room for all points of the block.
                unsafe {
                    let to = a.v.wrapping_add(b * a.v_block + part);
                    let from = src.wrapping_add(part);
                    two_rows::<I, T, M, P>(s, from, row, to, a.v_point, 0, P - 1);
                    two_rows::<I, T, M, P>(s, from, row, to, a.v_point, 1, 2);
                    if P > 4 {
                        two_rows::<I, T, M, P>(s, from, row, to, a.v_point, P - 3, P - 2);
                    }
                    if P > 6 {
                        two_rows::<I, T, M, P>(s, from, row, to, a.v_point, 3, 4);
                    }
                }
            }
        }
    }
}

/// Rows `r0` and `r1` of the result: what the columns need for others is left out by the compiler.
///
/// # Safety
/// `src` is readable for `P` rows of `P` blocked pixels, `v` writable for all points, both for one vector.
#[inline(always)]
unsafe fn two_rows<I: Isa, T: Transform<M, P>, const M: usize, const P: usize>(
    s: I,
    src: *const f32,
    row: usize,
    v: *mut f32,
    v_point: usize,
    r0: usize,
    r1: usize,
) {
    let (mut t0, mut t1) = ([s.zero(); P], [s.zero(); P]);
    for x in 0..P {
        let mut column = [s.zero(); P];
        for y in 0..P {
            // SAFETY: pixel (y, x) of the window.
            column[y] = unsafe { s.load(src.add(y * row + x * BLOCK)) };
        }
        let t = T::input(s, column);
        (t0[x], t1[x]) = (t[r0], t[r1]);
    }
    for (r, t) in [(r0, t0), (r1, t1)] {
        let t = T::input(s, t);
        for x in 0..P {
            // SAFETY: point (r, x).
            unsafe { s.store(v.add((r * P + x) * v_point), t[x]) };
        }
    }
}

/// Copies block `b` of the window to a buffer, with zeros outside of the image and beyond its channels.
///
/// # Safety
/// As for the kernel.
#[inline(always)]
unsafe fn gather<I: Isa, const P: usize>(s: I, a: &InputArgs, b: usize, window: &mut [f32; WINDOW]) {
    let channels = (a.ic - b * BLOCK).min(BLOCK);
    let inside = |at: isize, extent: usize| usize::try_from(at).is_ok_and(|at| at < extent);
    for y in 0..P {
        for x in 0..P {
            let (py, px) = (a.first[0] + y as isize, a.first[1] + x as isize);
            let valid = inside(py, a.extent[0]) && inside(px, a.extent[1]);
            let pixel = py * a.strides.row as isize + px * a.strides.px as isize;
            for part in (0..BLOCK).step_by(I::LANES) {
                let n = if valid { channels.saturating_sub(part).min(I::LANES) } else { 0 };
                let from = a.x.wrapping_offset(pixel).wrapping_add(b * a.strides.block + part * a.strides.channel);
                // SAFETY: n channels of a pixel inside the image are read, none outside; the window holds P * P blocks.
                unsafe {
                    let value = load_channels(s, from, a.strides.channel, n);
                    s.store(window.as_mut_ptr().add((y * P + x) * BLOCK + part), value);
                }
            }
        }
    }
}
