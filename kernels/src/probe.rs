//! Kernels that measure the machine instead of computing anything: multiply-adds on registers, and streaming reads.
//!
//! Each does an amount of work that it returns; the caller holds the clock.
//!
//! ```text
//! fma_flops    for each iteration, for each of the accumulators:  acc = acc * a + b       no memory operand
//! read_bytes   for each pass, for each run of vectors:            acc += vector           one load each
//! ```
//!
//! The accumulators are independent, so what is measured is throughput: FMA units times their latency is 8 to 16 on
//! the machines known, hence 12 accumulators where there are 16 registers and 24 where there are 32.

use core::hint::black_box;

use crate::isa::{Cpu, Entry, Isa, Kernel, Level, LevelError};
use crate::table::{by_level, edges};

/// Accumulators at levels with 16 registers; with two operands (and a product, where nothing fuses) they all fit.
const ACC_16: usize = 12;
/// Accumulators at levels with 32 registers.
#[allow(dead_code)] // such a level may be left out
const ACC_32: usize = 24;
/// Vectors that [`read_bytes`] loads per round of its loop, each with an accumulator of its own.
const READS: usize = 8;

/// `iterations` rounds of one multiply-add on each of `ACC` accumulators.
struct Fma<const ACC: usize>;

impl<I: Isa, const ACC: usize> Kernel<I> for Fma<ACC> {
    type Args = u64;

    #[inline(always)]
    unsafe fn run(s: I, &iterations: &u64) {
        // Converges to b / (1 - a): no overflow, no denormal number, nothing that the compiler can know.
        let start = black_box([0.5f32; 16]);
        // SAFETY: there are 16 floats, at least LANES.
        let (a, b, first) = unsafe { (s.load(start.as_ptr()), s.load(start.as_ptr()), s.load(start.as_ptr())) };
        let mut acc = [first; ACC];
        for _ in 0..iterations {
            for v in &mut acc {
                *v = s.fma(*v, a, b);
            }
        }
        keep(s, acc);
    }
}

/// What [`Read`] takes.
struct ReadArgs {
    data: *const f32,
    len: usize,
    passes: u64,
}

/// Sums all whole runs of `READS` vectors, `passes` times.
struct Read;

impl<I: Isa> Kernel<I> for Read {
    type Args = ReadArgs;

    /// # Safety
    /// `data` is readable for `len` floats.
    #[inline(always)]
    unsafe fn run(s: I, args: &ReadArgs) {
        // SAFETY: the contract.
        let data = unsafe { core::slice::from_raw_parts(args.data, args.len) };
        let mut acc = [s.zero(); READS];
        for _ in 0..args.passes {
            for run in data.chunks_exact(READS * I::LANES) {
                for (i, v) in acc.iter_mut().enumerate() {
                    // SAFETY: the run holds READS * LANES floats, and i < READS.
                    *v = s.add(*v, unsafe { s.load(run.as_ptr().add(i * I::LANES)) });
                }
            }
        }
        keep(s, acc);
    }
}

edges!(edge);

/// The probes of a level.
struct Row {
    accumulators: usize,
    fma: Entry<u64>,
    read: Entry<ReadArgs>,
}

macro_rules! row {
    ($entry:ident $accumulators:expr) => {
        &[Row {
            accumulators: $accumulators,
            fma: edge::$entry::run::<Fma<{ $accumulators }>>,
            read: edge::$entry::run::<Read>,
        }]
    };
}

by_level! {
    unnamed fn rows() -> [Row];

    Scalar: row!(scalar ACC_16),
    Avx2: row!(avx2 ACC_16),
    Avx512: row!(avx512 ACC_32),
    Neon: row!(neon ACC_32),
}

/// The probes of a level that this machine has.
fn available(level: Level) -> Result<&'static Row, LevelError> {
    let level = Cpu::detect().lowered(level)?.level;
    Ok(rows(level).first().expect("an available level has probes"))
}

/// Makes the accumulators count as used. Each is stored: at the scalar level, whole vectors in memory at the end are
/// what the compiler's vectoriser starts from.
#[inline(always)]
fn keep<I: Isa, const N: usize>(s: I, acc: [I::V; N]) {
    const { assert!(I::LANES <= 16) };
    let mut lanes = [[0.0f32; 16]; N];
    for (v, lanes) in acc.into_iter().zip(&mut lanes) {
        // SAFETY: there are 16 floats, at least LANES.
        unsafe { s.store(lanes.as_mut_ptr(), v) };
    }
    black_box(lanes);
}

/// Multiply-adds on registers only; returns the number of floating-point operations done, two for each.
///
/// # Errors
/// [`LevelError`] for a level that this machine lacks.
///
/// ```
/// use swath_kernels::{isa::Level, probe};
/// let start = std::time::Instant::now();
/// let flops = probe::fma_flops(Level::Scalar, 1000)?;
/// println!("{:.1} GFLOP/s", flops as f64 / start.elapsed().as_nanos() as f64);
/// # Ok::<(), swath_kernels::isa::LevelError>(())
/// ```
pub fn fma_flops(level: Level, iterations: u64) -> Result<u64, LevelError> {
    let row = available(level)?;
    // SAFETY: the machine has the level; the kernel asks for nothing else.
    unsafe { (row.fma)(&iterations) };
    Ok(iterations * (2 * row.accumulators * level.lanes()) as u64)
}

/// Reads `data` from one end to the other, `passes` times; returns the number of bytes read, which leaves out a tail
/// of less than 8 vectors.
///
/// # Errors
/// [`LevelError`] for a level that this machine lacks.
///
/// ```
/// use swath_kernels::{isa::Level, probe};
/// assert_eq!(probe::read_bytes(Level::Scalar, &[1.0; 1024], 3)?, 3 * 4096);
/// # Ok::<(), swath_kernels::isa::LevelError>(())
/// ```
pub fn read_bytes(level: Level, data: &[f32], passes: u64) -> Result<u64, LevelError> {
    let row = available(level)?;
    let args = ReadArgs { data: data.as_ptr(), len: data.len(), passes };
    // SAFETY: the machine has the level; the slice is as long as it says.
    unsafe { (row.read)(&args) };
    let run = READS * level.lanes();
    Ok(passes * (data.len() / run * run * size_of::<f32>()) as u64)
}

/// Whether multiply-adds on half an AVX-512 register take half the time of those on a whole one. It is measured, in
/// some twenty microseconds, each time: [`Core::here`](crate::machine::Core::here) asks once. False without AVX-512.
pub(crate) fn half_registers_gain() -> bool {
    #[cfg(all(target_arch = "x86_64", feature = "avx512", not(miri)))]
    if Level::Avx512.is_available() {
        use std::time::{Duration, Instant};

        let time = |run: Entry<u64>| {
            let start = Instant::now();
            // SAFETY: the machine has the level; the kernel asks for nothing else.
            unsafe { run(&256) };
            start.elapsed()
        };
        // In turns, so that a clock that changes meets both; the fastest, which nothing interrupted. The threshold lies between 1/2 and 1:
        // algorithms are chosen by it, so that a process must find what the others find.
        let mut fastest = [Duration::MAX; 2];
        for _ in 0..8 {
            let runs: [Entry<u64>; 2] = [edge::avx512::run::<Fma<ACC_32>>, edge::avx512_half::run::<Fma<ACC_32>>];
            fastest = core::array::from_fn(|i| fastest[i].min(time(runs[i])));
        }
        let [whole, half] = fastest;
        return half * 4 < whole * 3;
    }
    false
}
