//! AVX2 with FMA, and AVX-512.

use core::arch::x86_64::*;

use pulp::x86::{V3, V4};

use super::matrix::PARTS;
use super::{Isa, Kernel, Level, not_inlined};

/// Token of the AVX2 level: AVX2, FMA, BMI.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(#[allow(dead_code)] V3);

/// Token of the AVX-512 level: F, BW, CD, DQ, VL.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(#[allow(dead_code)] V4);

/// Token of the AVX-512 level on 256-bit vectors, of which it has 32 too: for tiles whose last vector would be half
/// empty. On Zen 4 a multiply-add on half the bits takes half the time.
#[derive(Clone, Copy, Debug)]
pub struct Avx512Half(#[allow(dead_code)] V4);

impl Avx2 {
    /// The token, where the CPU has the level.
    pub fn new() -> Option<Self> {
        V3::try_new().map(Self)
    }
}

impl Avx512 {
    /// The token, where the CPU has the level.
    pub fn new() -> Option<Self> {
        V4::try_new().map(Self)
    }
}

/// What CPUID says that the CPU is: vendor, family/model, and the brand as the maker (or the hypervisor) wrote it.
pub(super) fn identity() -> String {
    let text = |words: &[u32]| -> String {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).take_while(|&b| b != 0).collect();
        String::from_utf8_lossy(&bytes).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let vendor = __cpuid(0);
    let vendor = text(&[vendor.ebx, vendor.edx, vendor.ecx]);
    let bits = __cpuid(1).eax;
    let field = |shift: u32, width: u32| (bits >> shift) & ((1 << width) - 1);
    // The extended fields count only where the short ones are full (family), or for families 6 and 15 (model).
    let family = if field(8, 4) == 15 { 15 + field(20, 8) } else { field(8, 4) };
    let model = if matches!(field(8, 4), 6 | 15) { (field(16, 4) << 4) + field(4, 4) } else { field(4, 4) };
    let mut brand = Vec::new();
    if __cpuid(0x8000_0000).eax >= 0x8000_0004 {
        for leaf in 0x8000_0002..=0x8000_0004 {
            let r = __cpuid(leaf);
            brand.extend([r.eax, r.ebx, r.ecx, r.edx]);
        }
    }
    format!("{vendor} {family}/{model} {}", text(&brand)).trim_end().to_string()
}

/// What CPUID says of the size of a core's level-2 cache. AMD's leaf, which Intel's CPUs answer too.
#[cfg(not(miri))]
pub(super) fn l2_bytes() -> Option<usize> {
    let leaf = 0x8000_0006;
    let kib = if __cpuid(0x8000_0000).eax >= leaf { __cpuid(leaf).ecx >> 16 } else { 0 };
    (kib > 0).then_some((kib as usize) << 10)
}

/// Runs `K` with AVX2 and FMA.
///
/// # Safety
/// The CPU has the level, and `args` satisfies the kernel's contract.
#[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
#[inline(never)]
pub unsafe fn entry_avx2<K: Kernel<Avx2>>(args: &K::Args) {
    // SAFETY: the caller vouches for the CPU and for the kernel's contract.
    unsafe { K::run(Avx2::new_unchecked(), args) }
}

/// Runs `K` with AVX-512.
///
/// # Safety
/// The CPU has the level, and `args` satisfies the kernel's contract.
#[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
#[inline(never)]
pub unsafe fn entry_avx512<K: Kernel<Avx512>>(args: &K::Args) {
    // SAFETY: the caller vouches for the CPU and for the kernel's contract.
    unsafe { K::run(Avx512::new_unchecked(), args) }
}

/// Runs `K` with AVX-512 on 256-bit vectors.
///
/// # Safety
/// The CPU has the level, and `args` satisfies the kernel's contract.
#[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
#[inline(never)]
pub unsafe fn entry_avx512_half<K: Kernel<Avx512Half>>(args: &K::Args) {
    // SAFETY: the caller vouches for the CPU and for the kernel's contract.
    unsafe { K::run(Avx512Half::new_unchecked(), args) }
}

/// Eight all-ones words and eight zeros: a window into it is a mask of the first `n` lanes.
static AVX2_MASK: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

#[inline(always)]
fn avx2_mask(n: usize) -> __m256i {
    debug_assert!(n <= 8);
    let n = n.min(8);
    // SAFETY: the window starts at 8 - n in 0..=8 and is 8 long, inside the 16 words; the token of the callers proves
    // AVX.
    unsafe { _mm256_loadu_si256(AVX2_MASK.as_ptr().add(8 - n).cast()) }
}

/// Fills up the cache line with no-ops.
#[inline(always)]
fn align() {
    // SAFETY: the directive emits no-ops.
    #[cfg(not(miri))]
    unsafe {
        core::arch::asm!(".p2align 6", options(nomem, nostack, preserves_flags));
    }
}

/// The same pointer, by no instruction.
#[allow(clippy::pointers_in_nomem_asm_block)] // nothing is read through it
#[cfg_attr(miri, allow(unused_mut))]
#[inline(always)]
fn opaque<T>(mut p: *const T) -> *const T {
    // SAFETY: no instruction at all.
    #[cfg(not(miri))]
    unsafe {
        core::arch::asm!("/* {0} */", inout(reg) p, options(nomem, nostack, preserves_flags));
    }
    p
}

/// A method whose body is one safe use of intrinsics that the token allows.
macro_rules! ops {
    ($($name:ident($($arg:ident: $t:ty),*) -> $r:ty { $e:expr })*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $t),*) -> $r {
            // SAFETY: holding the token proves that the CPU has these instructions.
            unsafe { $e }
        }
    )*};
}

/// The operations on 256-bit vectors, for each token that allows them.
macro_rules! ymm {
    ($($token:ident $proof:ident $level:ident $registers:literal $entry:ident;)*) => {$(
        impl Isa for $token {
            const LEVEL: Level = Level::$level;
            const LANES: usize = 8;
            const REGISTERS: usize = $registers;
            type V = __m256;
            type Index = __m256i;
            type Range = __m256i;

            #[inline(always)]
            unsafe fn new_unchecked() -> Self {
                // SAFETY: the caller vouches for the CPU.
                Self(unsafe { $proof::new_unchecked() })
            }
            #[inline(always)]
            unsafe fn load(self, p: *const f32) -> __m256 {
                // SAFETY: the caller vouches for 8 readable floats.
                unsafe { _mm256_loadu_ps(p) }
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut f32, v: __m256) {
                // SAFETY: the caller vouches for 8 writable floats.
                unsafe { _mm256_storeu_ps(p, v) }
            }
            #[inline(always)]
            unsafe fn load_partial(self, p: *const f32, n: usize) -> __m256 {
                // SAFETY: masked-off lanes are neither read nor faulted on; the caller vouches for the first n.
                unsafe { _mm256_maskload_ps(p, avx2_mask(n)) }
            }
            #[inline(always)]
            fn range(self, lo: usize, hi: usize) -> __m256i {
                // SAFETY: the token proves AVX2.
                unsafe { _mm256_andnot_si256(avx2_mask(lo), avx2_mask(hi)) }
            }
            #[inline(always)]
            unsafe fn load_range(self, p: *const f32, range: __m256i) -> __m256 {
                // SAFETY: masked-off lanes are neither read nor faulted on; the caller vouches for the others.
                unsafe { _mm256_maskload_ps(p, range) }
            }
            #[inline(always)]
            unsafe fn store_partial(self, p: *mut f32, v: __m256, n: usize) {
                // SAFETY: masked-off lanes are not written; the caller vouches for the first n.
                unsafe { _mm256_maskstore_ps(p, avx2_mask(n), v) }
            }
            #[inline(always)]
            unsafe fn load_splat(self, p: *const f32) -> __m256 {
                // SAFETY: the caller vouches for one readable float.
                unsafe { _mm256_set1_ps(p.read()) }
            }
            #[inline(always)]
            unsafe fn load_index(self, idx: *const u32) -> __m256i {
                // SAFETY: the caller vouches for 8 readable integers.
                unsafe { _mm256_loadu_si256(idx.cast()) }
            }
            ops! {
                zero() -> __m256 { _mm256_setzero_ps() }
                splat(v: f32) -> __m256 { _mm256_set1_ps(v) }
                fma(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fmadd_ps(a, b, c) }
                add(a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
                sub(a: __m256, b: __m256) -> __m256 { _mm256_sub_ps(a, b) }
                mul(a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
                div(a: __m256, b: __m256) -> __m256 { _mm256_div_ps(a, b) }
                min(a: __m256, b: __m256) -> __m256 { _mm256_min_ps(a, b) }
                max(a: __m256, b: __m256) -> __m256 { _mm256_max_ps(a, b) }
                round(a: __m256) -> __m256 { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
                exp2i(k: __m256) -> __m256 {
                    _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(k), _mm256_set1_epi32(127))))
                }
                select_lt(a: __m256, b: __m256, t: __m256, f: __m256) -> __m256 {
                    _mm256_blendv_ps(f, t, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b))
                }
                select_nan(a: __m256, t: __m256, f: __m256) -> __m256 {
                    _mm256_blendv_ps(f, t, _mm256_cmp_ps::<_CMP_UNORD_Q>(a, a))
                }
                exponent(a: __m256) -> __m256 {
                    _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_srli_epi32::<23>(_mm256_castps_si256(a)), _mm256_set1_epi32(127)))
                }
                and(a: __m256, b: __m256) -> __m256 { _mm256_and_ps(a, b) }
                or(a: __m256, b: __m256) -> __m256 { _mm256_or_ps(a, b) }
                xor(a: __m256, b: __m256) -> __m256 { _mm256_xor_ps(a, b) }
                zip(a: __m256, b: __m256) -> [__m256; 2] {{
                    // In each half of 128 bits; then the lower halves of both, and the upper ones.
                    let (low, high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
                    [_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high)]
                }}
                unzip(a: __m256, b: __m256) -> [__m256; 2] {{
                    // Halves of both in turn; then quarters in order.
                    let (even, odd) = (_mm256_shuffle_ps::<0x88>(a, b), _mm256_shuffle_ps::<0xdd>(a, b));
                    [even, odd].map(|v| _mm256_castpd_ps(_mm256_permute4x64_pd::<0xd8>(_mm256_castps_pd(v))))
                }}
                permute(v: __m256, idx: __m256i) -> __m256 { _mm256_permutevar8x32_ps(v, idx) }
                prefetch(p: *const f32) -> () { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
                prefetch_l2(p: *const f32) -> () { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
                prefetch_write(p: *mut f32) -> () { _mm_prefetch::<_MM_HINT_ET0>(p.cast_const().cast()) }
            }
            #[inline(always)]
            fn align(self) {
                align();
            }
            #[inline(always)]
            fn opaque<T>(self, p: *const T) -> *const T {
                opaque(p)
            }
            #[inline(always)]
            unsafe fn call<K: Kernel<Self>>(self, args: &K::Args) {
                // SAFETY: the token proves the level; the caller vouches for the kernel's contract.
                unsafe { not_inlined($entry::<K>)(args) }
            }
        }
    )*};
}

ymm! {
    Avx2 V3 Avx2 16 entry_avx2;
    Avx512Half V4 Avx512 32 entry_avx512_half;
}

#[inline(always)]
fn avx512_mask(n: usize) -> __mmask16 {
    debug_assert!(n <= 16);
    ((1u32 << n.min(16)) - 1) as __mmask16
}

/// Floats, rounded so that their upper halves are the nearest bf16.
///
/// # Safety
/// The CPU has AVX-512 F.
#[inline(always)]
unsafe fn round_to_upper(x: __m512) -> __m512i {
    // SAFETY: the same contract.
    unsafe { _mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x8000)) }
}

/// `x` minus what the upper halves of `rounded` are in bf16.
///
/// # Safety
/// The CPU has AVX-512 F.
#[inline(always)]
unsafe fn minus_upper(x: __m512, rounded: __m512i) -> __m512 {
    // SAFETY: the same contract.
    unsafe {
        let upper = _mm512_and_si512(rounded, _mm512_set1_epi32(0xffff_0000_u32 as i32));
        _mm512_sub_ps(x, _mm512_castsi512_ps(upper))
    }
}

/// The upper halves of two vectors: those of `x` in the lower halves.
///
/// # Safety
/// The CPU has AVX-512 F and BW.
#[inline(always)]
unsafe fn upper_halves(x: __m512i, y: __m512i) -> __m512 {
    // SAFETY: the same contract.
    unsafe { _mm512_castsi512_ps(_mm512_mask_blend_epi16(0xaaaa_aaaa, _mm512_srli_epi32::<16>(x), y)) }
}

impl Isa for Avx512 {
    const LEVEL: Level = Level::Avx512;
    const LANES: usize = 16;
    const REGISTERS: usize = 32;
    type V = __m512;
    type Index = __m512i;
    type Range = __mmask16;

    #[inline(always)]
    unsafe fn new_unchecked() -> Self {
        // SAFETY: the caller vouches for the CPU.
        Self(unsafe { V4::new_unchecked() })
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m512 {
        // SAFETY: the caller vouches for 16 readable floats.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m512) {
        // SAFETY: the caller vouches for 16 writable floats.
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn load_partial(self, p: *const f32, n: usize) -> __m512 {
        // SAFETY: masked-off lanes are neither read nor faulted on; the caller vouches for the first n.
        unsafe { _mm512_maskz_loadu_ps(avx512_mask(n), p) }
    }
    #[inline(always)]
    fn range(self, lo: usize, hi: usize) -> __mmask16 {
        avx512_mask(hi) & !avx512_mask(lo)
    }
    #[inline(always)]
    unsafe fn load_range(self, p: *const f32, range: __mmask16) -> __m512 {
        // SAFETY: masked-off lanes are neither read nor faulted on; the caller vouches for the others.
        unsafe { _mm512_maskz_loadu_ps(range, p) }
    }
    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, v: __m512, n: usize) {
        // SAFETY: masked-off lanes are not written; the caller vouches for the first n.
        unsafe { _mm512_mask_storeu_ps(p, avx512_mask(n), v) }
    }
    #[inline(always)]
    unsafe fn load_splat(self, p: *const f32) -> __m512 {
        // SAFETY: the caller vouches for one readable float.
        unsafe { _mm512_set1_ps(p.read()) }
    }
    #[inline(always)]
    unsafe fn load_index(self, idx: *const u32) -> __m512i {
        // SAFETY: the caller vouches for 16 readable integers.
        unsafe { _mm512_loadu_si512(idx.cast()) }
    }
    ops! {
        zero() -> __m512 { _mm512_setzero_ps() }
        splat(v: f32) -> __m512 { _mm512_set1_ps(v) }
        fma(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        sub(a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        div(a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) }
        min(a: __m512, b: __m512) -> __m512 { _mm512_min_ps(a, b) }
        max(a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) }
        round(a: __m512) -> __m512 {
            _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a)
        }
        exp2i(k: __m512) -> __m512 {
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_add_epi32(_mm512_cvtps_epi32(k), _mm512_set1_epi32(127))))
        }
        select_lt(a: __m512, b: __m512, t: __m512, f: __m512) -> __m512 {
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), f, t)
        }
        select_nan(a: __m512, t: __m512, f: __m512) -> __m512 {
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a), f, t)
        }
        exponent(a: __m512) -> __m512 {
            _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_srli_epi32::<23>(_mm512_castps_si512(a)), _mm512_set1_epi32(127)))
        }
        and(a: __m512, b: __m512) -> __m512 { _mm512_and_ps(a, b) }
        or(a: __m512, b: __m512) -> __m512 { _mm512_or_ps(a, b) }
        xor(a: __m512, b: __m512) -> __m512 { _mm512_xor_ps(a, b) }
        zip(a: __m512, b: __m512) -> [__m512; 2] {{
            // Lanes of `b` are 16 to 31.
            let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            let high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
            [_mm512_permutex2var_ps(a, low, b), _mm512_permutex2var_ps(a, high, b)]
        }}
        unzip(a: __m512, b: __m512) -> [__m512; 2] {{
            let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            let odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
            [_mm512_permutex2var_ps(a, even, b), _mm512_permutex2var_ps(a, odd, b)]
        }}
        permute(v: __m512, idx: __m512i) -> __m512 { _mm512_permutexvar_ps(idx, v) }
        prefetch(p: *const f32) -> () { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
        prefetch_l2(p: *const f32) -> () { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
        prefetch_write(p: *mut f32) -> () { _mm_prefetch::<_MM_HINT_ET0>(p.cast_const().cast()) }
    }
    #[inline(always)]
    fn bf16_pairs(self, first: __m512, second: __m512) -> [__m512; PARTS] {
        // SAFETY: holding the token proves that the CPU has these instructions.
        unsafe {
            let (x, y) = (round_to_upper(first), round_to_upper(second));
            let (first, second) = (minus_upper(first, x), minus_upper(second, y));
            let high = upper_halves(x, y);
            let (x, y) = (round_to_upper(first), round_to_upper(second));
            let (first, second) = (minus_upper(first, x), minus_upper(second, y));
            let low = upper_halves(_mm512_castps_si512(first), _mm512_castps_si512(second));
            [high, upper_halves(x, y), low]
        }
    }
    #[inline(always)]
    fn align(self) {
        align();
    }
    #[inline(always)]
    fn opaque<T>(self, p: *const T) -> *const T {
        opaque(p)
    }
    #[inline(always)]
    unsafe fn call<K: Kernel<Self>>(self, args: &K::Args) {
        // SAFETY: the token proves the level; the caller vouches for the kernel's contract.
        unsafe { not_inlined(entry_avx512::<K>)(args) }
    }
}
