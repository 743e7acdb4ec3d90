//! Instruction-set levels, their detection, and the operations that kernels are written in.
//!
//! A [`Level`] is what a kernel table is keyed by. [`Cpu::detect`] finds the highest one that this machine has; a
//! level can be lowered, never raised. Holding an [`Isa`] token is the proof that the CPU has the instructions
//! behind it, so its arithmetic is safe; only loads and stores through pointers are `unsafe`.
//!
//! Only the files below `isa/` name vendor intrinsics.

use core::fmt;
use core::str::FromStr;
use std::sync::OnceLock;

pub mod matrix;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
pub use neon::Neon;
pub use scalar::Scalar;
#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512, Avx512Half};

use thiserror::Error;

/// Code for a level, where the level is of this architecture and not left out by a cargo feature.
macro_rules! compiled_in {
    (Scalar => $($code:tt)*) => { $($code)* };
    (Neon => $($code:tt)*) => { #[cfg(all(target_arch = "aarch64", feature = "neon"))] $($code)* };
    (Avx2 => $($code:tt)*) => { #[cfg(all(target_arch = "x86_64", feature = "avx2"))] $($code)* };
    (Avx512 => $($code:tt)*) => { #[cfg(all(target_arch = "x86_64", feature = "avx512"))] $($code)* };
}
pub(crate) use compiled_in;

/// An instruction-set level: the key of every kernel table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Portable code; also what an x86-64 machine without AVX2 gets.
    Scalar,
    /// AArch64 with Advanced SIMD.
    Neon,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// x86-64 with AVX-512 F, BW, CD, DQ and VL.
    Avx512,
}

impl Level {
    /// All levels, also those of other architectures.
    pub const ALL: [Level; 4] = [Level::Scalar, Level::Neon, Level::Avx2, Level::Avx512];

    /// The name that `SWATH_LEVEL`, kernel names and tuning files use.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Scalar => "scalar",
            Level::Neon => "neon",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
        }
    }

    /// Floats in one vector register.
    pub const fn lanes(self) -> usize {
        match self {
            Level::Scalar | Level::Neon => 4,
            Level::Avx2 => 8,
            Level::Avx512 => 16,
        }
    }

    /// The levels that this machine can run, lowest first; the scalar one is always there.
    pub fn available() -> &'static [Level] {
        static AVAILABLE: OnceLock<Vec<Level>> = OnceLock::new();
        AVAILABLE.get_or_init(|| Level::ALL.into_iter().filter(|l| l.is_available()).collect())
    }

    /// Whether this machine can run the level, and its code is compiled in (cargo features `avx2`, `avx512`, `neon`).
    pub fn is_available(self) -> bool {
        compiled_in! { Avx2 => if self == Level::Avx2 { return Avx2::new().is_some(); } }
        compiled_in! { Avx512 => if self == Level::Avx512 { return Avx512::new().is_some(); } }
        compiled_in! { Neon => if self == Level::Neon { return Neon::new().is_some(); } }
        self == Level::Scalar
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A level that does not exist or that this machine does not have.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("instruction-set level {asked:?} is {why}; this machine can run: {}", possible())]
pub struct LevelError {
    /// What was asked for.
    pub asked: String,
    why: &'static str,
}

fn possible() -> String {
    Level::available().iter().map(|l| l.name()).collect::<Vec<_>>().join(", ")
}

impl FromStr for Level {
    type Err = LevelError;

    fn from_str(s: &str) -> Result<Self, LevelError> {
        let level = Level::ALL
            .into_iter()
            .find(|l| l.name().eq_ignore_ascii_case(s.trim()))
            .ok_or(LevelError { asked: s.into(), why: "unknown" })?;
        if level.is_available() {
            Ok(level)
        } else {
            Err(LevelError { asked: s.into(), why: "not available on this machine" })
        }
    }
}

/// Feature bits beyond the level, detected and shown: what [`matrix`] uses, and what is for kernels to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// `vpdpbusd` and friends (x86-64 AVX-512 VNNI).
    pub avx512_vnni: bool,
    /// `vdpbf16ps` (x86-64 AVX-512 bf16).
    pub avx512_bf16: bool,
    /// `vpdpbusd` on 256-bit registers (x86-64 AVX-VNNI).
    pub avx_vnni: bool,
    /// `tdpbf16ps` (x86-64 AMX), granted to this process by the operating system.
    pub amx_bf16: bool,
    /// `sdot`/`udot` (AArch64).
    pub dotprod: bool,
    /// `bfmmla` (AArch64).
    pub bf16: bool,
    /// `smmla` (AArch64).
    pub i8mm: bool,
}

impl Features {
    fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        return Self {
            avx512_vnni: is_x86_feature_detected!("avx512vnni"),
            avx512_bf16: is_x86_feature_detected!("avx512bf16"),
            avx_vnni: is_x86_feature_detected!("avxvnni"),
            amx_bf16: matrix::MatrixUnit::Amx.is_available(),
            ..Self::default()
        };
        #[cfg(target_arch = "aarch64")]
        return Self {
            dotprod: std::arch::is_aarch64_feature_detected!("dotprod"),
            bf16: std::arch::is_aarch64_feature_detected!("bf16"),
            i8mm: std::arch::is_aarch64_feature_detected!("i8mm"),
            ..Self::default()
        };
        #[allow(unreachable_code)]
        Self::default()
    }

    /// Names of the features that are present.
    pub fn names(&self) -> Vec<&'static str> {
        [
            ("avx512_vnni", self.avx512_vnni),
            ("avx512_bf16", self.avx512_bf16),
            ("avx_vnni", self.avx_vnni),
            ("amx_bf16", self.amx_bf16),
            ("dotprod", self.dotprod),
            ("bf16", self.bf16),
            ("i8mm", self.i8mm),
        ]
        .into_iter()
        .filter_map(|(n, on)| on.then_some(n))
        .collect()
    }
}

/// What this CPU can do: its level, possibly lowered, and its feature bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// The level that kernels are taken from.
    pub level: Level,
    /// Feature bits beyond the level.
    pub features: Features,
}

impl Cpu {
    /// The machine's highest level. Detected once.
    ///
    /// ```
    /// use swath_kernels::isa::{Cpu, Level};
    /// let cpu = Cpu::detect();
    /// assert_eq!(Some(&cpu.level), Level::available().last());
    /// assert_eq!(cpu.lowered(Level::Scalar)?.level, Level::Scalar);
    /// assert!("sse9".parse::<Level>().unwrap_err().to_string().contains("this machine can run: scalar"));
    /// # Ok::<(), swath_kernels::isa::LevelError>(())
    /// ```
    pub fn detect() -> Self {
        static CPU: OnceLock<Cpu> = OnceLock::new();
        *CPU.get_or_init(|| Cpu {
            level: *Level::available().last().expect("the scalar level is always available"),
            features: Features::detect(),
        })
    }

    /// Vendor, family/model and brand as one line, such as `AuthenticAMD 25/17 AMD EPYC 9R14`, from CPUID;
    /// `None` on other architectures, where the operating system must be asked.
    ///
    /// Sizes of caches are no part of it: family and model fix those of a core, and hybrid CPUs would answer
    /// differently from core to core.
    pub fn identity() -> Option<String> {
        #[cfg(target_arch = "x86_64")]
        return Some(x86::identity());
        #[allow(unreachable_code)]
        None
    }

    /// Bytes of level-2 cache of a core, from CPUID; 1 MiB where it does not tell. Plans have it from
    /// [`Core`](crate::machine::Core::l2_bytes).
    pub fn l2_bytes() -> usize {
        static BYTES: OnceLock<usize> = OnceLock::new();
        *BYTES.get_or_init(|| {
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            if let Some(bytes) = x86::l2_bytes() {
                return bytes;
            }
            1 << 20
        })
    }

    /// The same CPU held to a lower level.
    ///
    /// # Errors
    /// [`LevelError`] for a level that this machine does not have.
    pub fn lowered(self, level: Level) -> Result<Self, LevelError> {
        if level.is_available() {
            Ok(Self { level, ..self })
        } else {
            Err(LevelError { asked: level.name().into(), why: "not available on this machine" })
        }
    }
}

/// The vector operations of one instruction set: exactly what the kernels need, and nothing else.
///
/// Values of the implementing types are tokens: they can only be made where the CPU has the instructions. All
/// methods are `#[inline(always)]`, so they become instructions of whatever `#[target_feature]` function they end up
/// in; [`Kernel`] and `entry` are that outermost edge.
///
/// Comparisons follow IEEE 754. `min(a, b)` and `max(a, b)` return `b` when either operand is NaN (x86's rule), so
/// that `max(lo, x)` keeps a NaN in `x`.
pub trait Isa: Copy + Send + Sync + fmt::Debug + 'static {
    /// The level whose kernels this builds.
    const LEVEL: Level;
    /// Floats in a vector.
    const LANES: usize;
    /// Vector registers.
    const REGISTERS: usize;
    /// A vector of [`Isa::LANES`] floats.
    type V: Copy;
    /// Lane numbers for [`Isa::permute`].
    type Index: Copy;
    /// Adjacent lanes for [`Isa::load_range`].
    type Range: Copy;

    /// The token, without a check.
    ///
    /// # Safety
    /// The CPU must have every instruction of the level.
    unsafe fn new_unchecked() -> Self;

    /// All lanes zero.
    fn zero(self) -> Self::V;
    /// All lanes `v`.
    fn splat(self, v: f32) -> Self::V;
    /// Lanes from memory, any alignment.
    /// # Safety
    /// `p` is valid for reading `LANES` floats.
    unsafe fn load(self, p: *const f32) -> Self::V;
    /// Lanes to memory, any alignment.
    /// # Safety
    /// `p` is valid for writing `LANES` floats.
    unsafe fn store(self, p: *mut f32, v: Self::V);
    /// The first `n <= LANES` lanes from memory, the others zero. Reads nothing else.
    /// # Safety
    /// `p` is valid for reading `n` floats, and `n <= LANES`.
    unsafe fn load_partial(self, p: *const f32, n: usize) -> Self::V;
    /// The first `n <= LANES` lanes to memory. Writes nothing else.
    /// # Safety
    /// `p` is valid for writing `n` floats, and `n <= LANES`.
    unsafe fn store_partial(self, p: *mut f32, v: Self::V, n: usize);
    /// Lanes `lo..hi`, for [`Isa::load_range`]; `lo <= hi <= LANES`.
    fn range(self, lo: usize, hi: usize) -> Self::Range;
    /// The lanes of a range from memory, lane `i` from `p + i`, the others zero. Reads nothing else.
    /// # Safety
    /// `p + i` is readable for the lanes `i` of the range.
    unsafe fn load_range(self, p: *const f32, range: Self::Range) -> Self::V;
    /// One float to all lanes.
    /// # Safety
    /// `p` is valid for reading one float.
    unsafe fn load_splat(self, p: *const f32) -> Self::V;

    /// `a * b + c`, with one rounding on every level but the scalar one, which rounds twice.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a + b`
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`, correctly rounded.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `if a < b { a } else { b }`: `b` where either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `if a > b { a } else { b }`: `b` where either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// Nearest integer, ties to even.
    fn round(self, a: Self::V) -> Self::V;
    /// `2^k` for integral `k` in -126..=127, built from its bits; anything else gives an unspecified value.
    fn exp2i(self, k: Self::V) -> Self::V;
    /// Lanewise `if a < b { t } else { f }`; false where either is NaN.
    fn select_lt(self, a: Self::V, b: Self::V, t: Self::V, f: Self::V) -> Self::V;
    /// Lanewise `if a is NaN { t } else { f }`.
    fn select_nan(self, a: Self::V, t: Self::V, f: Self::V) -> Self::V;
    /// The power of two that a positive normal number starts at, `floor(log2 a)`; anything else gives an unspecified
    /// value.
    fn exponent(self, a: Self::V) -> Self::V;
    /// Bitwise and.
    fn and(self, a: Self::V, b: Self::V) -> Self::V;
    /// Bitwise or.
    fn or(self, a: Self::V, b: Self::V) -> Self::V;
    /// Bitwise exclusive or.
    fn xor(self, a: Self::V, b: Self::V) -> Self::V;

    /// Lane numbers `idx[..LANES]`, each below `LANES`.
    /// # Safety
    /// `idx` is valid for reading `LANES` integers.
    unsafe fn load_index(self, idx: *const u32) -> Self::Index;
    /// `out[i] = v[idx[i]]`.
    fn permute(self, v: Self::V, idx: Self::Index) -> Self::V;
    /// Lanes of both in turn, `a[0], b[0], a[1], b[1]` and so on: a vector of the lower halves and one of the upper.
    fn zip(self, a: Self::V, b: Self::V) -> [Self::V; 2];
    /// The even lanes of both, `a[0], a[2] .. b[0], b[2] ..`, and the odd ones: what [`Isa::zip`] makes of two vectors, undone.
    fn unzip(self, a: Self::V, b: Self::V) -> [Self::V; 2];

    /// High, middle and low [`parts`](matrix::parts) of two vectors, as pairs: those of a lane of `first` in the lower half of the
    /// lane.
    #[inline(always)]
    fn bf16_pairs(self, first: Self::V, second: Self::V) -> [Self::V; matrix::PARTS] {
        const MOST: usize = 16;
        const { assert!(Self::LANES <= MOST) };
        let (mut x, mut y) = ([0.0f32; MOST], [0.0f32; MOST]);
        // SAFETY: the arrays hold a vector.
        unsafe {
            self.store(x.as_mut_ptr(), first);
            self.store(y.as_mut_ptr(), second);
        }
        let both: [_; MOST] = core::array::from_fn(|i| (matrix::parts(x[i]), matrix::parts(y[i])));
        core::array::from_fn(|part| {
            let pairs = both.map(|(x, y)| matrix::pair(x[part], y[part]));
            // SAFETY: as above.
            unsafe { self.load(pairs.as_ptr()) }
        })
    }

    /// Asks for the cache line at `p`. Never faults.
    fn prefetch(self, p: *const f32);

    /// The same into L2 only: for what is needed thousands of cycles later.
    fn prefetch_l2(self, p: *const f32);

    /// Asks for the cache line at `p`, to write it. Never faults.
    fn prefetch_write(self, p: *mut f32);

    /// Lets the code that follows begin at a cache line, where the architecture's decoded instructions are cached by line: for
    /// the innermost loop, right before its first instruction. A hint.
    #[inline(always)]
    fn align(self) {}

    /// The same pointer, of which the compiler knows nothing: what is made of it or read through it in a loop is not prepared before
    /// the loop, where there are more such things than registers. A hint, and no instruction.
    #[inline(always)]
    fn opaque<T>(self, p: *const T) -> *const T {
        p
    }

    /// Calls another kernel of this level without inlining it: for cold parts that many tiles share.
    /// # Safety
    /// As `K` states.
    unsafe fn call<K: Kernel<Self>>(self, args: &K::Args);
}

/// A kernel body that is generic over the instruction set.
///
/// `run` must be `#[inline(always)]`; the level's `entry` function puts it inside a `#[target_feature]` function.
pub trait Kernel<I: Isa> {
    /// What the body takes.
    type Args;
    /// The body.
    ///
    /// # Safety
    /// As the implementing kernel states.
    unsafe fn run(isa: I, args: &Self::Args);
}

/// Function pointer of a kernel at one level.
pub type Entry<A> = unsafe fn(&A);

/// The function, as a pointer that the compiler does not see through. Although entries are `#[inline(never)]`, LLVM inlined
/// them where [`Isa::call`] has them called, and prepared their loops in the hot path before it.
#[inline(always)]
fn not_inlined<A>(entry: Entry<A>) -> Entry<A> {
    core::hint::black_box(entry)
}

/// The outermost edges, one `#[target_feature]` function per level. `entry::avx512::<K>` is a function pointer that
/// kernel tables hold.
pub mod entry {
    #[cfg(target_arch = "aarch64")]
    pub use super::neon::entry as neon;
    pub use super::scalar::entry as scalar;
    #[cfg(target_arch = "x86_64")]
    pub use super::x86::{entry_avx2 as avx2, entry_avx512 as avx512, entry_avx512_half as avx512_half};
}

#[cfg(test)]
mod tests;
