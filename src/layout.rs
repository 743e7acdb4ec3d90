//! Changes of layout on plain slices, vectorised and threaded.
//!
//! A framework that holds NCHW may hand its tensors to plans as they lie, or change their layout once and stay blocked
//! through many layers, as a [`Session`](crate::Session) does.

use swath_kernels::isa::Level;
use swath_kernels::layout::Layout;
use swath_kernels::pass::Place;

use crate::error::{Result, check_len};
use crate::par;
use crate::tensor::stored_len;

/// Copies `x` in layout `from` to `y` in layout `to`, both of the logical extents `[n, c, h, w]`. Channels that pad the
/// last block become zero. [`Layout::len`] says how many floats a layout takes.
///
/// It runs on the threads of where it is called ([`par`]), where there is enough to copy for them.
///
/// # Errors
/// For slices of other lengths, and extents that overflow.
///
/// ```
/// use swath::{Layout, layout};
/// let dims = [1, 3, 2, 2];
/// let nchw: Vec<f32> = (0..12).map(|i| i as f32).collect();
/// let mut blocked = vec![0.0; Layout::Blocked.len(dims)];
/// layout::reorder(Layout::Nchw, &nchw, Layout::Blocked, &mut blocked, dims)?;
/// assert_eq!(blocked[16..20], [1.0, 5.0, 9.0, 0.0]); // the second pixel
/// # Ok::<(), swath::Error>(())
/// ```
pub fn reorder(from: Layout, x: &[f32], to: Layout, y: &mut [f32], dims: [usize; 4]) -> Result<()> {
    check_len("the source", x.len(), stored_len(&dims, from)?)?;
    check_len("the destination", y.len(), stored_len(&dims, to)?)?;
    reorder_checked(from, x, to, y, dims);
    Ok(())
}

/// The same of slices whose lengths are known to be right.
pub(crate) fn reorder_checked(from: Layout, x: &[f32], to: Layout, y: &mut [f32], dims: [usize; 4]) {
    let executor = par::everyone();
    // Elements are only moved: every level has the same result.
    let level = crate::cpu().map_or(Level::Scalar, |cpu| cpu.level);
    swath_kernels::reorder::reorder(&Place::new(level, &*executor), from, x, to, y, dims);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused() {
        let dims = [1, 3, 2, 2];
        let refused = |x: usize, y: usize, dims| {
            let e = reorder(Layout::Nchw, &vec![0.0; x], Layout::Blocked, &mut vec![0.0; y], dims).unwrap_err();
            e.to_string()
        };
        assert_eq!(refused(11, 64, dims), "the source has 11 elements, but 12 are needed");
        assert_eq!(refused(12, 63, dims), "the destination has 63 elements, but 64 are needed");
        assert!(refused(12, 64, [usize::MAX / 2, 3, 2, 2]).contains("tensor"));
        assert!(refused(12, 64, [1, usize::MAX, 1, 1]).contains("tensor"));
    }
}
