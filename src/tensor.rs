//! Owned tensors: 64-byte aligned `f32` data, extents, and the layout of 4-d activations.

use core::fmt;

use swath_kernels::layout::Layout;
use swath_kernels::shape::checked_elements;

use crate::buffer::Buffer;
use crate::error::{Result, check_len};
use crate::layout::{reorder_checked, stored_len};

/// An owned tensor of `f32`: extents, and data that starts on a 64-byte boundary, but for constants of imported models.
///
/// `clone()` panics where there is no memory for a copy; [`Tensor::try_clone`] says so instead.
///
/// Elements are in row-major order, and a 4-d tensor `[n, c, h, w]` may also be in [`Layout::Nhwc`] or
/// [`Layout::Blocked`]; its extents stay `[n, c, h, w]` whatever the layout.
///
/// ```
/// use swath::{Layout, Tensor};
/// let x = Tensor::new([1, 2, 1, 3], &[1.0, 2.0, 3.0, 10.0, 20.0, 30.0])?;
/// let nhwc = x.to_layout(Layout::Nhwc)?;
/// assert_eq!(nhwc.dims(), [1, 2, 1, 3]);
/// assert_eq!(nhwc.as_slice(), [1.0, 10.0, 2.0, 20.0, 3.0, 30.0]);
/// assert_eq!(nhwc.to_layout(Layout::Nchw)?, x);
/// assert_eq!(Tensor::new([2, 2], &[0.0; 5]).unwrap_err().to_string(), "the data has 5 elements, but 4 are needed");
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone)]
pub struct Tensor {
    dims: Vec<usize>,
    layout: Layout,
    pub(crate) data: Buffer,
}

impl Tensor {
    /// A row-major tensor (NCHW for four extents) of zeros.
    ///
    /// # Errors
    /// If the extents multiply to more than 64 bits, and [`Error::Memory`](crate::Error::Memory).
    pub fn zeros(dims: impl AsRef<[usize]>) -> Result<Self> {
        Self::zeros_in(dims, Layout::Nchw)
    }

    /// A tensor of zeros in a layout.
    ///
    /// # Errors
    /// If the extents overflow, for a layout other than [`Layout::Nchw`] with other than four extents, and
    /// [`Error::Memory`](crate::Error::Memory).
    pub fn zeros_in(dims: impl AsRef<[usize]>, layout: Layout) -> Result<Self> {
        let dims = dims.as_ref().to_vec();
        let len = stored_len(&dims, layout)?;
        Ok(Self { dims, layout, data: Buffer::zeros(len)? })
    }

    /// A row-major tensor (NCHW for four extents) with a copy of `data`.
    ///
    /// # Errors
    /// For a length that is not the product of the extents, and as [`Tensor::zeros`].
    pub fn new(dims: impl AsRef<[usize]>, data: &[f32]) -> Result<Self> {
        Self::new_in(dims, Layout::Nchw, data)
    }

    /// A 4-d tensor in a layout, with a copy of `data`, which is in that layout.
    ///
    /// # Errors
    /// For a length that is not what extents and layout say, and as [`Tensor::zeros_in`].
    pub fn new_in(dims: impl AsRef<[usize]>, layout: Layout, data: &[f32]) -> Result<Self> {
        check_len("the data", data.len(), stored_len(dims.as_ref(), layout)?)?;
        let mut t = Self::zeros_in(dims, layout)?;
        t.as_mut_slice().copy_from_slice(data);
        Ok(t)
    }

    /// No elements.
    #[cfg(feature = "nn")]
    pub(crate) fn empty() -> Self {
        Self { dims: vec![0], layout: Layout::Nchw, data: Buffer::default() }
    }

    /// A row-major tensor of elements that others own, too.
    ///
    /// # Errors
    /// For a number of elements that is not the product of the extents.
    #[cfg(feature = "onnx")]
    pub(crate) fn shared(dims: &[usize], data: std::sync::Arc<dyn crate::buffer::Floats>) -> Result<Self> {
        check_len("the data", data.floats().len(), stored_len(dims, Layout::Nchw)?)?;
        Ok(Self { dims: dims.to_vec(), layout: Layout::Nchw, data: Buffer::shared(data) })
    }

    /// A copy.
    ///
    /// # Errors
    /// [`Error::Memory`](crate::Error::Memory).
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self { dims: self.dims.clone(), layout: self.layout, data: self.data.copied()? })
    }

    /// The extents; of four, always `[n, c, h, w]`.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The order of the elements.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The elements as they lie in memory.
    pub fn as_slice(&self) -> &[f32] {
        &self.data
    }

    /// The elements as they lie in memory.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// A copy in another layout.
    ///
    /// # Errors
    /// If the tensor does not have four extents and the layout changes, and [`Error::Memory`](crate::Error::Memory).
    pub fn to_layout(&self, layout: Layout) -> Result<Self> {
        if layout == self.layout {
            return self.try_clone();
        }
        let mut t = Self::zeros_in(&self.dims, layout)?;
        reorder_checked(self.layout, self.as_slice(), layout, t.as_mut_slice(), extents4(&self.dims));
        Ok(t)
    }

    /// The same elements in row-major order under other extents. Another layout is reordered first.
    ///
    /// # Errors
    /// If the number of elements differs.
    pub fn reshape(mut self, dims: impl AsRef<[usize]>) -> Result<Self> {
        if self.layout != Layout::Nchw {
            self = self.to_layout(Layout::Nchw)?;
        }
        check_len("the tensor", self.as_slice().len(), checked_elements("tensor", dims.as_ref())?)?;
        self.dims = dims.as_ref().to_vec();
        Ok(self)
    }
}

/// `[n, c, h, w]`, with extents of 1 for those that a tensor of lower rank lacks; what is beyond four is in the last.
pub(crate) fn extents4(dims: &[usize]) -> [usize; 4] {
    let mut d = [1; 4];
    for (i, &e) in dims.iter().enumerate() {
        d[i.min(3)] *= e;
    }
    d
}

impl AsRef<[f32]> for Tensor {
    fn as_ref(&self) -> &[f32] {
        self.as_slice()
    }
}

impl PartialEq for Tensor {
    fn eq(&self, other: &Self) -> bool {
        self.dims == other.dims && self.layout == other.layout && self.as_slice() == other.as_slice()
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = &self.as_slice()[..self.as_slice().len().min(8)];
        write!(f, "Tensor({:?}, {}, {head:?}..)", self.dims, self.layout.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn aligned(t: &Tensor) -> bool {
        t.as_slice().as_ptr().addr().is_multiple_of(64)
    }

    #[test]
    fn data_is_aligned_also_after_clone() {
        let kept: Vec<Tensor> = (1..100)
            .flat_map(|n| {
                let t = Tensor::new([n], &vec![n as f32; n]).unwrap();
                let c = t.clone();
                assert_eq!(t, c);
                [t, c]
            })
            .collect();
        assert!(kept.iter().all(aligned));
        assert!(Tensor::zeros([0, 3]).unwrap().as_slice().is_empty());
    }

    #[test]
    fn wrong_sizes_are_refused() {
        assert!(Tensor::zeros([usize::MAX, 2]).is_err());
        // 64 TiB: more than any machine of today maps.
        let e = Tensor::zeros([1 << 44]).unwrap_err();
        assert!(matches!(e, Error::Memory { bytes: 70_368_744_177_724 }), "{e}");
        assert!(Tensor::zeros_in([1, usize::MAX - 1, 1, 1], Layout::Blocked).is_err());
        assert!(Tensor::zeros_in([3, 4], Layout::Blocked).is_err());
        assert!(Tensor::zeros([3, 4]).unwrap().to_layout(Layout::Nhwc).is_err());
        let e = Tensor::new_in([1, 3, 2, 2], Layout::Blocked, &[0.0; 12]).unwrap_err();
        assert_eq!(e.to_string(), "the data has 12 elements, but 64 are needed");
        assert!(Tensor::zeros([3, 4]).unwrap().reshape([5, 2]).is_err());
    }

    #[test]
    fn layouts_round_trip() {
        let x: Vec<f32> = (0..2 * 19 * 3 * 5).map(|i| i as f32).collect();
        let x = Tensor::new([2, 19, 3, 5], &x).unwrap();
        for l in Layout::ALL {
            let y = x.to_layout(l).unwrap();
            assert_eq!((y.dims(), y.layout()), (x.dims(), l));
            assert_eq!(y.to_layout(Layout::Nchw).unwrap(), x);
        }
    }
}
