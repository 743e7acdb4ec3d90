//! Numbers of any type in the four types that are computed in.
//!
//! Elements are read into rows, a function computes on rows, and rows become elements again. What reads and what writes is
//! compiled for each type of elements, the function for four types at most, and the loops around all of them once.

use super::array::{Array, Data, ElementType};
use super::error::{OpResult, refuse};
use super::number::{Arithmetic, Number, numbers, of_types};
use super::room::checked_count;
use super::view::rows_of_two;

/// The elements of a row: small enough for L1, where they stay between reading and writing.
const ROW: usize = 512;

/// The types that are computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Domain {
    F32,
    /// Reads and writes numbers of any type, and truth values.
    F64,
    /// Reads and writes integers of any type, and truth values; 64-bit ones without a sign wrap.
    I64,
    U64,
}

impl Domain {
    /// What elements are computed in without loss.
    pub fn of(element: ElementType) -> OpResult<Self> {
        Ok(match element {
            ElementType::F32 | ElementType::F16 | ElementType::Bf16 => Self::F32,
            ElementType::F64 => Self::F64,
            ElementType::U64 => Self::U64,
            other if other.is_integer() => Self::I64,
            other => refuse!("elements of type {other}, but numbers are needed"),
        })
    }
}

/// Numbers in a type that is computed in.
#[derive(Debug, Clone)]
pub(crate) enum Wide {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I64(Vec<i64>),
    U64(Vec<u64>),
}

/// Runs the same code on numbers of any of the four types.
macro_rules! wide {
    ($wide:expr, $v:ident => $body:expr) => {
        match $wide {
            $crate::ops::wide::Wide::F32($v) => $body,
            $crate::ops::wide::Wide::F64($v) => $body,
            $crate::ops::wide::Wide::I64($v) => $body,
            $crate::ops::wide::Wide::U64($v) => $body,
        }
    };
}
pub(crate) use wide;

/// A row of elements: where it starts, how far they are apart, how many there are.
type Row = (isize, isize, usize);

fn read<T: Copy, W>(to: &mut Vec<W>, from: &[T], (start, stride, len): Row, f: impl Fn(T) -> W) {
    if stride == 1 {
        to.extend(from[start as usize..][..len].iter().map(|&v| f(v)));
    } else {
        to.extend((0..len as isize).map(|i| f(from[(start + i * stride) as usize])));
    }
}

fn write<T, W: Copy>(to: &mut Vec<T>, from: &[W], f: impl Fn(W) -> T) {
    to.extend(from.iter().map(|&v| f(v)));
}

impl Wide {
    fn new(domain: Domain) -> Self {
        match domain {
            Domain::F32 => Self::F32(Vec::with_capacity(ROW)),
            Domain::F64 => Self::F64(Vec::with_capacity(ROW)),
            Domain::I64 => Self::I64(Vec::with_capacity(ROW)),
            Domain::U64 => Self::U64(Vec::with_capacity(ROW)),
        }
    }

    /// All elements of an array that the domain reads.
    pub fn of(x: &Array, domain: Domain) -> OpResult<Self> {
        let mut all = Self::new(domain);
        wide!(&mut all, v => v.try_reserve_exact(x.len()).is_ok()).then_some(()).ok_or_else(|| no_room(x.len()))?;
        all.read(x.data(), (0, 1, x.len()))?;
        Ok(all)
    }

    /// The doubles of [`Domain::F64`].
    pub fn doubles(&mut self) -> &mut [f64] {
        match self {
            Self::F64(v) => v,
            _ => &mut [],
        }
    }

    /// The integers of [`Domain::I64`].
    pub fn integers(&mut self) -> &mut [i64] {
        match self {
            Self::I64(v) => v,
            _ => &mut [],
        }
    }

    fn len(&self) -> usize {
        wide!(self, v => v.len())
    }

    fn clear(&mut self) {
        wide!(self, v => v.clear());
    }

    /// Appends elements.
    fn read(&mut self, from: &Data, row: Row) -> OpResult<()> {
        match (self, from) {
            (Self::F64(to), Data::Bool(v)) => read(to, v, row, |v| v.into()),
            (Self::I64(to), Data::Bool(v)) => read(to, v, row, |v| v.into()),
            (Self::F32(to), from) => of_types!([F32 F16 Bf16] from, v => read(to, v, row, |v| v.wide()),
                other => return unread(other)),
            (Self::F64(to), from) => numbers!(from, v => read(to, v, row, |v| v.f64()), other => return unread(other)),
            (Self::I64(to), from) => of_types!([I8 I16 I32 I64 U8 U16 U32 U64] from,
                v => read(to, v, row, |v| v as i64), other => return unread(other)),
            (Self::U64(to), from) => of_types!([U64] from, v => read(to, v, row, |v| v), other => return unread(other)),
        }
        Ok(())
    }

    /// Appends the numbers to elements. Doubles round or saturate, integers wrap; what is not zero is true.
    fn write(&self, to: &mut Data) -> OpResult<()> {
        fn truths<W: Arithmetic>(to: &mut Vec<bool>, from: &[W]) {
            write(to, from, |v| v != W::ZERO);
        }
        match (self, to) {
            (from, Data::Bool(to)) => wide!(from, v => truths(to, v)),
            (Self::F32(from), to) => of_types!([F32 F16 Bf16] to, to => write(to, from, Number::narrow),
                other => return unread(other)),
            (Self::F64(from), to) => {
                numbers!(to, to => write(to, from, Number::from_f64), other => return unread(other))
            }
            (Self::I64(from), to) => of_types!([I8 I16 I32 I64 U8 U16 U32 U64] to,
                to => write(to, from, Number::from_i64), other => return unread(other)),
            (Self::U64(from), to) => of_types!([U64] to, to => write(to, from, |v| v), other => return unread(other)),
        }
        Ok(())
    }

    /// As an array.
    pub fn array(&self, dims: impl Into<Vec<usize>>, element: ElementType) -> OpResult<Array> {
        let mut data = Data::with_room(element, self.len())?;
        self.write(&mut data)?;
        Ok(Array::new(dims, data).expect("as many elements as the dimensions make"))
    }
}

fn unread(other: ElementType) -> OpResult<()> {
    refuse!("elements of type {other}, but numbers are needed")
}

fn no_room(len: usize) -> super::OpError {
    super::OpError::new(format!("no memory for {len} numbers"))
}

/// `f` of rows of the elements, computed in `domain`, as elements of a type.
pub(crate) fn map(x: &Array, domain: Domain, to: ElementType, f: &dyn Fn(&mut Wide)) -> OpResult<Array> {
    let mut data = Data::with_room(to, x.len())?;
    let mut row = Wide::new(domain);
    for start in (0..x.len()).step_by(ROW) {
        row.clear();
        row.read(x.data(), (start as isize, 1, ROW.min(x.len() - start)))?;
        f(&mut row);
        row.write(&mut data)?;
    }
    Ok(Array::new(x.dims(), data).expect("as many elements as before"))
}

/// `f` of rows of two broadcast arrays: it replaces the first one's numbers by the results.
pub(crate) fn zip(
    a: &Array,
    b: &Array,
    domain: Domain,
    to: ElementType,
    f: &dyn Fn(&mut Wide, &Wide),
) -> OpResult<Array> {
    let (dims, rows) = rows_of_two(a.dims(), b.dims())?;
    let mut data = Data::with_room(to, checked_count(&dims)?)?;
    let (mut x, mut y) = (Wide::new(domain), Wide::new(domain));
    let mut flush = |x: &mut Wide, y: &mut Wide| {
        f(x, y);
        x.write(&mut data)?;
        x.clear();
        y.clear();
        Ok(())
    };
    // Short rows are computed on together.
    for (starts, strides, len) in rows {
        let mut done = 0;
        while done < len {
            let n = (len - done).min(ROW - x.len());
            let at = |i: usize| (starts[i] + done as isize * strides[i], strides[i], n);
            x.read(a.data(), at(0))?;
            y.read(b.data(), at(1))?;
            done += n;
            if x.len() == ROW {
                flush(&mut x, &mut y)?;
            }
        }
    }
    flush(&mut x, &mut y)?;
    Ok(Array::new(dims, data).expect("as many elements as the dimensions make"))
}

/// A function of two rows in each of the four types.
#[derive(Debug)]
pub(crate) struct Binary {
    pub f32: fn(&mut [f32], &[f32]),
    pub f64: fn(&mut [f64], &[f64]),
    pub i64: fn(&mut [i64], &[i64]),
    pub u64: fn(&mut [u64], &[u64]),
}

impl Binary {
    pub fn run(&self, a: &mut Wide, b: &Wide) {
        match (a, b) {
            (Wide::F32(a), Wide::F32(b)) => (self.f32)(a, b),
            (Wide::F64(a), Wide::F64(b)) => (self.f64)(a, b),
            (Wide::I64(a), Wide::I64(b)) => (self.i64)(a, b),
            (Wide::U64(a), Wide::U64(b)) => (self.u64)(a, b),
            _ => unreachable!("rows of one type"),
        }
    }
}

/// The function of two numbers as a [`Binary`].
macro_rules! binary {
    (|$a:ident, $b:ident| $body:expr) => {
        $crate::ops::wide::binary!(@of |$a, $b| $body, f32 f64 i64 u64)
    };
    (@of |$a:ident, $b:ident| $body:expr, $($t:ident)*) => {
        $crate::ops::wide::Binary {
            $($t: |a: &mut [$t], b: &[$t]| {
                for (a, &$b) in a.iter_mut().zip(b) {
                    let $a = *a;
                    *a = $body;
                }
            },)*
        }
    };
}
pub(crate) use binary;
