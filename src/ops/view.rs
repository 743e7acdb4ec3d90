//! Strided views: how an array's elements are read in another order.
//!
//! Transpose, slice, expand, reverse and depth-to-space are all one copy through a view.

use super::array::{Array, Element, each};
use super::call::{OpResult, checked_count, refuse};

/// Where the elements of a result lie in the source: `offset + sum(index[i] * strides[i])`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub offset: isize,
    pub dims: Vec<usize>,
    pub strides: Vec<isize>,
}

/// Strides of a contiguous array.
pub(crate) fn contiguous(dims: &[usize]) -> Vec<isize> {
    let mut strides = vec![0; dims.len()];
    let mut step = 1isize;
    for (stride, &dim) in strides.iter_mut().zip(dims).rev() {
        *stride = step;
        step = step.saturating_mul(dim as isize);
    }
    strides
}

impl View {
    /// Every element in its own order.
    pub fn of(dims: &[usize]) -> Self {
        Self { offset: 0, dims: dims.to_vec(), strides: contiguous(dims) }
    }

    /// The dimensions in another order.
    pub fn permute(&self, order: &[usize]) -> Self {
        Self {
            offset: self.offset,
            dims: order.iter().map(|&i| self.dims[i]).collect(),
            strides: order.iter().map(|&i| self.strides[i]).collect(),
        }
    }

    /// Repeated to other dimensions by NumPy's rule: aligned at the last, a dimension of 1 repeats.
    pub fn broadcast(&self, dims: &[usize]) -> OpResult<Self> {
        let Some(lead) = dims.len().checked_sub(self.dims.len()) else {
            refuse!("the dimensions {:?} do not broadcast to {dims:?}", self.dims);
        };
        let mut strides = vec![0; dims.len()];
        for (i, (&from, &to)) in self.dims.iter().zip(&dims[lead..]).enumerate() {
            match from {
                _ if from == to => strides[lead + i] = self.strides[i],
                1 => {}
                _ => refuse!("the dimensions {:?} do not broadcast to {dims:?}", self.dims),
            }
        }
        Ok(Self { offset: self.offset, dims: dims.to_vec(), strides })
    }

    /// `count` elements along an axis from `start` on, `step` apart. They must exist.
    pub fn slice(&mut self, axis: usize, start: usize, step: isize, count: usize) {
        if count > 0 {
            self.offset += start as isize * self.strides[axis];
        }
        self.strides[axis] *= step;
        self.dims[axis] = count;
    }

    /// Copies the elements out of a source.
    pub fn copy<T: Clone>(&self, source: &[T]) -> OpResult<Vec<T>> {
        let mut to = Vec::with_capacity(checked_count(&self.dims)?);
        self.rows(|start, stride, len| match stride {
            1 => to.extend_from_slice(&source[start as usize..start as usize + len]),
            0 => to.extend(std::iter::repeat_n(source[start as usize].clone(), len)),
            _ => to.extend((0..len as isize).map(|i| source[(start + i * stride) as usize].clone())),
        });
        Ok(to)
    }

    /// Calls `row(start, stride, len)` for the elements of each row of the last dimension, in order.
    pub fn rows(&self, mut row: impl FnMut(isize, isize, usize)) {
        if self.dims.contains(&0) {
            return;
        }
        let Some((&len, outer)) = self.dims.split_last() else {
            return row(self.offset, 1, 1);
        };
        let stride = self.strides[outer.len()];
        let mut index = vec![0; outer.len()];
        let mut start = self.offset;
        'rows: loop {
            row(start, stride, len);
            for axis in (0..outer.len()).rev() {
                index[axis] += 1;
                start += self.strides[axis];
                if index[axis] < outer[axis] {
                    continue 'rows;
                }
                start -= self.strides[axis] * outer[axis] as isize;
                index[axis] = 0;
            }
            return;
        }
    }

    /// The view as an array.
    pub fn array(&self, source: &Array) -> OpResult<Array> {
        Ok(each!(source.data(), v => Array::of(self.dims.clone(), self.copy(v)?)))
    }
}

/// The dimensions that two shapes broadcast to.
pub(crate) fn broadcast_dims(a: &[usize], b: &[usize]) -> OpResult<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |dims: &[usize], i: usize| (i + dims.len()).checked_sub(rank).map_or(1, |i| dims[i]);
    let mut dims = Vec::with_capacity(rank);
    for i in 0..rank {
        dims.push(match (at(a, i), at(b, i)) {
            (x, y) if x == y => x,
            (1, y) => y,
            (x, 1) => x,
            _ => refuse!("the dimensions {a:?} and {b:?} do not broadcast"),
        });
    }
    checked_count(&dims)?;
    Ok(dims)
}

/// The dimensions that several arrays broadcast to.
pub(crate) fn broadcast_all<'a>(arrays: impl IntoIterator<Item = &'a Array>) -> OpResult<Vec<usize>> {
    arrays.into_iter().try_fold(Vec::new(), |dims, array| broadcast_dims(&dims, array.dims()))
}

/// `f` of two broadcast arrays, element by element.
pub(crate) fn zip<A: Clone, B: Clone, R>(
    (a, a_dims): (&[A], &[usize]),
    (b, b_dims): (&[B], &[usize]),
    f: impl Fn(A, B) -> R,
) -> OpResult<(Vec<usize>, Vec<R>)> {
    let dims = broadcast_dims(a_dims, b_dims)?;
    let mut to = Vec::with_capacity(checked_count(&dims)?);
    if a_dims == b_dims {
        to.extend(a.iter().zip(b).map(|(a, b)| f(a.clone(), b.clone())));
        return Ok((dims, to));
    }
    if let ([one], true) = (b, dims == a_dims) {
        to.extend(a.iter().map(|a| f(a.clone(), one.clone())));
        return Ok((dims, to));
    }
    let (a_view, b_view) = (View::of(a_dims).broadcast(&dims)?, View::of(b_dims).broadcast(&dims)?);
    let mut starts = Vec::new();
    b_view.rows(|start, stride, _| starts.push((start, stride)));
    let mut rows = starts.into_iter();
    a_view.rows(|a_start, a_stride, len| {
        let (b_start, b_stride) = rows.next().expect("both views have the same dimensions");
        to.extend((0..len as isize).map(|i| {
            let (a_at, b_at) = (a_start + i * a_stride, b_start + i * b_stride);
            f(a[a_at as usize].clone(), b[b_at as usize].clone())
        }));
    });
    Ok((dims, to))
}

/// The array repeated to these dimensions.
pub(crate) fn expand(array: &Array, dims: &[usize]) -> OpResult<Array> {
    if array.dims() == dims {
        return Ok(array.clone());
    }
    View::of(array.dims()).broadcast(dims)?.array(array)
}

/// Outer elements, elements along an axis, inner elements.
pub(crate) fn around(dims: &[usize], axis: usize) -> [usize; 3] {
    [dims[..axis].iter().product(), dims[axis], dims[axis + 1..].iter().product()]
}

/// An array of elements that is read by index along its axis: `[outer, axis, inner]`.
pub(crate) fn take<T: Element>(from: &[T], [outer, len, inner]: [usize; 3], indices: &[usize]) -> Vec<T> {
    let mut to = Vec::with_capacity(outer * indices.len() * inner);
    for o in 0..outer {
        for &i in indices {
            debug_assert!(i < len);
            to.extend_from_slice(&from[(o * len + i) * inner..][..inner]);
        }
    }
    to
}
