//! Changes of layout on plain slices, vectorised and threaded.
//!
//! A framework that holds NCHW may hand its tensors to plans as they lie, or change their layout once and stay blocked
//! through many layers, as a [`Session`](crate::Session) does.

use core::mem::MaybeUninit;

use swath_kernels::epilogue::{Epilogue, Outputs};
use swath_kernels::isa::Level;
use swath_kernels::layout::{BLOCK, Layout, Pitches, View};
use swath_kernels::pass::Place;
use swath_kernels::shape::checked_elements;

use crate::error::{Error, Result, check_len};
use crate::par;

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

/// Floats of a tensor in a layout, checked.
pub(crate) fn stored_len(dims: &[usize], layout: Layout) -> Result<usize> {
    match (layout, dims) {
        (Layout::Blocked, &[n, c, h, w]) => {
            let c = c.checked_next_multiple_of(BLOCK).unwrap_or(usize::MAX);
            Ok(checked_elements("tensor", &[n, c, h, w])?)
        }
        (Layout::Nchw, _) | (_, [_, _, _, _]) => Ok(checked_elements("tensor", dims)?),
        _ => Err(Error::Rank { what: "a layout of channels", takes: "[n, c, h, w]", gets: dims.to_vec() }),
    }
}

/// How a plan's tensor lies in the slice that a run is given: dense, or a part of a larger tensor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    view: View,
    /// Whether the slice may go on behind it.
    part: bool,
}

impl Held {
    /// By pitches that options may have; `what` names these.
    pub fn new(what: &'static str, layout: Layout, dims: [usize; 4], pitches: Option<Pitches>) -> Result<Self> {
        let Some(p) = pitches else { return Ok(Self { view: View::dense(layout, dims), part: false }) };
        let view = View::pitched(layout, dims, p).map_err(|e| {
            let value = format!("{}, {} and {} (rows, channels, images)", p.row, p.channel, p.image);
            Error::Setting { what, value, rule: e.to_string() }
        })?;
        Ok(Self { view, part: true })
    }

    /// Where its elements lie.
    pub fn view(&self) -> View {
        self.view
    }

    /// Its floats in a slice.
    pub fn floats<'a>(&self, what: &'static str, x: &'a [f32]) -> Result<&'a [f32]> {
        Ok(&x[..self.len(what, x.len())?])
    }

    /// The same of what is written.
    pub fn outputs<'a>(&self, what: &'static str, y: &'a mut [f32]) -> Result<Outputs<'a>> {
        let len = self.len(what, y.len())?;
        Ok((&mut y[..len]).into())
    }

    /// The same in memory that holds nothing yet, all of which is written then.
    pub fn unwritten<'a>(&self, what: &'static str, y: &'a mut [MaybeUninit<f32>]) -> Result<Outputs<'a>> {
        if !self.view.is_dense() {
            let value = format!("{what}, of {} floats with its gaps", self.view.len());
            let rule = "memory that holds nothing takes dense tensors, since gaps stay unwritten".into();
            return Err(Error::Setting { what: "a view", value, rule });
        }
        let len = self.len(what, y.len())?;
        Ok((&mut y[..len]).into())
    }

    /// An epilogue of this tensor, whose bias has so many floats, and whose residual lies as it does.
    pub fn epilogue<'a>(&self, e: Epilogue<'a>, channels: usize) -> Result<Epilogue<'a>> {
        check_len("the bias", e.bias.map_or(channels, <[f32]>::len), channels)?;
        let residual = e.residual.map(|r| self.floats("the residual", r)).transpose()?;
        Ok(Epilogue { residual, ..e })
    }

    /// Floats of a slice that it takes: all of a whole tensor's, as many as there must be at least of a part of a larger one.
    fn len(&self, what: &'static str, actual: usize) -> Result<usize> {
        if !self.part || actual < self.view.len() {
            check_len(what, actual, self.view.len())?;
        }
        Ok(self.view.len())
    }
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
