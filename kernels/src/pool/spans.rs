//! Rows of a tensor that is written, as parts of a pass take them.

use core::marker::PhantomData;
use core::mem::MaybeUninit;

use super::Apart;
use super::geometry::Geometry;
use crate::pass::Cut;

/// A tensor that is written, cut into some rows of a unit each: from the first of them to behind the last one, with what lies between.
/// Units do not reach into each other.
pub(super) struct Spans<'a> {
    y: *mut MaybeUninit<f32>,
    apart: Apart,
    /// Units of all images, and of one.
    units: [usize; 2],
    /// Rows of a unit, of a piece, and floats of a row.
    height: usize,
    rows: usize,
    row: usize,
    slice: PhantomData<&'a mut [MaybeUninit<f32>]>,
}

// SAFETY: pieces are disjoint slices, which may be sent.
unsafe impl Sync for Spans<'_> {}

impl<'a> Spans<'a> {
    /// Of outputs that reach as far as these distances say, in pieces of so many rows of `row` floats.
    pub fn new(
        y: &'a mut [MaybeUninit<f32>],
        g: &Geometry,
        apart: Apart,
        [height, row]: [usize; 2],
        rows: usize,
    ) -> Self {
        let units = [g.n * g.units, g.units];
        let spans = Self { y: y.as_mut_ptr(), apart, units, height, rows, row, slice: PhantomData };
        // Units are in the order of their numbers, so that what the last one holds is inside.
        let end = units[0].checked_sub(1).map_or(0, |last| apart.start(units[1], last) + spans.len(height));
        assert!(end <= y.len(), "{} floats of {end}", y.len());
        spans
    }

    fn per_unit(&self) -> usize {
        self.height.div_ceil(self.rows)
    }

    /// Floats from the first of so many rows to behind the last one.
    fn len(&self, rows: usize) -> usize {
        (rows - 1) * self.apart.row + self.row
    }
}

impl<'a> Cut for Spans<'a> {
    /// The unit, its first row, and the floats of these rows.
    type Piece = ([usize; 2], &'a mut [MaybeUninit<f32>]);

    fn pieces(&self) -> usize {
        self.units[0] * self.per_unit()
    }

    unsafe fn piece(&self, i: usize) -> Self::Piece {
        let (unit, first) = (i / self.per_unit(), i % self.per_unit() * self.rows);
        let start = self.apart.start(self.units[1], unit) + first * self.apart.row;
        let len = self.len(self.rows.min(self.height - first));
        // SAFETY: `i` is below the number of pieces, so that these rows lie inside (asserted in `new`); views have no rows that reach into
        // the next one's and no units that do, so that pieces of other numbers are disjoint; the caller has none of this number.
        ([unit, first], unsafe { core::slice::from_raw_parts_mut(self.y.add(start), len) })
    }
}
