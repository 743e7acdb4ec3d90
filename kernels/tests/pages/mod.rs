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

/// Start and accessible bytes of maps of this thread that nothing uses: mapping is slow, and an emulator keeps memory for
/// each address that ever was one.
#[cfg(all(unix, not(miri)))]
#[derive(Default)]
struct Unused(Vec<(*mut libc::c_void, usize)>);

/// Most maps that a thread keeps, and most bytes of one.
#[cfg(all(unix, not(miri)))]
const KEPT: (usize, usize) = (64, 1 << 22);

#[cfg(all(unix, not(miri)))]
thread_local! {
    static UNUSED: core::cell::RefCell<Unused> = core::cell::RefCell::default();
}

#[cfg(all(unix, not(miri)))]
impl Drop for Unused {
    fn drop(&mut self) {
        self.0.drain(..).for_each(|(start, inner)| unmap(start, inner));
    }
}

#[cfg(all(unix, not(miri)))]
fn page() -> usize {
    // SAFETY: asks for a number.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// Gives back a map that nothing borrows any more.
#[cfg(all(unix, not(miri)))]
fn unmap(start: *mut libc::c_void, inner: usize) {
    // SAFETY: the whole mapping, as `Map::new` made it.
    unsafe { libc::munmap(start, inner + 2 * page()) };
}

#[cfg(all(unix, not(miri)))]
impl Map {
    /// Room for so many floats; what they are is any.
    fn new(floats: usize) -> Self {
        let page = page();
        let inner = (floats * size_of::<f32>()).next_multiple_of(page).max(page);
        let unused = UNUSED.try_with(|maps| {
            let maps = &mut maps.borrow_mut().0;
            maps.iter().position(|map| map.1 == inner).map(|i| maps.swap_remove(i))
        });
        if let Ok(Some((start, inner))) = unused {
            return Self { start, page, inner };
        }
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
        let kept = UNUSED.try_with(|maps| {
            let maps = &mut maps.borrow_mut().0;
            let keep = maps.len() < KEPT.0 && self.inner <= KEPT.1;
            if keep {
                maps.push((self.start, self.inner));
            }
            keep
        });
        if !kept.unwrap_or(false) {
            unmap(self.start, self.inner);
        }
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
