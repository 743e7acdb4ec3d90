//! For tests: floats that end or start at a protected page, so that a kernel which reads or writes beyond a slice ends the test.
//!
//! ```text
//! Side::End      | protected | canaries ... floats | protected |
//! Side::Start    | protected | floats ... canaries | protected |
//! ```
#![allow(dead_code)] // not every test binary uses all of it

use core::ops::{Deref, DerefMut};

/// Where the protected page lies that floats touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Before the first float.
    Start,
    /// Behind the last one.
    End,
}

impl Side {
    /// Both sides: what holds at one may be missed at the other.
    pub const BOTH: [Side; 2] = [Side::Start, Side::End];
}

/// What stands beside floats in their pages; no kernel computes it.
const CANARY: f32 = 12345.75;

/// Floats that touch a protected page. When they are dropped, what lies beside them must be as it was.
pub struct Pages {
    map: Map,
    /// The floats, in the accessible part of the map.
    at: usize,
    len: usize,
}

impl Pages {
    /// NaN, which proves that nothing is read before it is written, and that everything is written.
    pub fn nan(len: usize, side: Side) -> Self {
        let mut map = Map::new(len);
        map.floats().fill(CANARY);
        let at = if side == Side::Start { 0 } else { map.floats().len() - len };
        map.floats()[at..at + len].fill(f32::NAN);
        Self { map, at, len }
    }

    /// A copy.
    pub fn copy(from: &[f32], side: Side) -> Self {
        let mut pages = Self::nan(from.len(), side);
        pages.copy_from_slice(from);
        pages
    }
}

impl Deref for Pages {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.map.shared()[self.at..self.at + self.len]
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.map.floats()[self.at..self.at + self.len]
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let all = self.map.shared();
        let stray = all[..self.at].iter().chain(&all[self.at + self.len..]).any(|v| *v != CANARY);
        assert!(!stray || std::thread::panicking(), "a write beside {} floats", self.len);
    }
}

/// Whole accessible pages between protected ones.
#[cfg(all(unix, not(miri)))]
struct Map {
    start: *mut libc::c_void,
    /// Bytes of a page, and of the accessible ones.
    page: usize,
    inner: usize,
}

#[cfg(all(unix, not(miri)))]
impl Map {
    /// Room for so many floats.
    fn new(floats: usize) -> Self {
        // SAFETY: asks for a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let inner = (floats * size_of::<f32>()).next_multiple_of(page).max(page);
        // SAFETY: a new mapping overlaps nothing.
        let start = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            libc::mmap(core::ptr::null_mut(), inner + 2 * page, libc::PROT_NONE, flags, -1, 0)
        };
        assert_ne!(start, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        // SAFETY: the pages are inside the mapping.
        let failed = unsafe { libc::mprotect(start.byte_add(page), inner, libc::PROT_READ | libc::PROT_WRITE) };
        assert_eq!(failed, 0, "mprotect: {}", std::io::Error::last_os_error());
        Self { start, page, inner }
    }

    fn shared(&self) -> &[f32] {
        // SAFETY: the accessible pages live as long as `self`, are aligned, and were zeros at first.
        unsafe { core::slice::from_raw_parts(self.start.byte_add(self.page).cast(), self.inner / size_of::<f32>()) }
    }

    fn floats(&mut self) -> &mut [f32] {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.start.byte_add(self.page).cast(), self.inner / size_of::<f32>()) }
    }
}

#[cfg(all(unix, not(miri)))]
impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, which nothing borrows any more.
        unsafe { libc::munmap(self.start, self.inner + 2 * self.page) };
    }
}

/// Canaries alone, where there are no pages to protect; Miri sees accesses beyond an allocation by itself.
#[cfg(any(not(unix), miri))]
struct Map(Vec<f32>);

#[cfg(any(not(unix), miri))]
impl Map {
    fn new(floats: usize) -> Self {
        Self(vec![0.0; floats + if cfg!(miri) { 0 } else { 64 }])
    }

    fn shared(&self) -> &[f32] {
        &self.0
    }

    fn floats(&mut self) -> &mut [f32] {
        &mut self.0
    }
}
