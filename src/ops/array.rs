//! Arrays of any element type and any number of dimensions.

use std::fmt;

use half::slice::HalfFloatSliceExt as _;
use half::vec::HalfBitsVecExt as _;
use half::{bf16, f16};

use super::error::OpResult;
use super::room::{checked_count, count, filled, room};

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

            /// No elements, but room for so many.
            pub(crate) fn with_room(element: ElementType, len: usize) -> OpResult<Self> {
                Ok(match element { $(ElementType::$name => Self::$name(room(len)?),)* })
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
        let mut bytes =
            vec![0; if self.element() == ElementType::Str { 0 } else { self.len() * self.element().bytes() }];
        self.put_le_bytes(&mut bytes);
        bytes
    }

    /// Elements from little-endian bytes, at any alignment. What is left over is left out; text has no such form and gives
    /// nothing.
    ///
    /// # Errors
    ///
    /// If there is no memory for them.
    pub fn from_le_bytes(element: ElementType, bytes: &[u8]) -> OpResult<Self> {
        fn all<const N: usize, T>(bytes: &[u8], get: fn([u8; N]) -> T) -> OpResult<Vec<T>> {
            let (whole, _) = bytes.as_chunks::<N>();
            let mut all = room(whole.len())?;
            all.extend(whole.iter().map(|&bytes| get(bytes)));
            Ok(all)
        }
        Ok(match (element, element.bytes()) {
            (ElementType::Str, _) => Self::new(element),
            (_, 1) => u8::data(all(bytes, u8::from_le_bytes)?, element),
            (_, 2) => u16::data(all(bytes, u16::from_le_bytes)?, element),
            (_, 4) => u32::data(all(bytes, u32::from_le_bytes)?, element),
            _ => u64::data(all(bytes, u64::from_le_bytes)?, element),
        })
    }

    /// Overwrites the first of the bytes by the elements, as [`Data::to_le_bytes`] has them.
    pub(crate) fn put_le_bytes(&self, bytes: &mut [u8]) {
        fn all<const N: usize, T: Copy>(v: &[T], bytes: &mut [u8], put: fn(T) -> [u8; N]) {
            let (whole, _) = bytes.as_chunks_mut::<N>();
            whole.iter_mut().zip(v).for_each(|(to, &v)| *to = put(v));
        }
        match self.bits() {
            Bits::B8(v) => all(v, bytes, u8::to_le_bytes),
            Bits::B16(v) => all(v, bytes, u16::to_le_bytes),
            Bits::B32(v) => all(v, bytes, u32::to_le_bytes),
            Bits::B64(v) => all(v, bytes, u64::to_le_bytes),
            Bits::Text(_) => {}
        }
    }

    /// The elements as bits of their width.
    pub(crate) fn bits(&self) -> Bits<'_> {
        match self {
            Self::U8(v) => Bits::B8(v),
            Self::I8(v) => Bits::B8(bytemuck::cast_slice(v)),
            Self::Bool(v) => Bits::B8(bytemuck::cast_slice(v)),
            Self::U16(v) => Bits::B16(v),
            Self::I16(v) => Bits::B16(bytemuck::cast_slice(v)),
            Self::F16(v) => Bits::B16(v.reinterpret_cast()),
            Self::Bf16(v) => Bits::B16(v.reinterpret_cast()),
            Self::U32(v) => Bits::B32(v),
            Self::I32(v) => Bits::B32(bytemuck::cast_slice(v)),
            Self::F32(v) => Bits::B32(bytemuck::cast_slice(v)),
            Self::U64(v) => Bits::B64(v),
            Self::I64(v) => Bits::B64(bytemuck::cast_slice(v)),
            Self::F64(v) => Bits::B64(bytemuck::cast_slice(v)),
            Self::Str(v) => Bits::Text(v),
        }
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

/// Elements of any type as bits: what only moves elements is compiled for each width, not for each type.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bits<'a> {
    B8(&'a [u8]),
    B16(&'a [u16]),
    B32(&'a [u32]),
    B64(&'a [u64]),
    Text(&'a [String]),
}

/// A type of [`Bits`].
pub(crate) trait Moved: Element {
    /// The bits, if they are of this width.
    fn of(bits: Bits<'_>) -> Option<&[Self]>;
    /// Bits as elements of a type of this width.
    fn data(bits: Vec<Self>, element: ElementType) -> Data;
}

/// `$code` makes elements of another type from the bits `$v`.
macro_rules! moved {
    ($($t:ty, $bits:ident, $own:ident, $v:ident, $($name:ident => $code:expr),*;)*) => {
        $(impl Moved for $t {
            fn of(bits: Bits<'_>) -> Option<&[Self]> {
                match bits { Bits::$bits(v) => Some(v), _ => None }
            }

            fn data($v: Vec<Self>, element: ElementType) -> Data {
                match element {
                    $(ElementType::$name => Data::$name($code),)*
                    _ => Data::$own($v),
                }
            }
        })*
    };
}

moved! {
    u8, B8, U8, v, I8 => bytemuck::cast_vec(v), Bool => v.into_iter().map(|v| v != 0).collect();
    u16, B16, U16, v, I16 => bytemuck::cast_vec(v), F16 => v.reinterpret_into(), Bf16 => v.reinterpret_into();
    u32, B32, U32, v, I32 => bytemuck::cast_vec(v), F32 => bytemuck::cast_vec(v);
    u64, B64, U64, v, I64 => bytemuck::cast_vec(v), F64 => bytemuck::cast_vec(v);
    String, Text, Str, v, ;
}

/// An array of elements of the same type as those of `$data`, moved as bits: `moves!(data, v => (dims, elements))`.
macro_rules! moves {
    ($data:expr, $v:ident => $body:expr) => {{
        let data = $data;
        let element = data.element();
        let (dims, data) = match data.bits() {
            $crate::ops::array::Bits::B8($v) => $crate::ops::array::of_bits($body, element),
            $crate::ops::array::Bits::B16($v) => $crate::ops::array::of_bits($body, element),
            $crate::ops::array::Bits::B32($v) => $crate::ops::array::of_bits($body, element),
            $crate::ops::array::Bits::B64($v) => $crate::ops::array::of_bits($body, element),
            $crate::ops::array::Bits::Text($v) => $crate::ops::array::of_bits($body, element),
        };
        $crate::ops::Array::new(dims, data).expect("as many elements as the dimensions make")
    }};
}
pub(crate) use moves;

pub(crate) fn of_bits<T: Moved>((dims, bits): (Vec<usize>, Vec<T>), element: ElementType) -> (Vec<usize>, Data) {
    (dims, T::data(bits, element))
}

/// An element as little-endian bytes.
#[cfg(feature = "onnx")]
trait Stored: Sized {
    /// How many; 0 for text, which has no such form.
    const BYTES: usize = size_of::<Self>();
    /// Reads so many.
    fn get(from: &[u8]) -> Self;
}

#[cfg(feature = "onnx")]
macro_rules! stored {
    ($($number:ty)*) => {
        $(impl Stored for $number {
            fn get(from: &[u8]) -> Self {
                Self::from_le_bytes(from.try_into().expect("as many bytes as an element has"))
            }
        })*
    };
}

#[cfg(feature = "onnx")]
stored! { f16 bf16 f32 f64 i8 i16 i32 i64 u8 u16 u32 u64 }

#[cfg(feature = "onnx")]
impl Stored for bool {
    fn get(from: &[u8]) -> Self {
        from[0] != 0
    }
}

#[cfg(feature = "onnx")]
impl Stored for String {
    const BYTES: usize = 0;

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

/// An array of zeros.
pub(crate) fn zeros(dims: &[usize], element: ElementType) -> OpResult<Array> {
    let len = checked_count(dims)?;
    Ok(Array::new(dims, Data::zeros(element, len)?).expect("as many elements as the dimensions make"))
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
