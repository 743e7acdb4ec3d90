//! Strided views: how an array's elements are read in another order.
//!
//! Transpose, slice, expand, reverse and depth-to-space are all one copy through a view.

use super::array::{Array, Element, moves};
use super::error::{OpResult, refuse};
use super::room::{checked_count, room};

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
        // One element has no next one, however long the step to it would be.
        self.strides[axis] *= if count > 1 { step } else { 1 };
        self.dims[axis] = count;
    }

    /// Copies the elements out of a source.
    pub fn copy<T: Clone>(&self, source: &[T]) -> OpResult<Vec<T>> {
        let mut to = room(checked_count(&self.dims)?)?;
        self.rows(&mut |start, stride, len| match stride {
            1 => to.extend_from_slice(&source[start as usize..start as usize + len]),
            0 => to.extend(std::iter::repeat_n(source[start as usize].clone(), len)),
            _ => to.extend((0..len as isize).map(|i| source[(start + i * stride) as usize].clone())),
        });
        Ok(to)
    }

    /// Calls `row(start, stride, len)` for the elements of each row of the last dimension, in order.
    pub fn rows(&self, row: &mut dyn FnMut(isize, isize, usize)) {
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
        Ok(moves!(source.data(), v => (self.dims.clone(), self.copy(v)?)))
    }
}

/// A result of an operator that only moves elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Move {
    /// Where each element lies in the input.
    pub view: View,
    /// Dimensions of the result, which has as many elements as the view.
    pub dims: Vec<usize>,
}

impl Move {
    /// Elements that stay in their order, under other dimensions.
    pub fn none(from: &[usize], dims: impl Into<Vec<usize>>) -> Self {
        Self { view: View::of(from), dims: dims.into() }
    }

    /// The result.
    pub fn array(&self, x: &Array) -> OpResult<Array> {
        let moved = if self.view == View::of(x.dims()) { x.clone() } else { self.view.array(x)? };
        match moved.with_dims(self.dims.clone()) {
            Some(array) => Ok(array),
            None => refuse!("{:?} would have more elements than there are", self.dims),
        }
    }
}

impl From<View> for Move {
    fn from(view: View) -> Self {
        Self { dims: view.dims.clone(), view }
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

/// Starts, strides and length of a row of two arrays.
pub(super) type RowOfTwo = ([isize; 2], [isize; 2], usize);

/// What two arrays broadcast to, and its rows.
pub(super) fn rows_of_two(a_dims: &[usize], b_dims: &[usize]) -> OpResult<(Vec<usize>, Vec<RowOfTwo>)> {
    let dims = broadcast_dims(a_dims, b_dims)?;
    if a_dims == b_dims {
        let row = ([0, 0], [1, 1], checked_count(&dims)?);
        return Ok((dims, vec![row]));
    }
    let mut rows = Vec::new();
    View::of(a_dims).broadcast(&dims)?.rows(&mut |start, stride, len| rows.push(([start, 0], [stride, 0], len)));
    let mut of_b = rows.iter_mut();
    View::of(b_dims).broadcast(&dims)?.rows(&mut |start, stride, _| {
        if let Some((starts, strides, _)) = of_b.next() {
            (starts[1], strides[1]) = (start, stride);
        }
    });
    Ok((dims, rows))
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
pub(crate) fn take<T: Element>(from: &[T], [outer, len, inner]: [usize; 3], indices: &[usize]) -> OpResult<Vec<T>> {
    let mut to = room(outer * indices.len() * inner)?;
    if outer == 1 && inner == 1 {
        to.extend(indices.iter().map(|&i| from[i].clone()));
        return Ok(to);
    }
    for o in 0..outer {
        for &i in indices {
            debug_assert!(i < len);
            to.extend_from_slice(&from[(o * len + i) * inner..][..inner]);
        }
    }
    Ok(to)
}

/// For compiled ONNX models.
#[cfg(feature = "onnx")]
impl View {
    /// Neighbouring dimensions that are walked as one are one; dimensions of 1 are none.
    pub fn merged(&self) -> Self {
        let mut merged: Vec<(usize, isize)> = Vec::with_capacity(self.dims.len());
        for (&dim, &stride) in self.dims.iter().zip(&self.strides).filter(|(dim, _)| **dim != 1) {
            match merged.last_mut() {
                Some((before, step)) if *step == stride * dim as isize => (*before, *step) = (*before * dim, stride),
                _ => merged.push((dim, stride)),
            }
        }
        let (dims, strides) = merged.into_iter().unzip();
        Self { offset: self.offset, dims, strides }
    }

    /// Where row `r` of the last dimension starts.
    pub fn row_start(&self, mut r: usize) -> isize {
        let outer = self.dims.len().saturating_sub(1);
        let mut start = self.offset;
        for (&dim, &stride) in self.dims[..outer].iter().zip(&self.strides).rev() {
            start += (r % dim) as isize * stride;
            r /= dim;
        }
        start
    }

    /// The view that reads these places, in the order of a result of the dimensions `dims`; `None` if there is none. Dimensions
    /// that are walked in more than one step become several.
    pub fn through(dims: &[usize], places: &[i32]) -> Option<Self> {
        let offset = isize::try_from(*places.first()?).ok()?;
        let steps = contiguous(dims);
        let mut view = Self { offset, dims: Vec::new(), strides: Vec::new() };
        for (&dim, &step) in dims.iter().zip(&steps) {
            let along: Vec<isize> = (0..dim).map(|i| places[i * step as usize] as isize - offset).collect();
            for (dim, stride) in factors(&along)? {
                view.dims.push(dim);
                view.strides.push(stride);
            }
        }
        let mut at = 0;
        let mut same = true;
        view.rows(&mut |start, stride, len| {
            let row = &places[at..at + len];
            same &= row.iter().zip(0..).all(|(&p, i)| p as isize == start + i * stride);
            at += len;
        });
        same.then_some(view)
    }
}

/// A sequence from 0 on as nested loops with a step each.
#[cfg(feature = "onnx")]
fn factors(along: &[isize]) -> Option<Vec<(usize, isize)>> {
    let Some(&step) = along.get(1) else { return Some(Vec::new()) };
    let regular = (0..along.len()).take_while(|&i| along[i] == i as isize * step).count();
    if regular == along.len() {
        return Some(vec![(regular, step)]);
    }
    if !along.len().is_multiple_of(regular) {
        return None;
    }
    let outer: Vec<isize> = along.iter().copied().step_by(regular).collect();
    let mut all = factors(&outer)?;
    all.push((regular, step));
    Some(all)
}

#[cfg(all(test, feature = "onnx"))]
mod tests {
    use super::*;

    /// The places that a view reads, and what finds it again.
    fn found(view: &View, dims: &[usize]) -> Option<View> {
        let numbers: Vec<i32> = (0..10_000).collect();
        View::through(dims, &view.copy(&numbers).unwrap())
    }

    #[test]
    fn views_are_found_by_the_places_that_they_read() {
        let transposed = View::of(&[2, 3, 4]).permute(&[2, 0, 1]);
        let mut sliced = View::of(&[5, 6]);
        sliced.slice(1, 4, -2, 3);
        let repeated = View::of(&[1, 3]).broadcast(&[4, 3]).unwrap();
        // Depth to space, of 8 channels to 2.
        let apart = View::of(&[1, 2, 2, 2, 3, 3]).permute(&[0, 3, 4, 1, 5, 2]);
        for (view, dims) in
            [(transposed, vec![4, 2, 3]), (sliced, vec![5, 3]), (repeated, vec![4, 3]), (apart, vec![1, 2, 6, 6])]
        {
            let again = found(&view, &dims).unwrap();
            let numbers: Vec<i32> = (0..10_000).collect();
            assert_eq!(again.copy(&numbers), view.copy(&numbers));
            let merged = again.merged();
            assert_eq!(merged.copy(&numbers), view.copy(&numbers));
            let mut row = 0;
            merged.rows(&mut |start, _, _| {
                assert_eq!(merged.row_start(row), start);
                row += 1;
            });
        }
        assert_eq!(View::through(&[3], &[0, 5, 1]), None);
        assert_eq!(View::through(&[2, 2], &[0, 1, 2, 7]), None);
    }
}
