//! Every row of the kernel tables, by itself.

use swath_kernels::depthwise;
use swath_kernels::isa::Level;
use swath_kernels::layout::{BLOCK, Layout};
use swath_kernels::shape::ConvShape;
use swath_kernels::tile::{self, Access, Edge, Loop, Output, Soon, Steps, Sweep, TileArgs};
use swath_kernels::winograd::{self, ProductArgs};

use crate::support::{Problem, guarded, integers};

/// Every tile kernel on its own operands, two rows of two tiles: all loops longer than one, a head and a tail, a single tap with
/// and without a tail, a stem's rows of taps, fewer columns than the tile has, whole blocks of them and not, a sum that is continued.
#[test]
fn every_tile_against_its_formula() {
    // The first pixels of some tiles of blocked input lack the first iterations, the last ones the last, or one of both.
    let left = Edge { starts: [3, 2, 1], ..Edge::NONE };
    let right = Edge { ends: [0, 1, 2], ..Edge::NONE };
    let both = Edge { starts: [2, 0, 0], ends: [1, usize::MAX, usize::MAX] };
    for level in Level::available() {
        assert!(!tile::rows(*level).is_empty());
        for row in tile::rows(*level) {
            for (loops, depth, ends) in [
                ([1, 1, 1], 1, [0, 1]),
                ([2, 3, 2], 9, [3, 5]),
                ([3, 1, 1], 16, [5, 8]),
                ([1, 2, 3], 5, [0, 5]),
                ([3, 1, 1], 16, [0, 16]),
                ([2, 1, 1], 16, [0, 4]),
                ([2, 1, 1], 16, [0, 3]),
                ([1, 1, 3], 16, [0, 16]),
                ([1, 1, 1], 16, [0, 11]),
                ([2, 3, 1], 3, [0, 3]),
                ([3, 1, 1], 4, [0, 4]),
                ([1, 2, 1], 5, [0, 5]),
                ([2, 2, 1], 7, [0, 7]),
            ] {
                for (cut, edge) in [(0, Edge::NONE), (5, Edge::NONE), (0, left), (0, right), (3, both), (BLOCK, both)] {
                    for (accumulate, pad_cols) in [(false, false), (true, false), (false, true), (true, true)] {
                        let cols = row.cols - cut.min(row.cols - 1);
                        one_tile(row, loops, depth, ends, (cols, pad_cols), accumulate, edge);
                    }
                }
            }
        }
    }
}

fn one_tile(
    row: &tile::Row,
    [nb, ny, nx]: [usize; 3],
    depth: usize,
    [head, tail]: [usize; 2],
    (cols, pad_cols): (usize, bool),
    accumulate: bool,
    edge: Edge,
) {
    let (px, step) = match row.access {
        Access::Blocked1 => (16, 1),
        Access::Blocked2 => (32, 1),
        Access::Strided => (23, 1),
        Access::Plain1 => (1, 1),
        Access::Plain2 => (2, 1),
        Access::Plain4 => (4, 1),
        Access::Packed => (1, row.mr),
        Access::PixelSum => (1, 7),
    };
    let may_lack = matches!(row.access, Access::Blocked1 | Access::Blocked2);
    let edge = if may_lack { edge } else { Edge::NONE };
    let sits_out = |i: usize, kx: usize| {
        let most = tile::overhang(row.level, if row.access == Access::Blocked2 { 2 } else { 1 }, row.mr);
        let behind = row.mr - 1 - i;
        i < most && kx < edge.starts[i] || behind < most && kx >= edge.ends[behind]
    };
    // A packed panel has no outer loops.
    let packed = row.access == Access::Packed;
    let [nb, ny, nx] = if packed { [1, 1, 1] } else { [nb, ny, nx] };
    let [head, tail] = if packed { [0, depth] } else { [head, tail] };
    let (xb, xy, xx) = (211, 37, 5);
    let ws = if row.access == Access::PixelSum { BLOCK + 3 } else { BLOCK };
    let wx = depth * ws;
    let (wy, wb) = (nx * wx, ny * nx * wx);
    let w_block = nb * wb;
    let ends = (nb - 1) * xb + (ny - 1) * xy + (nx - 1) * xx + (row.mr - 1) * px;
    let y_px = row.blocks * BLOCK + 3;
    let y_tile = row.mr * y_px;
    let sweep = Sweep { tiles: Steps { n: 2, x: 13, y: y_tile }, rows: Steps { n: 2, x: 29, y: 2 * y_tile + 1 } };
    let tiles = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(row, tile)| {
        let Sweep { tiles, rows } = sweep;
        (row * rows.x + tile * tiles.x, row * rows.y + tile * tiles.y)
    });
    let (x_last, y_last) = tiles[3];
    // The last element that is read: nothing may touch what lies behind it.
    let x = integers(x_last + ends + (tail - 1) * step + 1, 1);
    let w = integers(row.blocks * w_block, 2);
    let stored = if pad_cols { row.blocks * BLOCK } else { cols };
    let mut start = integers(y_last + (row.mr - 1) * y_px + stored, 3);
    for (_, y_at) in tiles {
        (0..row.mr).for_each(|i| start[y_at + i * y_px..][cols..stored].fill(0.0));
    }
    let y = guarded(start.len(), |y| {
        if accumulate {
            y.copy_from_slice(&start);
        }
        let args = TileArgs {
            x: x.as_ptr(),
            w: w.as_ptr(),
            loops: [Loop { n: nb, x: xb, w: wb }, Loop { n: ny, x: xy, w: wy }, Loop { n: nx, x: xx, w: wx }],
            depth,
            head,
            tail,
            px: if row.access == Access::PixelSum { step } else { px },
            ahead: BLOCK,
            w_block,
            w_step: ws,
            accumulate,
            fetch_output: pad_cols,
            edge,
            sweep,
            soon: Soon::NONE,
            out: Output { y: y.as_mut_ptr(), px: y_px, block: BLOCK, channel: 1, cols, pad_cols, finish: None },
        };
        // SAFETY: the level is available; x, w and y cover the loops' extents as computed above.
        unsafe { (row.run)(&args) };
    });
    for ((x_at, y_at), i) in tiles.into_iter().flat_map(|t| (0..row.mr).map(move |i| (t, i))) {
        for o in 0..stored {
            let y_at = y_at + i * y_px + o;
            if o >= cols {
                assert_eq!(y[y_at], 0.0, "{} pixel {i} column {o} of {cols}", row.name);
                continue;
            }
            let mut want = if accumulate { start[y_at] } else { 0.0 };
            for b in 0..nb {
                let k0 = if b == 0 { head } else { 0 };
                let k1 = if b + 1 == nb { tail } else { depth };
                for (ky, kx) in (0..ny).flat_map(|ky| (0..nx).map(move |kx| (ky, kx))) {
                    if sits_out(i, kx) {
                        continue;
                    }
                    for k in k0..k1 {
                        let xv = x[x_at + b * xb + ky * xy + kx * xx + i * px + k * step];
                        let wv = w[o / BLOCK * w_block + b * wb + ky * wy + kx * wx + k * ws + o % BLOCK];
                        want += xv * wv;
                    }
                }
            }
            assert_eq!(y[y_at], want, "{} pixel {i} column {o}, {nb}x{ny}x{nx}x{depth}", row.name);
        }
    }
}

/// Every lane kernel: lines of one run, of two, and of three that overlap, with windows that hang over both ends as
/// the kernel allows, over one of them, and over none.
#[test]
fn every_lane_kernel_against_the_oracle() {
    for level in Level::available() {
        assert!(!depthwise::rows(*level).is_empty());
        for row in depthwise::rows(*level) {
            let [l, r] = row.overhang;
            for (width, [left, right]) in [
                (row.mr, [l, r]),
                (2 * row.mr, [l, r]),
                (3 * row.mr - 1, [l, r]),
                (row.mr, [l, 0]),
                (2 * row.mr, [0, r]),
                (row.mr, [0, 0]),
            ] {
                one_lane_kernel(row, width, left, right);
            }
        }
    }
}

fn one_lane_kernel(row: &depthwise::Row, width: usize, left: usize, right: usize) {
    // Dilation makes kernels that take taps at once impossible, so that the others are used.
    let (k, dilation, stride) = if row.kw == 1 { (3, 2, 1) } else { (row.kw, 1, row.stride) };
    let reach = (k - 1) * dilation + 1;
    let iw = (width - 1) * stride + reach - left - right;
    let (groups, icg, ocg) = match row.source {
        depthwise::Source::Own => (19, 1, 1),
        depthwise::Source::Apart => (35, 1, 1),
        depthwise::Source::Permuted => (10, 2, 2),
        depthwise::Source::One => (3, 4, row.level.lanes()),
    };
    let shape = ConvShape::builder([2, groups * icg, reach + stride, iw], [groups * ocg, icg, k, k])
        .stride(stride)
        .dilation(dilation)
        .padding([k / 2, left, k / 2, right])
        .groups(groups)
        .build()
        .unwrap();
    let problem = Problem::new(shape, 5);
    for output in [Layout::Blocked, Layout::Nhwc] {
        let input = if row.source == depthwise::Source::Apart { Layout::Nhwc } else { Layout::Blocked };
        let d = problem.depthwise(row.level, input, output, Some(row.mr)).expect("such groups are supported");
        // Longer lines may need longer runs, and other overhangs may be another kernel's too.
        let meant = width == row.mr && [left, right] == row.overhang;
        assert!(!meant || d.kernel() == row.name, "{} is meant, {} runs", row.name, d.kernel());
    }
}

/// Every product of Winograd's points on its own operands: several blocks, a last one that is not whole, several slices.
#[test]
fn every_product_against_its_formula() {
    for level in Level::available() {
        assert!(!winograd::rows(*level).is_empty());
        for row in winograd::rows(*level) {
            for (ic, slices) in [(1usize, 1), (16, 2), (37, 3)] {
                let tiles = row.mr * slices;
                let (v_block, m_block, u_block) = (tiles * BLOCK + 7, tiles * BLOCK + 5, ic * BLOCK + 3);
                let v = integers(ic.div_ceil(BLOCK) * v_block, 1);
                let u = integers((row.blocks - 1) * u_block + ic * BLOCK, 2);
                let m = guarded((row.blocks - 1) * m_block + tiles * BLOCK, |m| {
                    let (v, u, m) = (v.as_ptr(), u.as_ptr(), m.as_mut_ptr());
                    // SAFETY: the level is available; the operands have the extents of the arguments.
                    unsafe {
                        (row.run)(&ProductArgs { v, v_block, ic, u, u_block, m, m_block, slices, ahead: slices - 1 })
                    };
                });
                for (t, o) in (0..tiles).flat_map(|t| (0..row.blocks * BLOCK).map(move |o| (t, o))) {
                    let at = |c: usize| {
                        v[c / BLOCK * v_block + t * BLOCK + c % BLOCK] * u[o / BLOCK * u_block + c * BLOCK + o % BLOCK]
                    };
                    let want: f32 = (0..ic).map(at).sum();
                    let got = m[o / BLOCK * m_block + t * BLOCK + o % BLOCK];
                    assert_eq!(got, want, "{} tile {t} column {o} of {ic} channels", row.name);
                }
            }
        }
    }
}
