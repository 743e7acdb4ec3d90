//! Portable code: arrays of four floats, which compilers turn into whatever vectors the baseline has (SSE2 on x86-64).

use core::sync::atomic::{Ordering, compiler_fence};

use super::{Isa, Kernel, Level, not_inlined};

/// Token of the scalar level, which every machine has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scalar;

/// Runs `K` in portable code.
///
/// # Safety
/// `args` satisfies the kernel's contract.
#[inline(never)]
pub unsafe fn entry<K: Kernel<Scalar>>(args: &K::Args) {
    // SAFETY: the caller vouches for the kernel's contract.
    unsafe { K::run(Scalar, args) }
}

/// Four floats.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub struct F32x4([f32; 4]);

#[inline(always)]
fn map2(a: F32x4, b: F32x4, f: impl Fn(f32, f32) -> f32) -> F32x4 {
    F32x4([f(a.0[0], b.0[0]), f(a.0[1], b.0[1]), f(a.0[2], b.0[2]), f(a.0[3], b.0[3])])
}

#[inline(always)]
fn map1(a: F32x4, f: impl Fn(f32) -> f32) -> F32x4 {
    F32x4([f(a.0[0]), f(a.0[1]), f(a.0[2]), f(a.0[3])])
}

#[inline(always)]
fn bits(a: F32x4, b: F32x4, f: impl Fn(u32, u32) -> u32) -> F32x4 {
    map2(a, b, |x, y| f32::from_bits(f(x.to_bits(), y.to_bits())))
}

/// `t` where the condition on `a` and `b` holds, else `f`; by masks, which become vectors.
#[inline(always)]
fn select(a: F32x4, b: F32x4, condition: impl Fn(f32, f32) -> bool, t: F32x4, f: F32x4) -> F32x4 {
    let mask = map2(a, b, |x, y| f32::from_bits(u32::from(condition(x, y)).wrapping_neg()));
    bits(bits(mask, t, |m, t| m & t), bits(mask, f, |m, f| !m & f), |t, f| t | f)
}

/// [`Isa::load_partial`]: one copy, since it is a branch for each lane.
///
/// # Safety
/// `p` is readable for `n <= 4` floats.
#[inline(never)]
unsafe fn load_some(p: *const f32, n: usize) -> F32x4 {
    let mut v = [0.0; 4];
    for (i, lane) in v.iter_mut().enumerate().take(n) {
        // SAFETY: i < n, and the caller vouches for n readable floats.
        *lane = unsafe { p.add(i).read() };
    }
    F32x4(v)
}

/// [`Isa::store_partial`], likewise.
///
/// # Safety
/// `p` is writable for `n <= 4` floats.
#[inline(never)]
unsafe fn store_some(p: *mut f32, v: &F32x4, n: usize) {
    for (i, &lane) in v.0.iter().enumerate().take(n) {
        // SAFETY: i < n, and the caller vouches for n writable floats.
        unsafe { p.add(i).write(lane) }
    }
}

impl Isa for Scalar {
    const LEVEL: Level = Level::Scalar;
    const LANES: usize = 4;
    const REGISTERS: usize = 16;
    type V = F32x4;
    type Index = [u32; 4];
    type Range = [usize; 2];

    #[inline(always)]
    unsafe fn new_unchecked() -> Self {
        Scalar
    }
    #[inline(always)]
    fn zero(self) -> F32x4 {
        F32x4([0.0; 4])
    }
    #[inline(always)]
    fn splat(self, v: f32) -> F32x4 {
        F32x4([v; 4])
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> F32x4 {
        // SAFETY: the caller vouches for 4 readable floats.
        F32x4(unsafe { p.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: F32x4) {
        // SAFETY: the caller vouches for 4 writable floats.
        unsafe { p.cast::<[f32; 4]>().write_unaligned(v.0) }
        // A loop over vectors is not to become one over vectors of vectors: four times the code, and no faster.
        compiler_fence(Ordering::SeqCst);
    }
    #[inline(always)]
    unsafe fn load_partial(self, p: *const f32, n: usize) -> F32x4 {
        // SAFETY: the same contract.
        unsafe { load_some(p, n) }
    }
    #[inline(always)]
    fn range(self, lo: usize, hi: usize) -> [usize; 2] {
        [lo, hi]
    }
    #[inline(always)]
    unsafe fn load_range(self, p: *const f32, [lo, hi]: [usize; 2]) -> F32x4 {
        // SAFETY: the caller vouches for lanes `lo..hi`.
        let lane = |i: usize| if (lo..hi).contains(&i) { unsafe { p.wrapping_add(i).read() } } else { 0.0 };
        F32x4([lane(0), lane(1), lane(2), lane(3)])
    }
    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, v: F32x4, n: usize) {
        // SAFETY: the same contract.
        unsafe { store_some(p, &v, n) }
    }
    #[inline(always)]
    unsafe fn load_splat(self, p: *const f32) -> F32x4 {
        // SAFETY: the caller vouches for one readable float.
        self.splat(unsafe { p.read() })
    }
    #[inline(always)]
    fn fma(self, a: F32x4, b: F32x4, c: F32x4) -> F32x4 {
        // Two roundings: f32::mul_add would call libm's fmaf once per lane.
        map2(map2(a, b, |x, y| x * y), c, |p, z| p + z)
    }
    #[inline(always)]
    fn add(self, a: F32x4, b: F32x4) -> F32x4 {
        map2(a, b, |x, y| x + y)
    }
    #[inline(always)]
    fn sub(self, a: F32x4, b: F32x4) -> F32x4 {
        map2(a, b, |x, y| x - y)
    }
    #[inline(always)]
    fn mul(self, a: F32x4, b: F32x4) -> F32x4 {
        map2(a, b, |x, y| x * y)
    }
    #[inline(always)]
    fn div(self, a: F32x4, b: F32x4) -> F32x4 {
        map2(a, b, |x, y| x / y)
    }
    #[inline(always)]
    fn min(self, a: F32x4, b: F32x4) -> F32x4 {
        map2(a, b, |x, y| if x < y { x } else { y })
    }
    #[inline(always)]
    fn max(self, a: F32x4, b: F32x4) -> F32x4 {
        map2(a, b, |x, y| if x > y { x } else { y })
    }
    #[inline(always)]
    fn round(self, a: F32x4) -> F32x4 {
        // From here on all floats are whole; below it, the sum is. Baseline x86-64 has no instruction: `round_ties_even` would call
        // the C library for each lane.
        const WHOLE: f32 = 8_388_608.0;
        let rounded = map1(a, |x| (x.abs() + WHOLE - WHOLE).copysign(x));
        select(map1(a, f32::abs), F32x4([WHOLE; 4]), |x, y| x < y, rounded, a)
    }
    #[inline(always)]
    fn exp2i(self, k: F32x4) -> F32x4 {
        // As an integer in the lowest bits of this one: a cast would be four, with checks.
        const ONE_AND_A_HALF_WHOLE: f32 = 12_582_912.0;
        map1(k, |k| f32::from_bits((k + ONE_AND_A_HALF_WHOLE).to_bits().wrapping_add(127) << 23))
    }
    #[inline(always)]
    fn select_lt(self, a: F32x4, b: F32x4, t: F32x4, f: F32x4) -> F32x4 {
        select(a, b, |x, y| x < y, t, f)
    }
    #[inline(always)]
    fn select_nan(self, a: F32x4, t: F32x4, f: F32x4) -> F32x4 {
        select(a, a, |x, _| x.is_nan(), t, f)
    }
    #[inline(always)]
    fn exponent(self, a: F32x4) -> F32x4 {
        map1(a, |a| ((a.to_bits() >> 23) as i32 - 127) as f32)
    }
    #[inline(always)]
    fn and(self, a: F32x4, b: F32x4) -> F32x4 {
        bits(a, b, |x, y| x & y)
    }
    #[inline(always)]
    fn or(self, a: F32x4, b: F32x4) -> F32x4 {
        bits(a, b, |x, y| x | y)
    }
    #[inline(always)]
    fn xor(self, a: F32x4, b: F32x4) -> F32x4 {
        bits(a, b, |x, y| x ^ y)
    }
    #[inline(always)]
    unsafe fn load_index(self, idx: *const u32) -> [u32; 4] {
        // SAFETY: the caller vouches for 4 readable integers.
        unsafe { idx.cast::<[u32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    fn zip(self, F32x4(a): F32x4, F32x4(b): F32x4) -> [F32x4; 2] {
        [F32x4([a[0], b[0], a[1], b[1]]), F32x4([a[2], b[2], a[3], b[3]])]
    }
    #[inline(always)]
    fn unzip(self, F32x4(a): F32x4, F32x4(b): F32x4) -> [F32x4; 2] {
        [F32x4([a[0], a[2], b[0], b[2]]), F32x4([a[1], a[3], b[1], b[3]])]
    }
    #[inline(always)]
    fn permute(self, v: F32x4, idx: [u32; 4]) -> F32x4 {
        // Selections, not an index: that would send the vector through memory.
        let [a, b, c, d] = v.0;
        let pick = |i: u32| {
            let (low, high) = (if i & 1 == 0 { a } else { b }, if i & 1 == 0 { c } else { d });
            if i & 2 == 0 { low } else { high }
        };
        F32x4([pick(idx[0]), pick(idx[1]), pick(idx[2]), pick(idx[3])])
    }
    #[inline(always)]
    fn prefetch(self, _p: *const f32) {}
    #[inline(always)]
    fn prefetch_l2(self, _p: *const f32) {}
    #[inline(always)]
    fn prefetch_write(self, _p: *mut f32) {}
    #[inline(always)]
    unsafe fn call<K: Kernel<Self>>(self, args: &K::Args) {
        // SAFETY: the token proves the level; the caller vouches for the kernel's contract.
        unsafe { not_inlined(entry::<K>)(args) }
    }
}
