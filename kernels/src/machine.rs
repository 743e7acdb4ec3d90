//! What planning may ask of a machine, as a value: one [`Core`].
//!
//! Plans choose tiles, blockings and algorithms by a few facts about the core that will run them. All of them are
//! fields of [`Core`], and every plan is given one. So a choice is a function of the shape and of the core, and what is
//! chosen for a core can be asked, and tested, on any machine:
//!
//! ```
//! use swath_kernels::{direct::Direct, layout::Layout, machine::Core, shape::ConvShape};
//! let shape = ConvShape::builder([1, 256, 56, 56], [64, 256, 1, 1]).build()?;
//! let pixels = |core| Direct::new(&shape, core, Layout::Blocked, Layout::Blocked).blocking().cols;
//! assert!(pixels(Core::ZEN3) < pixels(Core::GRANITE_RAPIDS), "its level-2 cache is four times as large");
//! # Ok::<(), swath_kernels::shape::ShapeError>(())
//! ```
//!
//! [`Core::here`] is the machine's own. It is the one place where planning detects or measures anything, and does so
//! once for each level.
//!
//! **A plan for another machine cannot run here**: it panics where it is run. And the tables of kernels hold those
//! levels alone that are compiled in. Without them direct convolution, GEMM and weight gradients over pixels choose all
//! the same, and have no kernel to name; depthwise, planar, Winograd and `bf16x6` say that there are no kernels at the
//! level, since they choose among kernels.

use std::sync::OnceLock;

use crate::isa::matrix::MatrixUnit;
use crate::isa::{Cpu, Level};
use crate::probe;

/// A core as planning sees it. What a kernel computes depends on none of these facts but the level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Core {
    /// The level that kernels are taken from.
    pub level: Level,
    /// Bytes of level-2 cache: what loops are blocked for. Where several cores share one, a core's part of it.
    pub l2_bytes: usize,
    /// Whether tiles that end in half a block gain. At AVX-512 these are of half registers: multiply-adds on them take
    /// half the time where the units are 256 bits wide (Zen 4, Intel's client cores), and as long where two of them are
    /// 512 bits wide. So at AVX-512 it also tells cores of one 512-bit multiply-add a cycle from those of two: the cost
    /// model has coefficients of each. Other levels' half tiles are of whole registers, and always gain.
    pub halves_gain: bool,
    /// Independent multiply-adds that a tile is taken to need, lest it waits for them: as many as start in a cycle,
    /// times the latency, which is 4 cycles. It is the level's: one a cycle at AVX-512, also of cores that start two,
    /// and two at others.
    pub in_flight: usize,
    /// The unit that multiplies matrices beside the vectors, at whatever level. At AVX-512 the cost model has
    /// coefficients of cores that have one.
    pub matrix_unit: Option<MatrixUnit>,
}

impl Core {
    /// AMD Zen 3.
    pub const ZEN3: Core = Core::with_l2(Level::Avx2, 512 << 10);
    /// AMD Zen 4: AVX-512 by units of 256 bits.
    pub const ZEN4: Core = Core::with_l2(Level::Avx512, 1 << 20);
    /// AMD Zen 5, of servers: AVX-512 by units of 512 bits.
    pub const ZEN5: Core = Core { halves_gain: false, ..Core::ZEN4 };
    /// Intel Granite Rapids: AVX-512 by units of 512 bits, and AMX.
    pub const GRANITE_RAPIDS: Core =
        Core { halves_gain: false, matrix_unit: Some(MatrixUnit::Amx), ..Core::with_l2(Level::Avx512, 2 << 20) };
    /// Arm Neoverse V2 with 2 MiB of L2, as in a Graviton 4.
    pub const NEOVERSE_V2: Core = Core::with_l2(Level::Neon, 2 << 20);
    /// Apple M1: 12 MiB of L2 that four cores share.
    pub const APPLE_M1: Core = Core::with_l2(Level::Neon, 3 << 20);

    /// A core without a matrix unit, whose half tiles gain.
    const fn with_l2(level: Level, l2_bytes: usize) -> Self {
        let in_flight = match level {
            Level::Avx512 => 4,
            Level::Scalar | Level::Neon | Level::Avx2 => 8,
        };
        Self { level, l2_bytes, halves_gain: true, in_flight, matrix_unit: None }
    }

    /// This machine's cores, held to a level. The first call for a level detects, and times half registers for some twenty
    /// microseconds at AVX-512, since CPUID does not tell how wide the units are; later ones read what it found. Of a
    /// level that the machine lacks, the same caches, and nothing beside.
    ///
    /// ```
    /// use swath_kernels::{isa::Level, machine::Core};
    /// let core = Core::here(Level::Scalar);
    /// assert_eq!((core.level, core), (Level::Scalar, Core::here(Level::Scalar)));
    /// ```
    pub fn here(level: Level) -> Self {
        static CORES: [OnceLock<Core>; Level::ALL.len()] = [const { OnceLock::new() }; Level::ALL.len()];
        *CORES[level as usize].get_or_init(|| Self {
            halves_gain: level != Level::Avx512 || probe::half_registers_gain(),
            matrix_unit: MatrixUnit::Amx.is_available().then_some(MatrixUnit::Amx),
            ..Self::with_l2(level, Cpu::l2_bytes())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_of_this_machine_has_its_core_and_the_same_caches() {
        for level in Level::ALL {
            let core = Core::here(level);
            assert_eq!((core.level, core.l2_bytes), (level, Cpu::l2_bytes()));
            assert!(level == Level::Avx512 || core.halves_gain, "other levels' half tiles are of whole registers");
            assert_eq!(core.in_flight, if level == Level::Avx512 { 4 } else { 8 });
        }
    }
}
