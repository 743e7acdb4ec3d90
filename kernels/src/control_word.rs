//! The floating-point control word: results do not depend on what the caller's thread has set.
//!
//! A thread that flushes subnormal numbers to zero, or rounds another way, would compute other bits than the pool's threads beside it,
//! so that results would depend on the number of threads. Every function of this crate that computes therefore runs under the default
//! control word (round to nearest, keep subnormals, trap nothing), and restores the caller's. To read it takes about ten cycles
//! a part of the work, to change it some fifty.

/// Runs `f` under the default control word of the calling thread, and restores the one that it finds, also if `f` panics.
///
/// ```
/// use swath_kernels::control_word::with_default;
/// assert!(with_default(|| std::hint::black_box(1e-40f32) * 0.5) > 0.0);
/// ```
#[inline]
pub fn with_default<R>(f: impl FnOnce() -> R) -> R {
    let _restore = Restore::new();
    f()
}

/// Sets the control word back when it is dropped, if it was changed.
struct Restore(Option<Word>);

impl Restore {
    #[inline]
    fn new() -> Self {
        let found = read();
        let is_default = found & CONTROL == DEFAULT;
        if !is_default {
            write(DEFAULT);
        }
        Self((!is_default).then_some(found))
    }
}

impl Drop for Restore {
    #[inline]
    fn drop(&mut self) {
        if let Some(found) = self.0 {
            write(found);
        }
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
use x86::{CONTROL, DEFAULT, Word, read, write};

/// MXCSR. Flags of exceptions that have occurred, the low six bits, control nothing.
#[cfg(all(target_arch = "x86_64", not(miri)))]
mod x86 {
    use core::arch::asm;

    pub type Word = u32;
    pub const CONTROL: Word = 0xffc0;
    pub const DEFAULT: Word = 0x1f80;

    #[inline]
    pub fn read() -> Word {
        let mut word = 0;
        // SAFETY: every x86-64 has SSE; four bytes are stored to `word`.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut word, options(nostack, preserves_flags)) };
        word
    }

    #[inline]
    pub fn write(word: Word) {
        // SAFETY: the word is the default one or was read from the register, so that no reserved bit is set.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const word, options(nostack, preserves_flags)) };
    }
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
use aarch64::{CONTROL, DEFAULT, Word, read, write};

/// FPCR.
#[cfg(all(target_arch = "aarch64", not(miri)))]
mod aarch64 {
    use core::arch::asm;

    pub type Word = u64;
    pub const CONTROL: Word = Word::MAX;
    pub const DEFAULT: Word = 0;

    #[inline]
    pub fn read() -> Word {
        let word;
        // SAFETY: the register is readable everywhere.
        unsafe { asm!("mrs {}, fpcr", out(reg) word, options(nomem, nostack, preserves_flags)) };
        word
    }

    #[inline]
    pub fn write(word: Word) {
        // SAFETY: the word is the default one or was read from the register. Memory may change for all that the compiler knows, so that
        // it moves no load from one side to the other.
        unsafe { asm!("msr fpcr, {}", in(reg) word, options(nostack, preserves_flags)) };
    }
}

#[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
use other::{CONTROL, DEFAULT, Word, read, write};

/// Not known.
#[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod other {
    pub type Word = u32;
    pub const CONTROL: Word = 0;
    pub const DEFAULT: Word = 0;

    pub fn read() -> Word {
        DEFAULT
    }

    pub fn write(_: Word) {}
}
