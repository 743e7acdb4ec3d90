//! Depthwise and small-group convolution from NCHW to NCHW, where one vector of outputs lies along a row.
//!
//! ```text
//! y[oy][ox] = sum over (j, kx, ky)  x[j][oy * sh + ky * dh - top][ox * sw + kx * dw - left] * w[j][kx][ky]
//!
//! for each output plane:
//!   for each 7 rows, for each vector of columns:
//!     for j: for kx: load a column of weights; for each of the 6 * sh + kh input rows: load, up to kh multiply-adds
//! ```
//!
//! An input that is loaded once serves up to `kh` rows of outputs. Loads begin at any float: a third of those of a 3x3 kernel
//! are within a cache line, and as there are fewer loads than multiply-adds, the FMA unit is the limit. At a stride of 2, two
//! vectors are taken apart into their even and their odd columns.
//!
//! Nothing is copied or padded: at the borders lanes of columns that do not exist are masked, rows that do not exist are
//! left out. Where 7 does not divide the rows, or a vector the columns, the last ones overlap those before, whose outputs they
//! compute again, to the same bits. Planes of fewer than 7 rows are computed row by row.
//!
//! Register budget: 7 sums, `kh` weights, one input. Order of the sum: `(j, kx, ky)`, or by pairs of `kx` at a stride of 2; where
//! taps are taken one by one, `(j, ky, kx)`. Error: as for the register tile. Columns that do not exist are zeros that are
//! multiplied: they change a result only where a weight that meets one is infinite or NaN.
//! Magnitudes: [`FiniteRange::PLAIN`](crate::finite::FiniteRange::PLAIN).

mod rows;

pub(crate) use rows::range;
pub use rows::{PlaneArgs, Row, rows};

use crate::act::ActArgs;
use crate::epilogue::{Epilogue, Lengths, Outputs};
use crate::exec::{Executor, Shared, cut, for_each_part_with, parts_wanted};
use crate::layout::{Layout, Strides, View};
use crate::machine::Core;
use crate::shape::ConvShape;
use crate::tile::{Finish, SyncFinish};
use crate::weights::Weights;

/// Most input channels of a group: beyond, tiles that share inputs between output channels need fewer loads.
pub(crate) const MAX_ICG: usize = 8;

/// A depthwise or small-group convolution over planes, planned. Holds no tensor.
///
/// ```
/// use swath_kernels::{epilogue::Epilogue, exec::Inline, isa::Level, machine::Core, planar::Planar, shape::ConvShape};
/// let shape = ConvShape::builder([1, 2, 1, 3], [2, 1, 1, 2]).groups(2).build()?;
/// let plan = Planar::new(&shape, Core::here(Level::Scalar))?;
/// let (mut packed, mut y) = ([0.0; 4], [f32::NAN; 4]);
/// plan.pack(&[1.0, 10.0, 1.0, -1.0], &mut packed);
/// plan.forward(&[1.0, 2.0, 3.0, 4.0, 5.0, 7.0], &packed, &Epilogue::none(), y.as_mut_slice().into(), &Inline);
/// assert_eq!(y, [21.0, 32.0, -1.0, -2.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Planar {
    shape: ConvShape,
    core: Core,
    row: &'static Row,
    xs: Strides,
    ys: Strides,
}

impl Planar {
    /// Plans, for input and output in NCHW, or says why the shape is not for this algorithm.
    ///
    /// # Errors
    /// A reason: one group, more than 8 input channels of a group, a horizontal stride beyond 2.
    pub fn new(shape: &ConvShape, core: Core) -> Result<Self, &'static str> {
        Self::with_lanes(shape, core, None)
    }

    /// The same by vectors of so many floats, where the level has such kernels.
    ///
    /// # Errors
    /// As for [`Planar::new`].
    pub fn with_lanes(shape: &ConvShape, core: Core, lanes: Option<usize>) -> Result<Self, &'static str> {
        shape.assert_consistent();
        let s = *shape;
        if s.groups == 1 {
            return Err("one group");
        }
        if s.icg() > MAX_ICG {
            return Err("more than 8 input channels a group");
        }
        if s.sw > 2 {
            return Err("a horizontal stride beyond 2");
        }
        let adjacent = (s.dh, s.dw) == (1, 1);
        let does = |row: &&Row| {
            let down = if row.kh == 1 { true } else { adjacent && row.kh == s.kh && row.strides[0] == s.sh };
            down && row.strides[1] == s.sw && row.rows <= s.oh && lanes.is_none_or(|lanes| lanes == row.lanes)
        };
        // Fewest loads, then fewest vectors.
        let cost = |row: &&Row| (core::cmp::Reverse((row.kh, row.rows)), vectors_cost(core, row, s.ow));
        let row = rows(core.level).iter().filter(does).min_by_key(cost).ok_or("no kernels at this level")?;
        let [xs, ys] = [s.input(), s.output()].map(|dims| Layout::Nchw.strides(dims));
        Ok(Self { shape: s, core, row, xs, ys })
    }

    /// The same for tensors that are parts of larger ones.
    ///
    /// # Errors
    /// As for [`Planar::new`].
    ///
    /// # Panics
    /// If a view has other extents than the shape's, or another layout than NCHW.
    pub fn of_views(shape: &ConvShape, core: Core, [x, y]: [View; 2]) -> Result<Self, &'static str> {
        assert!([x, y].iter().all(|view| view.layout() == Layout::Nchw), "a view in NCHW");
        let [xs, ys] = [x.strides_of(shape.input()), y.strides_of(shape.output())];
        Ok(Self { xs, ys, ..Self::new(shape, core)? })
    }

    /// The geometry.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// Name of the kernel: what `explain` prints.
    pub fn kernel(&self) -> &'static str {
        self.row.name
    }

    /// Multiply-adds done per multiply-add that counts: more than 1 where rows or columns are computed twice, or lanes are empty.
    pub fn waste(&self) -> f64 {
        let (s, row) = (&self.shape, self.row);
        let outputs = s.oh.div_ceil(row.rows) * row.rows * s.ow.div_ceil(row.lanes) * row.lanes;
        outputs as f64 / (s.oh * s.ow) as f64
    }

    /// Floats of packed weights: `[oc][ic / groups][kw][kh]`.
    pub fn packed_len(&self) -> usize {
        self.shape.weights().iter().product()
    }

    /// Packs weights `[oc, ic / groups, kh, kw]`.
    ///
    /// # Panics
    /// If a slice's length is not what the shape says.
    pub fn pack(&self, w: &[f32], packed: &mut [f32]) {
        self.pack_from(&Weights::forward(&self.shape, w), packed);
    }

    /// The same from any order of the weights.
    ///
    /// # Panics
    /// If `packed` is not [`Planar::packed_len`] long.
    pub fn pack_from(&self, w: &Weights<'_>, packed: &mut [f32]) {
        let s = &self.shape;
        assert_eq!(packed.len(), self.packed_len());
        let taps = s.kh * s.kw;
        for (plane, packed) in packed.chunks_exact_mut(taps).enumerate() {
            for (tap, packed) in packed.iter_mut().enumerate() {
                *packed = w.at(plane / s.icg(), plane % s.icg(), tap % s.kh, tap / s.kh);
            }
        }
    }

    /// Runs the convolution on the executor's threads.
    ///
    /// The outputs may lie in memory that holds nothing yet; what they then are is returned.
    ///
    /// # Panics
    /// If a slice's length is not what the shape and [`Planar::packed_len`] say. Where outputs with gaps between them
    /// lie in memory that holds nothing.
    pub fn forward<'y>(
        &self,
        x: &[f32],
        packed: &[f32],
        epilogue: &Epilogue<'_>,
        mut y: Outputs<'y>,
        executor: &dyn Executor,
    ) -> &'y mut [f32] {
        let s = &self.shape;
        Lengths::new(s, self.packed_len(), [(Layout::Nchw, self.xs), (Layout::Nchw, self.ys)])
            .assert(x, packed, epilogue, &y);
        assert!(self.core.level.is_available());
        let finish = SyncFinish(Finish::new(epilogue, self.core.level));
        let (strips, together) = self.cuts(executor.threads());
        let job = Job { d: self, x, w: packed, finish: &finish, y: y.shared(), strips, together };
        for_each_part_with(executor, job.parts(), &mut [], 0, |i, _| job.part(i));
        // SAFETY: parts of a run write all outputs, channels that pad included; what holds nothing has no gaps (asserted).
        unsafe { y.written() }
    }

    /// Strips of rows that a plane is cut into, and planes of a part: few planes are cut, many go together.
    fn cuts(&self, threads: usize) -> (usize, usize) {
        let s = &self.shape;
        let planes = (s.n * s.oc).max(1);
        let wanted = if threads == 1 { 1 } else { parts_wanted(threads).min((s.macs() / 50_000) as usize).max(1) };
        let strips = wanted.div_ceil(planes).min(s.oh / self.row.rows);
        (strips, (planes / wanted).clamp(1, s.oc))
    }
}

/// What covering a row by vectors costs: vectors, of which those of half a register take a little more than a half where they
/// gain anything.
fn vectors_cost(core: Core, row: &Row, columns: usize) -> usize {
    let whole = row.lanes == core.level.lanes() || !core.halves_gain;
    columns.div_ceil(row.lanes) * if whole { 10 } else { 6 }
}

/// A run, in parts that write disjoint outputs.
struct Job<'a> {
    d: &'a Planar,
    x: &'a [f32],
    w: &'a [f32],
    finish: &'a SyncFinish,
    y: Shared<'a>,
    strips: usize,
    together: usize,
}

impl Job<'_> {
    fn parts(&self) -> usize {
        let s = &self.d.shape;
        s.n * s.oc.div_ceil(self.together) * self.strips
    }

    fn part(&self, i: usize) {
        let (s, row) = (&self.d.shape, self.d.row);
        let batches = s.oc.div_ceil(self.together);
        let (strip, batch) = (i % self.strips, i / self.strips);
        let (n, first) = (batch / batches, batch % batches * self.together);
        let channels = self.together.min(s.oc - first);
        let rows = cut(s.oh, self.strips, strip);
        let (xs, ys) = (&self.d.xs, &self.d.ys);
        let plane = ys.channel;
        let group = first / s.ocg();
        let x = &self.x[n * xs.n + group * s.icg() * xs.channel..];
        let at = n * ys.n + first * plane;
        let finish = self.finish.0.at(first, at);
        let y = self.y.at(at);
        let args = PlaneArgs {
            x: x.as_ptr(),
            height: s.ih,
            width: s.iw,
            x_row: xs.row,
            x_plane: xs.channel,
            down: if row.kh == 1 { s.sh.wrapping_mul(xs.row) } else { xs.row },
            icg: s.icg(),
            ocg: s.ocg(),
            w: self.w[first * s.terms()..].as_ptr(),
            taps: [s.kh, s.kw],
            stride: s.sh,
            dilation: [s.dh, s.dw],
            pad: [s.pad.top, s.pad.left],
            channels,
            within: first % s.ocg(),
            first: rows.start,
            end: rows.end,
            columns: s.ow,
            y_row: ys.row,
            y,
            residual: finish.residual,
            bias: finish.bias,
            plane,
            lo: finish.lo,
            hi: finish.hi,
        };
        let last = at + (channels - 1) * plane + (s.oh - 1) * ys.row + s.ow;
        assert!(rows.len() >= row.rows && rows.end <= s.oh && last <= self.y.len(), "outputs of a part");
        // SAFETY:
        // * the level is available, and all slices are as long as shape and strides say (asserted in `forward`), so that the planes of
        //   these channels, their groups' inputs and their weights lie inside;
        // * there are as many rows as the kernel takes at once (asserted above: `cuts` leaves so many);
        // * the kernel is one for these taps, strides and this dilation (`with_lanes`);
        // * parts of a run have disjoint planes or rows, so no two threads write the same output.
        unsafe { (row.run)(&args) };
        for channel in 0..channels {
            let first = y.wrapping_add(channel * plane + rows.start * ys.row);
            // SAFETY: these outputs are this part's alone, and the level is available.
            unsafe { activate(&finish, first, [rows.len(), s.ow], ys.row) };
        }
    }
}

/// Applies what is more than a clamp to some rows of a plane that are so far apart: row by row, or all at once where they follow each
/// other.
///
/// # Safety
/// They hold floats that no other thread uses, and the machine has the level that `finish` was made for.
pub(crate) unsafe fn activate(finish: &Finish, first: *mut f32, [rows, columns]: [usize; 2], pitch: usize) {
    let Some(act) = finish.act else { return };
    let (pieces, len) = if pitch == columns { (1, rows * columns) } else { (rows, columns) };
    for row in 0..pieces {
        let row = first.wrapping_add(row * pitch);
        // SAFETY: the same contract.
        unsafe { act(&ActArgs { src: row, dst: row, len, p: finish.act_params }) };
    }
}
