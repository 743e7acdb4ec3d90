//! AMX: tile registers of 16 rows of 64 bytes, and the product of two of them in bf16.
//!
//! Rust has no stable intrinsics for these instructions, so they are written in assembly. What the operating system must grant
//! first is asked for once, see [`available`].

use core::arch::asm;
use core::marker::PhantomData;
use core::mem::offset_of;

use super::{MAX_TILES, ROWS, TileProduct};

/// Whether CPU and operating system have bf16 products of tiles for this process.
#[cfg(all(target_os = "linux", not(miri)))]
pub fn available() -> bool {
    use core::arch::x86_64::{__cpuid, __cpuid_count};
    use std::sync::OnceLock;
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        const TILES_AND_BF16: u32 = 1 << 24 | 1 << 22;
        __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & TILES_AND_BF16 == TILES_AND_BF16 && permitted()
    })
}

/// The same: only Linux is known to grant it.
#[cfg(not(all(target_os = "linux", not(miri))))]
pub fn available() -> bool {
    false
}

/// Asks Linux for the tile registers, for all threads of the process: they enlarge what is saved of a thread by 8 KiB.
#[cfg(all(target_os = "linux", not(miri)))]
fn permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XFEATURE_XTILEDATA: i64 = 18;
    let granted: i64;
    // SAFETY: this system call reads and writes no memory; the kernel keeps all registers but those named.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => granted,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    granted == 0
}

/// Tile registers in use by this thread, shaped for [`Registers::multiply`]: sums and pixels have so many rows. Released when dropped.
#[derive(Debug)]
pub struct Registers(PhantomData<*const ()>);

/// The operand of `ldtilecfg`.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

impl Registers {
    /// Shapes this thread's tile registers.
    ///
    /// # Safety
    /// They are [`available`], no other `Registers` lives in this thread, and there are 1 to [`ROWS`] rows.
    pub unsafe fn new(rows: usize) -> Self {
        let mut config = Config { palette: 1, start_row: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
        config.bytes[..8].fill(64);
        config.rows[..6].fill(rows as u8);
        config.rows[6..8].fill(ROWS as u8);
        // SAFETY: the configuration is valid; no register of a `Registers` holds anything.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, readonly, preserves_flags)) };
        Self(PhantomData)
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        // SAFETY: nothing is kept in tile registers from one `multiply` to the next.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }
}

impl Registers {
    /// Products of so many tiles of pixels with so many of output channels, one or [`MAX_TILES`] each.
    ///
    /// # Safety
    /// As for [`Tiles::multiply`](super::Tiles::multiply), for the rows that the registers are shaped for.
    pub unsafe fn multiply(&self, args: &TileProduct, tiles: [usize; 2]) {
        // SAFETY: the same contract; the registers are shaped.
        unsafe {
            match tiles.map(|n| n == MAX_TILES) {
                [false, false] => product_1x1(args),
                [false, true] => product_1x2(args),
                [true, false] => product_2x1(args),
                [true, true] => product_2x2(args),
            }
        }
    }
}

/// Instructions of one step of a product, for one or two tiles of pixels and of output channels.
macro_rules! step {
    (pixels 1) => { "tileloadd tmm4, [{t} + {pixel}] // {second}\n" };
    (pixels 2) => { "tileloadd tmm4, [{t} + {pixel}]\n add {t}, [{args} + {second}]\n tileloadd tmm5, [{t} + {pixel}]\n" };
    (weights 1, $part:literal) => { concat!("tileloadd tmm6, [{w} + {line} + 1024 * ", $part, "]\n") };
    (weights 2, $part:literal) => {
        concat!(
            "tileloadd tmm6, [{w} + {line} + 2048 * ", $part, "]\n",
            "tileloadd tmm7, [{w} + {line} + 2048 * ", $part, " + 1024]\n",
        )
    };
    (all 1 1, $each:ident) => { step!($each 0 4 6) };
    (all 1 2, $each:ident) => { concat!(step!($each 0 4 6), step!($each 1 4 7)) };
    (all 2 1, $each:ident) => { concat!(step!($each 0 4 6), step!($each 1 5 6)) };
    (all 2 2, $each:ident) => {
        concat!(step!($each 0 4 6), step!($each 1 4 7), step!($each 2 5 6), step!($each 3 5 7))
    };
    (zero $sum:literal $a:literal $b:literal) => { concat!("tilezero tmm", $sum, "\n") };
    (add $sum:literal $a:literal $b:literal) => { concat!("tdpbf16ps tmm", $sum, ", tmm", $a, ", tmm", $b, "\n") };
    (store $sum:literal $a:literal $b:literal) => {
        concat!("tilestored [{t} + {line} + 1024 * ", $sum, "], tmm", $sum, "\n")
    };
}

/// The products of `$m` tiles of pixels with `$n` of output channels, summed over channels and taps.
macro_rules! products {
    ($($name:ident $m:tt $n:tt;)*) => {$(
        #[inline(never)]
        unsafe fn $name(args: &TileProduct) {
            // SAFETY: the caller vouches for what lies behind the pointers; only tile registers and the operands are changed.
            unsafe {
                asm!(
                    step!(all $m $n, zero),
                    "mov {y}, [{args} + {counts} + 16]",
                    "2: mov {x}, [{args} + {counts} + 8]",
                    "3: mov {k}, [{args} + {counts}]",
                    "4: mov {t}, {p}",
                    step!(pixels $m), step!(weights $n, 0), step!(all $m $n, add),
                    step!(weights $n, 1), step!(all $m $n, add),
                    step!(weights $n, 2), step!(all $m $n, add),
                    "lea {t}, [{p} + {part}]",
                    step!(pixels $m), step!(weights $n, 1), step!(all $m $n, add),
                    step!(weights $n, 0), step!(all $m $n, add),
                    "lea {t}, [{p} + 2 * {part}]",
                    step!(pixels $m), step!(all $m $n, add),
                    "add {w}, 3072 * {n}",
                    "add {p}, {channels}",
                    "dec {k}",
                    "jnz 4b",
                    "add {p}, [{args} + {next_column}]",
                    "dec {x}",
                    "jnz 3b",
                    "add {p}, [{args} + {next_row}]",
                    "dec {y}",
                    "jnz 2b",
                    "mov {t}, [{args} + {sums}]",
                    step!(all $m $n, store),
                    args = in(reg) args,
                    p = inout(reg) args.pixels => _,
                    w = inout(reg) args.weights => _,
                    t = out(reg) _,
                    k = out(reg) _,
                    x = out(reg) _,
                    y = out(reg) _,
                    pixel = in(reg) args.pixel,
                    part = in(reg) args.part,
                    channels = in(reg) args.channels,
                    line = in(reg) 64usize,
                    n = const $n,
                    second = const offset_of!(TileProduct, second),
                    counts = const offset_of!(TileProduct, counts),
                    next_column = const offset_of!(TileProduct, next_column),
                    next_row = const offset_of!(TileProduct, next_row),
                    sums = const offset_of!(TileProduct, sums),
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    )*};
}

products! {
    product_1x1 1 1;
    product_1x2 1 2;
    product_2x1 2 1;
    product_2x2 2 2;
}
