//! Protobuf's wire format: fields of a message, one after the other, each a borrowed piece of the file.
//!
//! A reader never allocates and never recurses. Each call of [`Fields::next`] moves at least one byte on, so a message
//! of `n` bytes has at most `n` fields.
//!
//! Source: <https://protobuf.dev/programming-guides/encoding/>.

use super::error::{OnnxError, Read};

/// A piece of the file, with its place there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bytes<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// How far into the file the first of them is.
    pub offset: usize,
}

/// A field's value, by wire type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(Bytes<'a>),
    Fixed32(u32),
}

/// A field: its number, its value, and where in the file it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field<'a> {
    pub number: u32,
    pub wire: Wire<'a>,
    pub offset: usize,
}

/// The fields of a message in the order of the file.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    message: Bytes<'a>,
    at: usize,
}

impl<'a> Bytes<'a> {
    /// The whole file.
    pub fn file(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// The piece as a message.
    pub fn fields(self) -> Fields<'a> {
        Fields { message: self, at: 0 }
    }

    /// The piece as text.
    pub fn text(self) -> Read<&'a str> {
        std::str::from_utf8(self.bytes)
            .map_err(|e| OnnxError::new(self.offset + e.valid_up_to(), "a name that is not UTF-8"))
    }
}

impl<'a> Fields<'a> {
    fn offset(&self) -> usize {
        self.message.offset + self.at
    }

    fn varint(&mut self) -> Read<u64> {
        let start = self.offset();
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let Some(&byte) = self.message.bytes.get(self.at) else {
                return Err(OnnxError::new(self.offset(), "the message ends within a number"));
            };
            self.at += 1;
            // The tenth byte holds bit 63 alone; protobuf drops what lies above.
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(OnnxError::new(start, "a number of more than 10 bytes"))
    }

    fn take(&mut self, len: u64) -> Read<Bytes<'a>> {
        let offset = self.offset();
        let rest = &self.message.bytes[self.at..];
        let Some(bytes) = usize::try_from(len).ok().and_then(|len| rest.get(..len)) else {
            return Err(OnnxError::new(offset, format!("a field of {len} bytes, but {} are left", rest.len())));
        };
        self.at += bytes.len();
        Ok(Bytes { bytes, offset })
    }

    fn fixed<const N: usize>(&mut self) -> Read<[u8; N]> {
        let piece = self.take(N as u64)?;
        Ok(piece.bytes.try_into().expect("a piece of the length asked for"))
    }

    /// The next field; `None` at the end.
    pub fn next(&mut self) -> Read<Option<Field<'a>>> {
        if self.at == self.message.bytes.len() {
            return Ok(None);
        }
        let offset = self.offset();
        let key = self.varint()?;
        let number = match u32::try_from(key >> 3) {
            Ok(number) if (1..1 << 29).contains(&number) => number,
            _ => return Err(OnnxError::new(offset, format!("field number {}, but 1 to 536870911 exist", key >> 3))),
        };
        let wire = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.fixed()?)),
            2 => {
                let len = self.varint()?;
                Wire::Bytes(self.take(len)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.fixed()?)),
            other => return Err(OnnxError::new(offset, format!("wire type {other}, but ONNX has only 0, 1, 2 and 5"))),
        };
        Ok(Some(Field { number, wire, offset }))
    }
}

impl<'a> Field<'a> {
    fn wrong(&self, wanted: &str) -> OnnxError {
        let is = match self.wire {
            Wire::Varint(_) => "a number",
            Wire::Fixed64(_) => "8 bytes",
            Wire::Bytes(_) => "a string of bytes",
            Wire::Fixed32(_) => "4 bytes",
        };
        OnnxError::new(self.offset, format!("field {} is {is}, but should be {wanted}", self.number))
    }

    /// The value as bytes, a message or text.
    pub fn bytes(&self) -> Read<Bytes<'a>> {
        match self.wire {
            Wire::Bytes(piece) => Ok(piece),
            _ => Err(self.wrong("a string of bytes")),
        }
    }

    /// The value as text.
    pub fn text(&self) -> Read<&'a str> {
        self.bytes()?.text()
    }

    /// The value as a signed number.
    pub fn int(&self) -> Read<i64> {
        match self.wire {
            Wire::Varint(value) => Ok(value as i64),
            _ => Err(self.wrong("a number")),
        }
    }

    /// The value as a float.
    pub fn float(&self) -> Read<f32> {
        match self.wire {
            Wire::Fixed32(bits) => Ok(f32::from_bits(bits)),
            _ => Err(self.wrong("4 bytes")),
        }
    }

    /// Calls `each` with every number of a repeated field, packed or not.
    pub fn ints(&self, mut each: impl FnMut(u64)) -> Read<()> {
        match self.wire {
            Wire::Varint(value) => each(value),
            Wire::Bytes(piece) => {
                let mut fields = piece.fields();
                while fields.at < piece.bytes.len() {
                    each(fields.varint()?);
                }
            }
            _ => return Err(self.wrong("numbers")),
        }
        Ok(())
    }

    /// Calls `each` with every float of a repeated field, packed or not.
    pub fn floats(&self, mut each: impl FnMut(f32)) -> Read<()> {
        match self.wire {
            Wire::Fixed32(bits) => each(f32::from_bits(bits)),
            Wire::Bytes(piece) => {
                let (whole, rest) = piece.bytes.as_chunks::<4>();
                if !rest.is_empty() {
                    return Err(OnnxError::new(piece.offset, format!("{} bytes of 4-byte floats", piece.bytes.len())));
                }
                whole.iter().for_each(|&b| each(f32::from_le_bytes(b)));
            }
            _ => return Err(self.wrong("floats")),
        }
        Ok(())
    }

    /// Calls `each` with every double of a repeated field, packed or not.
    pub fn doubles(&self, mut each: impl FnMut(f64)) -> Read<()> {
        match self.wire {
            Wire::Fixed64(bits) => each(f64::from_bits(bits)),
            Wire::Bytes(piece) => {
                let (whole, rest) = piece.bytes.as_chunks::<8>();
                if !rest.is_empty() {
                    return Err(OnnxError::new(piece.offset, format!("{} bytes of 8-byte floats", piece.bytes.len())));
                }
                whole.iter().for_each(|&b| each(f64::from_le_bytes(b)));
            }
            _ => return Err(self.wrong("doubles")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Read<Vec<(u32, Wire<'_>)>> {
        let mut fields = Bytes::file(bytes).fields();
        let mut all = Vec::new();
        while let Some(field) = fields.next()? {
            all.push((field.number, field.wire));
        }
        Ok(all)
    }

    #[test]
    fn each_wire_type_is_read() {
        let bytes = [
            &[0x08, 0x96, 0x01][..],
            &[0x12, 2, b'h', b'i'],
            &[0x1d, 0, 0, 0x80, 0x3f],
            &[0x21, 1, 0, 0, 0, 0, 0, 0, 0],
        ];
        let fields = [
            (1, Wire::Varint(150)),
            (2, Wire::Bytes(Bytes { bytes: b"hi", offset: 5 })),
            (3, Wire::Fixed32(0x3f80_0000)),
            (4, Wire::Fixed64(1)),
        ];
        assert_eq!(all(&bytes.concat()), Ok(fields.to_vec()));
    }

    #[test]
    fn negative_numbers_take_ten_bytes() {
        let bytes = [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(all(&bytes), Ok(vec![(1, Wire::Varint(-1i64 as u64))]));
    }

    #[test]
    fn damage_has_an_offset() {
        for (bytes, message) in [
            (&[0x08][..], "byte 1: the message ends within a number"),
            (&[0x08, 0x80], "byte 2: the message ends within a number"),
            (&[0x08, 1, 0x12, 5, 0], "byte 4: a field of 5 bytes, but 1 are left"),
            (&[0x08, 1, 0x0d, 0, 0], "byte 3: a field of 4 bytes, but 2 are left"),
            (&[0x00], "byte 0: field number 0, but 1 to 536870911 exist"),
            (&[0x0b], "byte 0: wire type 3, but ONNX has only 0, 1, 2 and 5"),
            (&[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1], "byte 1: a number of more than 10 bytes"),
        ] {
            assert_eq!(all(bytes).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn repeated_numbers_are_read_packed_and_one_by_one() {
        let mut seen = Vec::new();
        let mut fields = Bytes::file(&[0x0a, 3, 1, 0x80, 0x01, 0x08, 7]).fields();
        while let Some(field) = fields.next().unwrap() {
            field.ints(|v| seen.push(v)).unwrap();
        }
        assert_eq!(seen, [1, 128, 7]);
    }
}
