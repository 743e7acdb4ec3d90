//! AArch64 Advanced SIMD.

use core::arch::aarch64::*;

use super::{Isa, Kernel, Level, not_inlined};

/// Token of the NEON level.
#[derive(Clone, Copy, Debug)]
pub struct Neon(#[allow(dead_code)] pulp::aarch64::Neon);

impl Neon {
    /// The token, where the CPU has the level.
    pub fn new() -> Option<Self> {
        pulp::aarch64::Neon::try_new().map(Self)
    }
}

/// Runs `K` with NEON.
///
/// # Safety
/// The CPU has the level, and `args` satisfies the kernel's contract.
#[target_feature(enable = "neon")]
#[inline(never)]
pub unsafe fn entry<K: Kernel<Neon>>(args: &K::Args) {
    // SAFETY: the caller vouches for the CPU and for the kernel's contract.
    unsafe { K::run(Neon::new_unchecked(), args) }
}

/// A method whose body is one safe use of intrinsics that the token allows.
macro_rules! ops {
    ($($name:ident($($arg:ident: $t:ty),*) -> $r:ty { $e:expr })*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $t),*) -> $r {
            // SAFETY: holding the token proves that the CPU has these instructions.
            #[allow(unused_unsafe)]
            unsafe { $e }
        }
    )*};
}

impl Isa for Neon {
    const LEVEL: Level = Level::Neon;
    const LANES: usize = 4;
    const REGISTERS: usize = 32;
    type V = float32x4_t;
    type Index = uint8x16_t;
    type Range = [usize; 2];

    #[inline(always)]
    unsafe fn new_unchecked() -> Self {
        // SAFETY: the caller vouches for the CPU.
        Self(unsafe { pulp::aarch64::Neon::new_unchecked() })
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> float32x4_t {
        // SAFETY: the caller vouches for 4 readable floats.
        unsafe { vld1q_f32(p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: float32x4_t) {
        // SAFETY: the caller vouches for 4 writable floats.
        unsafe { vst1q_f32(p, v) }
    }
    #[inline(always)]
    unsafe fn load_partial(self, p: *const f32, n: usize) -> float32x4_t {
        let mut v = [0.0f32; 4];
        for (i, lane) in v.iter_mut().enumerate().take(n) {
            // SAFETY: i < n, and the caller vouches for n readable floats.
            *lane = unsafe { p.add(i).read() };
        }
        // SAFETY: v holds 4 floats; the token proves NEON.
        unsafe { vld1q_f32(v.as_ptr()) }
    }
    #[inline(always)]
    fn range(self, lo: usize, hi: usize) -> [usize; 2] {
        [lo, hi]
    }
    #[inline(always)]
    unsafe fn load_range(self, p: *const f32, [lo, hi]: [usize; 2]) -> float32x4_t {
        if (lo, hi) == (0, 4) {
            // SAFETY: the caller vouches for all lanes.
            return unsafe { self.load(p) };
        }
        // SAFETY: the caller vouches for lanes `lo..hi`; the token proves NEON.
        unsafe {
            let lane = |i: usize| if (lo..hi).contains(&i) { p.wrapping_add(i).read() } else { 0.0 };
            let v = vsetq_lane_f32::<0>(lane(0), vdupq_n_f32(0.0));
            let v = vsetq_lane_f32::<1>(lane(1), v);
            let v = vsetq_lane_f32::<2>(lane(2), v);
            vsetq_lane_f32::<3>(lane(3), v)
        }
    }
    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, v: float32x4_t, n: usize) {
        let mut lanes = [0.0f32; 4];
        // SAFETY: lanes holds 4 floats; the token proves NEON.
        unsafe { vst1q_f32(lanes.as_mut_ptr(), v) };
        for (i, lane) in lanes.into_iter().enumerate().take(n) {
            // SAFETY: i < n, and the caller vouches for n writable floats.
            unsafe { p.add(i).write(lane) }
        }
    }
    #[inline(always)]
    unsafe fn load_splat(self, p: *const f32) -> float32x4_t {
        // SAFETY: the caller vouches for one readable float.
        unsafe { vld1q_dup_f32(p) }
    }
    #[inline(always)]
    unsafe fn load_index(self, idx: *const u32) -> uint8x16_t {
        // Byte numbers 4 * i + 0..4 of each lane i.
        // SAFETY: the caller vouches for 4 readable integers; the token proves NEON.
        unsafe {
            let bytes = vmulq_n_u32(vld1q_u32(idx), 0x0404_0404);
            vreinterpretq_u8_u32(vaddq_u32(bytes, vdupq_n_u32(0x0302_0100)))
        }
    }
    ops! {
        zero() -> float32x4_t { vdupq_n_f32(0.0) }
        splat(v: f32) -> float32x4_t { vdupq_n_f32(v) }
        fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t { vfmaq_f32(c, a, b) }
        add(a: float32x4_t, b: float32x4_t) -> float32x4_t { vaddq_f32(a, b) }
        sub(a: float32x4_t, b: float32x4_t) -> float32x4_t { vsubq_f32(a, b) }
        mul(a: float32x4_t, b: float32x4_t) -> float32x4_t { vmulq_f32(a, b) }
        div(a: float32x4_t, b: float32x4_t) -> float32x4_t { vdivq_f32(a, b) }
        min(a: float32x4_t, b: float32x4_t) -> float32x4_t { vbslq_f32(vcltq_f32(a, b), a, b) }
        max(a: float32x4_t, b: float32x4_t) -> float32x4_t { vbslq_f32(vcgtq_f32(a, b), a, b) }
        round(a: float32x4_t) -> float32x4_t { vrndnq_f32(a) }
        exp2i(k: float32x4_t) -> float32x4_t {
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(vcvtnq_s32_f32(k), vdupq_n_s32(127))))
        }
        select_lt(a: float32x4_t, b: float32x4_t, t: float32x4_t, f: float32x4_t) -> float32x4_t {
            vbslq_f32(vcltq_f32(a, b), t, f)
        }
        select_nan(a: float32x4_t, t: float32x4_t, f: float32x4_t) -> float32x4_t {
            vbslq_f32(vceqq_f32(a, a), f, t)
        }
        exponent(a: float32x4_t) -> float32x4_t {
            vcvtq_f32_s32(vsubq_s32(vreinterpretq_s32_u32(vshrq_n_u32::<23>(vreinterpretq_u32_f32(a))), vdupq_n_s32(127)))
        }
        and(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b)))
        }
        or(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            vreinterpretq_f32_u32(vorrq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b)))
        }
        xor(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b)))
        }
        zip(a: float32x4_t, b: float32x4_t) -> [float32x4_t; 2] { [vzip1q_f32(a, b), vzip2q_f32(a, b)] }
        unzip(a: float32x4_t, b: float32x4_t) -> [float32x4_t; 2] { [vuzp1q_f32(a, b), vuzp2q_f32(a, b)] }
        permute(v: float32x4_t, idx: uint8x16_t) -> float32x4_t {
            vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(v), idx))
        }
    }
    #[inline(always)]
    fn prefetch(self, _p: *const f32) {} // the prefetch intrinsic of AArch64 is not stable
    #[inline(always)]
    fn prefetch_l2(self, _p: *const f32) {}
    #[inline(always)]
    fn prefetch_write(self, _p: *mut f32) {}
    #[allow(clippy::pointers_in_nomem_asm_block)] // nothing is read through it
    #[inline(always)]
    #[cfg_attr(miri, allow(unused_mut))]
    fn opaque<T>(self, mut p: *const T) -> *const T {
        // SAFETY: no instruction at all.
        #[cfg(not(miri))]
        unsafe {
            core::arch::asm!("/* {0} */", inout(reg) p, options(nomem, nostack, preserves_flags));
        }
        p
    }
    #[inline(always)]
    unsafe fn call<K: Kernel<Self>>(self, args: &K::Args) {
        // SAFETY: the token proves the level; the caller vouches for the kernel's contract.
        unsafe { not_inlined(entry::<K>)(args) }
    }
}
