//! Constants: where their elements lie in the file, and the elements.

use std::borrow::Cow;

use crate::onnx::error::{OnnxError, Read};
use crate::onnx::external::{External, ExternalPlace};
use crate::onnx::wire::Bytes;
use crate::ops::{Array, Data, ElementType, count};

/// A constant. Its elements stay in the file until [`TensorProto::array`] or [`TensorProto::raw`] asks for them.
#[derive(Debug, Clone)]
pub struct TensorProto<'a> {
    /// Its name; constants in attributes have none.
    pub name: &'a str,
    /// Its dimensions; none for a scalar.
    pub dims: Vec<usize>,
    /// ONNX's number of the type of its elements; see [`TensorProto::element`].
    pub data_type: i64,
    /// Where its elements are, if they are in another file.
    pub external: Option<ExternalPlace<'a>>,
    /// Elements as bytes, if the file has them so.
    raw: Option<Bytes<'a>>,
    /// The message, for elements that are stored as numbers.
    message: Bytes<'a>,
}

impl<'a> TensorProto<'a> {
    /// Reads a file that holds one tensor, such as the `.pb` files of ONNX's own tests.
    ///
    /// # Errors
    ///
    /// [`OnnxError`] if the bytes are damaged, or no tensor.
    pub fn read(bytes: &'a [u8]) -> Result<Self, OnnxError> {
        Self::parse(Bytes::file(bytes))
    }

    pub(super) fn parse(message: Bytes<'a>) -> Read<Self> {
        let mut this = Self { name: "", dims: Vec::new(), data_type: 0, external: None, raw: None, message };
        match this.fields(message) {
            Ok(()) => Ok(this),
            Err(e) => Err(e.within(|| format!("tensor `{}`", this.name))),
        }
    }

    fn fields(&mut self, message: Bytes<'a>) -> Read<()> {
        let mut negative = None;
        let (mut entries, mut is_external) = (Vec::new(), false);
        let mut fields = message.fields();
        while let Some(field) = fields.next()? {
            match field.number {
                1 => field.ints(|v| match usize::try_from(v as i64) {
                    Ok(dim) => self.dims.push(dim),
                    Err(_) => negative = negative.or(Some((field.offset, v as i64))),
                })?,
                2 => self.data_type = field.int()?,
                3 => return Err(OnnxError::new(field.offset, "a segment of a tensor, which no version of ONNX uses")),
                8 => self.name = field.text()?,
                9 => self.raw = Some(field.bytes()?),
                13 => entries.push(super::pair(field.bytes()?)?),
                14 => is_external = field.int()? == 1,
                _ => {}
            }
        }
        if let Some((offset, dim)) = negative {
            return Err(OnnxError::new(offset, format!("dimension {dim}, but none can be negative")));
        }
        if self.elements().is_none() {
            return Err(OnnxError::new(message.offset, format!("dimensions {:?} are too many elements", self.dims)));
        }
        if is_external {
            self.external = Some(place(message.offset, &entries)?);
        }
        Ok(())
    }

    /// The number of elements; `None` where it does not fit.
    fn elements(&self) -> Option<usize> {
        count(&self.dims)
    }

    /// How many elements its dimensions make.
    pub fn element_count(&self) -> usize {
        self.elements().unwrap_or(usize::MAX)
    }

    /// The type of its elements; `None` if it is one that this crate lacks.
    pub fn element(&self) -> Option<ElementType> {
        ElementType::from_code(self.data_type)
    }

    /// Where in the file it starts, in bytes.
    pub fn offset(&self) -> usize {
        self.message.offset
    }

    /// Its elements as the file has them: little-endian, at any alignment. `None` if they are stored as numbers or in
    /// another file.
    pub fn raw(&self) -> Option<&'a [u8]> {
        self.raw.map(|piece| piece.bytes)
    }

    /// Its elements, copied out of the file.
    ///
    /// # Errors
    ///
    /// [`OnnxError`] if the type is one that this crate lacks, if there are more or fewer elements than the dimensions ask
    /// for, or if `external` refuses the other file.
    pub fn array(&self, external: &External) -> Result<Array, OnnxError> {
        self.decode(external).map_err(|e| e.within(|| format!("tensor `{}`", self.name)))
    }

    fn decode(&self, external: &External) -> Read<Array> {
        let Some(element) = self.element() else {
            let what = format!("elements of type {}, which this crate lacks", type_name(self.data_type));
            return Err(OnnxError::new(self.message.offset, what));
        };
        let elements = self.element_count();
        let data = match (&self.external, self.raw) {
            (Some(place), _) => {
                let bytes = external.bytes(place, element.packed_bytes(elements)).map_err(|why| {
                    OnnxError::new(self.message.offset, format!("elements in the file {:?}: {why}", place.location))
                })?;
                self.checked_bytes(element, elements, Cow::Owned(bytes))?
            }
            (None, Some(raw)) if element != ElementType::Str && (!raw.bytes.is_empty() || elements == 0) => {
                self.checked_bytes(element, elements, Cow::Borrowed(raw.bytes))?
            }
            _ => self.numbers(element)?,
        };
        if data.len() != elements {
            let what = format!("{} elements, but its dimensions {:?} make {elements}", data.len(), self.dims);
            return Err(OnnxError::new(self.message.offset, what));
        }
        Ok(Array::new(self.dims.clone(), data).expect("the lengths agree"))
    }

    fn checked_bytes(&self, element: ElementType, elements: usize, bytes: Cow<'_, [u8]>) -> Read<Data> {
        let needed = element.packed_bytes(elements);
        if needed != Some(bytes.len()) {
            let what = format!(
                "{} bytes of {element} elements, but its dimensions {:?} make {elements}",
                bytes.len(),
                self.dims
            );
            return Err(OnnxError::new(self.raw.map_or(self.message.offset, |raw| raw.offset), what));
        }
        self.data(element, &bytes)
    }

    fn data(&self, element: ElementType, bytes: &[u8]) -> Read<Data> {
        Data::from_le_bytes(element, bytes).map_err(|e| OnnxError::new(self.message.offset, e.to_string()))
    }

    /// Elements that are stored as numbers, each type in the field that the format has for it.
    fn numbers(&self, element: ElementType) -> Read<Data> {
        use ElementType as T;
        let field_number = match element {
            T::F32 => 4,
            T::I64 => 7,
            T::F64 => 10,
            T::U32 | T::U64 => 11,
            T::Str => 6,
            _ => 5,
        };
        let mut data = Data::new(element);
        let mut codes = Vec::new();
        let mut fields = self.message.fields();
        while let Some(field) = fields.next()? {
            if field.number != field_number {
                continue;
            }
            match &mut data {
                Data::F32(to) => field.floats(|v| to.push(v))?,
                Data::F64(to) => field.doubles(|v| to.push(v))?,
                Data::Str(to) => to.push(String::from_utf8_lossy(field.bytes()?.bytes).into_owned()),
                // What a type of few bits is stored as is a number whose low bits are the element.
                _ => field.ints(|v| codes.push(v))?,
            }
        }
        if codes.is_empty() {
            return Ok(data);
        }
        let width = element.bytes();
        let bytes: Vec<u8> = codes.iter().flat_map(|v| v.to_le_bytes().into_iter().take(width)).collect();
        self.data(element, &bytes)
    }
}

fn place<'a>(at: usize, entries: &[(&'a str, &'a str)]) -> Read<ExternalPlace<'a>> {
    let number = |key: &str, value: &str| {
        value.parse::<u64>().map_err(|_| OnnxError::new(at, format!("external data: {key} is {value:?}, no number")))
    };
    let mut place = ExternalPlace { location: "", offset: 0, length: None };
    for &(key, value) in entries {
        match key {
            "location" => place.location = value,
            "offset" => place.offset = number(key, value)?,
            "length" => place.length = Some(number(key, value)?),
            _ => {}
        }
    }
    match place.location {
        "" => Err(OnnxError::new(at, "external data without a location")),
        _ => Ok(place),
    }
}

/// ONNX's name of a type, for a message.
fn type_name(code: i64) -> String {
    const NAMES: [&str; 27] = [
        "UNDEFINED",
        "FLOAT",
        "UINT8",
        "INT8",
        "UINT16",
        "INT16",
        "INT32",
        "INT64",
        "STRING",
        "BOOL",
        "FLOAT16",
        "DOUBLE",
        "UINT32",
        "UINT64",
        "COMPLEX64",
        "COMPLEX128",
        "BFLOAT16",
        "FLOAT8E4M3FN",
        "FLOAT8E4M3FNUZ",
        "FLOAT8E5M2",
        "FLOAT8E5M2FNUZ",
        "UINT4",
        "INT4",
        "FLOAT4E2M1",
        "FLOAT8E8M0",
        "UINT2",
        "INT2",
    ];
    match usize::try_from(code).ok().and_then(|i| NAMES.get(i)) {
        Some(name) => (*name).to_string(),
        None => format!("number {code}"),
    }
}
