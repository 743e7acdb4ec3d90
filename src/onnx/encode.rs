//! Protobuf's wire format, written.
//!
//! Source: <https://protobuf.dev/programming-guides/encoding/>.

/// A message: its fields, one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    /// The fields.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, number: u32, wire: u8) {
        self.varint(u64::from(number) << 3 | u64::from(wire));
    }

    /// A signed number.
    pub fn int(&mut self, number: u32, value: i64) {
        self.key(number, 0);
        self.varint(value as u64);
    }

    /// Each of some signed numbers.
    pub fn ints(&mut self, number: u32, values: impl IntoIterator<Item = i64>) {
        values.into_iter().for_each(|v| self.int(number, v));
    }

    /// A float.
    pub fn float(&mut self, number: u32, value: f32) {
        self.key(number, 5);
        self.0.extend(value.to_le_bytes());
    }

    /// Key and length of bytes that follow somewhere else.
    pub fn head(&mut self, number: u32, len: usize) {
        self.key(number, 2);
        self.varint(len as u64);
    }

    /// Bytes.
    pub fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.head(number, bytes.len());
        self.0.extend(bytes);
    }

    /// Text.
    pub fn text(&mut self, number: u32, text: &str) {
        self.bytes(number, text.as_bytes());
    }

    /// A message.
    pub fn message(&mut self, number: u32, message: &Message) {
        self.bytes(number, &message.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::wire::{Bytes, Wire};

    #[test]
    fn the_reader_reads_what_was_written() {
        let mut inner = Message::default();
        inner.text(1, "name");
        let mut m = Message::default();
        m.int(1, -1);
        m.int(16, 300);
        m.float(2, 1.5);
        m.message(3, &inner);
        m.ints(4, [0, 127, 128]);
        let bytes = m.into_bytes();
        let mut fields = Bytes::file(&bytes).fields();
        let mut all = Vec::new();
        while let Some(field) = fields.next().unwrap() {
            all.push((field.number, field.wire));
        }
        let Wire::Bytes(message) = all[3].1 else { panic!("{all:?}") };
        assert_eq!(message.fields().next().unwrap().unwrap().text().unwrap(), "name");
        all.remove(3);
        let wire = |v: i64| Wire::Varint(v as u64);
        let floats = Wire::Fixed32(1.5f32.to_bits());
        assert_eq!(all, [(1, wire(-1)), (16, wire(300)), (2, floats), (4, wire(0)), (4, wire(127)), (4, wire(128))]);
    }
}
