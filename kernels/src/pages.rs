//! Large pages for memory that is about to be written for the first time.

use core::mem::MaybeUninit;

/// Bytes from which on large pages are asked for.
pub const LARGE: usize = 4 << 20;

/// Asks Linux for pages of 2 MiB instead of 4 KiB for as much of this memory as they cover whole, if it is [`LARGE`]. The system hands out
/// and clears memory page by page as it is first written, which takes longer than a copy does where a hypervisor has to find each page
/// (reading a file of 83 MB and copying its weights: three quarters of a network's load).
///
/// It is a wish: a system that does not have them goes on with small ones.
///
/// ```
/// let mut copy: Vec<f32> = Vec::with_capacity(1 << 21);
/// swath_kernels::pages::prefer_large(copy.spare_capacity_mut());
/// copy.extend((0..1 << 21).map(|i| i as f32));
/// ```
pub fn prefer_large<T>(memory: &mut [MaybeUninit<T>]) {
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 2 << 20;
        let bytes = size_of_val(memory);
        let first = memory.as_mut_ptr().cast::<u8>();
        let before = first.align_offset(PAGE);
        if bytes < LARGE || before >= bytes {
            return;
        }
        let whole = (bytes - before) / PAGE * PAGE;
        if whole > 0 {
            // SAFETY: these pages lie in memory that is borrowed here, and the advice changes nothing of what it holds.
            unsafe { libc::madvise(first.add(before).cast(), whole, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = memory;
}
