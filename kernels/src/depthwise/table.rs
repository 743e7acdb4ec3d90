//! The table of kernels, and how a line is cut into runs.

use crate::isa::{Entry, Level};
use crate::machine::Core;
use crate::table::by_level;

use super::lanes::{APART, LaneArgs, Lanes, ONE, OWN, PERMUTED};

/// A kernel of this family: a row of [`rows`].
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// `dw3s1_f32_7x16_avx512`: family, taps at once and stride (`any` where they are taken one by one), pixels x vector,
    /// level. Families: `dw`, `nhwc` where pixels lie apart; `group` where lanes are permuted, `splat` where a vector lies in one group.
    pub name: &'static str,
    /// Level.
    pub level: Level,
    /// Pixels.
    pub mr: usize,
    /// Taps of a row at once.
    pub kw: usize,
    /// Horizontal stride.
    pub stride: usize,
    /// Where lanes draw from.
    pub source: Source,
    /// Taps by which windows may hang over the start and the end of a line.
    pub overhang: [usize; 2],
    /// The kernel; see `Lanes` for its contract.
    pub run: Entry<LaneArgs>,
}

impl Row {
    /// What a run costs, in pixels: about one beyond its own. A sum over several channels is long enough that fewer pixels
    /// than multiply-adds are in flight at once wait for each other (AVX2, 12 channels at 35 pixels: runs of 7 82 GFLOP/s,
    /// of 9 94); short sums overlap with the next run's.
    fn cost(&self, core: Core) -> usize {
        let in_flight = if matches!(self.source, Source::Own | Source::Apart) { 0 } else { core.in_flight };
        self.mr.max(in_flight) + 1
    }
}

/// Where the lanes of an output vector draw from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Each from its own lane: depthwise.
    Own,
    /// The same, where pixels lie any number of floats apart.
    Apart,
    /// From one input vector, permuted: it holds several groups.
    Permuted,
    /// All from one channel: the vector lies inside one group.
    One,
}

/// The outermost edges, a module for each source, so that their code is generated side by side.
mod edge {
    use crate::table::edges;

    edges!(pub(super) dw);
    edges!(pub(super) nhwc);
    edges!(pub(super) group);
    edges!(pub(super) splat);
}

/// Rows of one level: for each number of taps, stride and overhang, the numbers of pixels of depthwise kernels, and of those
/// for groups. A line of any length is cut into runs that overlap, so sizes need not be contiguous. 7 and 8 divide most widths of networks,
/// 5 divides those of 10 and 20 pixels; with 3 and 4 as well, of 3x3 only lines of 3, 4, 6, 11 and 12 pixels would cost less (by 7 to 50 %), and
/// the table would be half as long again. Groups' shortest lines take their taps one by one.
macro_rules! rows {
    // Those that every level of vectors has, and more.
    (vectors $level:ident, $entry:ident, $lanes:literal, $name:literal; $($more:tt)*) => {
        rows! {
            $level, $entry, $lanes, $name;
            "any" = 1 1 hang 0 0: dw [1 4 5 7] group [1 4 7] splat [1 4 7];
            "3s1" = 3 1 hang 1 1: dw [1 2 5 7 8] group [3 5 7 8] splat [3 5 7 8] nhwc [7];
            "3s2even" = 3 2 hang 1 0: dw [7] group [] splat [];
            "3s2" = 3 2 hang 1 1: dw [1 2 5 7 8] group [3 5 7 8] splat [3 5 7 8] nhwc [7];
            "5s1" = 5 1 hang 2 2: dw [2 5 7 8] group [] splat [] nhwc [7];
            "5s2even" = 5 2 hang 2 1: dw [2 5 7 8] group [] splat [] nhwc [7];
            "5s2" = 5 2 hang 2 2: dw [4 7] group [] splat [] nhwc [7];
            $($more)*
        }
    };
    ($level:ident, $entry:ident, $lanes:literal, $name:literal;
     $($taps:literal = $kw:literal $s:literal hang $l:literal $r:literal:
       dw [$($mr:literal)*] group [$($gmr:literal)*] splat [$($omr:literal)*] $(nhwc [$nmr:literal])?;)*) => {
        &[$($(
            rows!(@row $level, $entry, $lanes, $name, $taps, $kw, $s, $l, $r, $mr, dw, Own, OWN),
        )* $(
            rows!(@row $level, $entry, $lanes, $name, $taps, $kw, $s, $l, $r, $gmr, group, Permuted, PERMUTED),
        )* $(
            rows!(@row $level, $entry, $lanes, $name, $taps, $kw, $s, $l, $r, $omr, splat, One, ONE),
        )* $(
            rows!(@row $level, $entry, $lanes, $name, $taps, $kw, $s, $l, $r, $nmr, nhwc, Apart, APART),
        )?)*]
    };
    (@row $level:ident, $entry:ident, $lanes:literal, $name:literal, $taps:literal, $kw:literal, $s:literal,
     $l:literal, $r:literal, $mr:literal, $family:ident, $source:ident, $from:ident) => {
        Row {
            name: concat!(stringify!($family), $taps, "_f32_", $mr, "x", $lanes, "_", $name),
            level: Level::$level,
            mr: $mr,
            kw: $kw,
            stride: $s,
            source: Source::$source,
            overhang: [$l, $r],
            run: edge::$family::$entry::run::<Lanes<{ $mr }, { $kw }, { $s }, { $from }, { $l }, { $r }>>,
        }
    };
}

// `even`: windows of stride 2 over an even number of pixels, padded by half a window, hang over the end by one tap less. With 3 taps
// that is by none, which the others do as well, but 4 % slower at 7x7.

by_level! {
    /// All kernels of this family at a level; none for a level of another architecture.
    pub fn rows() -> [Row];

    Scalar: rows! {
        Scalar, scalar, 4, "scalar";
        "any" = 1 1 hang 0 0: dw [1 4] group [1 2] splat [1 4];
        "3s1" = 3 1 hang 1 1: dw [2] group [] splat [] nhwc [2];
        "3s2" = 3 2 hang 1 1: dw [2] group [] splat [] nhwc [2];
    },
    // 16 registers; some sizes that should fit them make the compiler spill.
    Avx2: rows! { vectors
        Avx2, avx2, 8, "avx2";
        "7s1" = 7 1 hang 3 3: dw [5 7 8] group [] splat [];
        "7s2even" = 7 2 hang 3 2: dw [4] group [] splat [];
        "7s2" = 7 2 hang 3 3: dw [4 7] group [] splat [];
    },
    // 32 registers. Beyond 8 pixels of 7 taps and 10 of others the compiler stops unrolling, or spills.
    Avx512: rows! { vectors
        Avx512, avx512, 16, "avx512";
        "7s1" = 7 1 hang 3 3: dw [5 7 8] group [] splat [];
        "7s2even" = 7 2 hang 3 2: dw [4 7] group [] splat [];
        "7s2" = 7 2 hang 3 3: dw [4 7] group [] splat [];
    },
    // 32 registers.
    Neon: rows! { vectors
        Neon, neon, 4, "neon";
    },
}

/// A line of pixels, cut into runs of one length; where that does not divide the line, the last run overlaps the one before,
/// whose outputs it computes again, to the same bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Runs {
    pub row: &'static Row,
    pub count: usize,
}

impl Runs {
    /// The best among `rows` for a core and a line of `width` pixels, whose first (last) pixels lack taps with `left`
    /// (`right`). None where no size keeps these pixels in the first and the last run.
    pub fn choose(
        core: Core,
        rows: impl Iterator<Item = &'static Row>,
        width: usize,
        [left, right]: [bool; 2],
    ) -> Option<Self> {
        rows.filter(|row| row.mr <= width)
            .map(|row| Self { row, count: width.div_ceil(row.mr) })
            .filter(|runs| {
                let row = runs.row;
                let lack = |on: bool, end: usize| if on { row.overhang[end].div_ceil(row.stride) } else { 0 };
                let start = |run: usize| (run * row.mr).min(width - row.mr);
                // Of all runs but the first the second one is closest to the start, of all but the last the one before that to the end.
                runs.count == 1 || start(1) >= lack(left, 0) && start(runs.count - 2) + row.mr + lack(right, 1) <= width
            })
            .min_by_key(|runs| runs.count * runs.row.cost(core))
    }
}
