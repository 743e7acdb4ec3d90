//! Arrays of any element type and any number of dimensions.

use std::fmt;

use half::{bf16, f16};

use super::call::{OpResult, filled, room};

/// A type that elements can have.
pub trait Element: Clone + Default + PartialEq + fmt::Debug + Send + Sync + 'static {
    /// Its name among the types.
    const TYPE: ElementType;
    /// Elements as data of an array.
    fn wrap(elements: Vec<Self>) -> Data;
    /// The elements, if they are of this type.
    fn unwrap(data: &Data) -> Option<&[Self]>;
}

/// One list of the element types: name, Rust type, ONNX's number, ONNX's name.
macro_rules! element_types {
    ($($(#[$doc:meta])* $name:ident $rust:ty, $code:literal, $text:literal;)*) => {
        /// The types of elements.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ElementType { $($(#[$doc])* $name,)* }

        impl ElementType {
            /// Every type.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// ONNX's number of the type.
            pub fn code(self) -> i64 {
                match self { $(Self::$name => $code,)* }
            }

            /// The type of ONNX's number; `None` if this crate lacks it.
            pub fn from_code(code: i64) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }

            /// ONNX's name, such as `float`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Bytes of an element in memory.
            pub fn bytes(self) -> usize {
                match self { $(Self::$name => size_of::<$rust>(),)* }
            }
        }

        /// Elements of one type.
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub enum Data { $($(#[$doc])* $name(Vec<$rust>),)* }

        $(impl Element for $rust {
            const TYPE: ElementType = ElementType::$name;
            fn wrap(elements: Vec<Self>) -> Data { Data::$name(elements) }
            fn unwrap(data: &Data) -> Option<&[Self]> {
                match data { Data::$name(v) => Some(v), _ => None }
            }
        })*

        impl Data {
            /// The type of the elements.
            pub fn element(&self) -> ElementType {
                match self { $(Self::$name(_) => ElementType::$name,)* }
            }

            /// No elements, of a type.
            pub fn new(element: ElementType) -> Self {
                match element { $(ElementType::$name => Self::$name(Vec::new()),)* }
            }

            /// Zeros, `false`, or empty strings.
            ///
            /// # Errors
            ///
            /// If there is no memory for them.
            pub fn zeros(element: ElementType, len: usize) -> OpResult<Self> {
                Ok(match element { $(ElementType::$name => Self::$name(filled(Default::default(), len)?),)* })
            }
        }

        /// Runs the same code on elements of any type: `each!(data, v => v.len())`.
        macro_rules! each {
            ($data:expr, $v:ident => $body:expr) => {
                match $data { $($crate::ops::Data::$name($v) => $body,)* }
            };
        }
        pub(crate) use each;
    };
}

element_types! {
    /// 32-bit floats.
    F32 f32, 1, "float";
    /// Unsigned bytes.
    U8 u8, 2, "uint8";
    /// Signed bytes.
    I8 i8, 3, "int8";
    /// Unsigned 16-bit integers.
    U16 u16, 4, "uint16";
    /// Signed 16-bit integers.
    I16 i16, 5, "int16";
    /// Signed 32-bit integers.
    I32 i32, 6, "int32";
    /// Signed 64-bit integers: shapes and indices.
    I64 i64, 7, "int64";
    /// Text.
    Str String, 8, "string";
    /// Truth values.
    Bool bool, 9, "bool";
    /// 16-bit floats of IEEE 754.
    F16 f16, 10, "float16";
    /// 64-bit floats.
    F64 f64, 11, "double";
    /// Unsigned 32-bit integers.
    U32 u32, 12, "uint32";
    /// Unsigned 64-bit integers.
    U64 u64, 13, "uint64";
    /// 16-bit floats with the exponent of 32-bit ones.
    Bf16 bf16, 16, "bfloat16";
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl ElementType {
    /// Whether it is a type of floats.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::Bf16 | Self::F32 | Self::F64)
    }

    /// Whether it is a type of integers.
    pub fn is_integer(self) -> bool {
        !self.is_float() && !matches!(self, Self::Bool | Self::Str)
    }

    /// Bytes that elements take in a file; `None` if that overflows.
    pub fn packed_bytes(self, elements: usize) -> Option<usize> {
        elements.checked_mul(self.bytes())
    }
}

impl Data {
    /// The number of elements.
    pub fn len(&self) -> usize {
        each!(self, v => v.len())
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as little-endian bytes; text gives nothing.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        fn all<T: Stored>(v: &[T]) -> Vec<u8> {
            let mut bytes = vec![0; v.len() * T::BYTES];
            put_all(v, &mut bytes);
            bytes
        }
        each!(self, v => all(v))
    }

    /// Elements from little-endian bytes, at any alignment. What is left over is left out; text has no such form and gives
    /// nothing.
    ///
    /// # Errors
    ///
    /// If there is no memory for them.
    pub fn from_le_bytes(element: ElementType, bytes: &[u8]) -> OpResult<Self> {
        fn all<T: Stored>(v: &mut Vec<T>, bytes: &[u8]) -> OpResult<()> {
            if let Some(len) = bytes.len().checked_div(T::BYTES) {
                *v = room(len)?;
                v.extend(bytes.chunks_exact(T::BYTES).map(T::get));
            }
            Ok(())
        }
        let mut data = Self::new(element);
        each!(&mut data, v => all(v, bytes)?);
        Ok(data)
    }

    /// Overwrites the first of the bytes by the elements, as [`Data::to_le_bytes`] has them.
    #[cfg(feature = "onnx")]
    pub(crate) fn put_le_bytes(&self, bytes: &mut [u8]) {
        each!(self, v => put_all(v, bytes));
    }

    /// Overwrites the elements by those that the first of the bytes hold.
    #[cfg(feature = "onnx")]
    pub(crate) fn get_le_bytes(&mut self, bytes: &[u8]) {
        fn all<T: Stored>(v: &mut [T], bytes: &[u8]) {
            if T::BYTES > 0 {
                v.iter_mut().zip(bytes.chunks_exact(T::BYTES)).for_each(|(v, from)| *v = T::get(from));
            }
        }
        each!(self, v => all(v, bytes));
    }
}

fn put_all<T: Stored>(v: &[T], bytes: &mut [u8]) {
    if T::BYTES > 0 {
        v.iter().zip(bytes.chunks_exact_mut(T::BYTES)).for_each(|(v, to)| v.put(to));
    }
}

/// An element as little-endian bytes.
trait Stored: Sized {
    /// How many; 0 for text, which has no such form.
    const BYTES: usize = size_of::<Self>();
    /// Writes so many.
    fn put(&self, to: &mut [u8]);
    /// Reads so many.
    fn get(from: &[u8]) -> Self;
}

macro_rules! stored {
    ($($number:ty)*) => {
        $(impl Stored for $number {
            fn put(&self, to: &mut [u8]) {
                to.copy_from_slice(&self.to_le_bytes());
            }

            fn get(from: &[u8]) -> Self {
                Self::from_le_bytes(from.try_into().expect("as many bytes as an element has"))
            }
        })*
    };
}

stored! { f16 bf16 f32 f64 i8 i16 i32 i64 u8 u16 u32 u64 }

impl Stored for bool {
    fn put(&self, to: &mut [u8]) {
        to[0] = (*self).into();
    }

    fn get(from: &[u8]) -> Self {
        from[0] != 0
    }
}

impl Stored for String {
    const BYTES: usize = 0;

    fn put(&self, _: &mut [u8]) {}

    fn get(_: &[u8]) -> Self {
        Self::new()
    }
}

/// An array: elements with their dimensions, the last dimension contiguous.
///
/// ```
/// use swath::ops::Array;
///
/// let shape = Array::vector(vec![1i64, 3, 224, 224]);
/// assert_eq!(shape.dims(), [4]);
/// assert_eq!(shape.elements::<i64>(), Some(&[1, 3, 224, 224][..]));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    dims: Vec<usize>,
    data: Data,
}

impl Array {
    /// Elements with dimensions; `None` if their number is another one.
    pub fn new(dims: impl Into<Vec<usize>>, data: Data) -> Option<Self> {
        let dims = dims.into();
        (count(&dims) == Some(data.len())).then_some(Self { dims, data })
    }

    /// Elements with dimensions that are known to agree.
    ///
    /// # Panics
    ///
    /// If they do not.
    pub(crate) fn of<T: Element>(dims: impl Into<Vec<usize>>, elements: Vec<T>) -> Self {
        Self::new(dims, T::wrap(elements)).expect("as many elements as the dimensions make")
    }

    /// An array of one dimension.
    pub fn vector<T: Element>(elements: Vec<T>) -> Self {
        Self::of([elements.len()], elements)
    }

    /// An array without dimensions.
    pub fn scalar<T: Element>(element: T) -> Self {
        Self::of([], vec![element])
    }

    /// The dimensions.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The number of dimensions.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The elements, of whatever type.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// The elements, to be overwritten by as many of the same type.
    #[cfg(feature = "onnx")]
    pub(crate) fn data_mut(&mut self) -> &mut Data {
        &mut self.data
    }

    /// The elements, of whatever type, without the dimensions.
    pub fn into_data(self) -> Data {
        self.data
    }

    /// The type of the elements.
    pub fn element(&self) -> ElementType {
        self.data.element()
    }

    /// The elements, if they are of the type `T`.
    pub fn elements<T: Element>(&self) -> Option<&[T]> {
        T::unwrap(&self.data)
    }

    /// The same elements with other dimensions; `None` if those make another number of elements.
    pub fn with_dims(self, dims: impl Into<Vec<usize>>) -> Option<Self> {
        Self::new(dims, self.data)
    }
}

/// The number of elements that dimensions make; `None` if it does not fit. As in NumPy, zeros make no room for others that do not fit:
/// the product of any of the dimensions does.
pub(crate) fn count(dims: &[usize]) -> Option<usize> {
    let others = dims.iter().filter(|&&d| d != 0).try_fold(1usize, |n, &d| n.checked_mul(d))?;
    Some(if dims.contains(&0) { 0 } else { others })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_make_no_room_for_dimensions_that_do_not_fit() {
        assert_eq!([count(&[2, 3]), count(&[7, 0]), count(&[])], [Some(6), Some(0), Some(1)]);
        assert_eq!([count(&[1 << 40, 1 << 40]), count(&[1 << 40, 0, 1 << 40])], [None, None]);
        assert!(Array::new([1 << 40, 0, 1 << 40], Data::F32(Vec::new())).is_none());
    }
}
