//! Gzip with any number of members.

use std::io::{BufRead, Error, ErrorKind, Read, Result};

use flate2::bufread::GzDecoder;

/// Decompresses gzip's members one after the other, as `gzip -d` does: `cat a.gz b.gz` is the content of both
/// (RFC 1952, section 2.2). Zeros behind a member, with which tapes and some archives fill their blocks, are passed over;
/// anything else there is an error.
pub(crate) struct Members<R>(State<R>);

enum State<R> {
    /// Inside a member.
    Member(GzDecoder<R>),
    /// Behind the last one. Nothing while a decoder is being changed for the next.
    End,
}

impl<R: BufRead> Members<R> {
    /// `source` starts with a member.
    pub fn new(source: R) -> Self {
        Self(State::Member(GzDecoder::new(source)))
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        loop {
            let State::Member(decoder) = &mut self.0 else { return Ok(0) };
            match decoder.read(out)? {
                0 if !out.is_empty() => {}
                n => return Ok(n),
            }
            let State::Member(decoder) = std::mem::replace(&mut self.0, State::End) else { return Ok(0) };
            let mut source = decoder.into_inner();
            match first_other_than_zero(&mut source)? {
                None => return Ok(0),
                Some(0x1f) => self.0 = State::Member(GzDecoder::new(source)),
                Some(byte) => {
                    let what = format!("behind a gzip member comes {byte:#04x}, neither zeros nor another member");
                    return Err(Error::new(ErrorKind::InvalidData, what));
                }
            }
        }
    }
}

/// Passes over zeros. The byte behind them, which is still to be read, or nothing at the end.
fn first_other_than_zero(source: &mut impl BufRead) -> Result<Option<u8>> {
    loop {
        let bytes = match source.fill_buf() {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            bytes => bytes?,
        };
        if bytes.is_empty() {
            return Ok(None);
        }
        let zeros = bytes.iter().take_while(|b| **b == 0).count();
        let other = bytes.get(zeros).copied();
        source.consume(zeros);
        if other.is_some() {
            return Ok(other);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Write};

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn member(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn read(bytes: &[u8], capacity: usize) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        Members::new(BufReader::with_capacity(capacity, bytes)).read_to_end(&mut all)?;
        Ok(all)
    }

    #[test]
    fn all_members_are_read_and_zeros_are_passed_over() {
        let (a, b, none) = (member(b"one, "), member(b"two"), member(b""));
        // A buffer of a few bytes ends within headers, trailers and zeros.
        for capacity in [1, 7, 4096] {
            for (parts, content) in [
                (vec![&a[..]], "one, "),
                (vec![&a, &b], "one, two"),
                (vec![&a, &none, &b], "one, two"),
                (vec![&none], ""),
                (vec![&a, &[0; 1000]], "one, "),
                (vec![&a, &[0], &b, &[0; 511]], "one, two"),
            ] {
                assert_eq!(read(&parts.concat(), capacity).unwrap(), content.as_bytes());
            }
        }
    }

    #[test]
    fn what_is_cut_off_or_foreign_is_an_error() {
        let two = [member(b"one, "), member(b"two")].concat();
        for len in 0..two.len() {
            // Only between the members does the file look whole.
            assert_eq!(read(&two[..len], 4096).is_ok(), len == member(b"one, ").len(), "{len}");
        }
        for foreign in [&b"x"[..], b"\0\0x", b"\x1f", b"\x1f\x8c"] {
            assert!(read(&[&two[..], foreign].concat(), 4096).is_err(), "{foreign:?}");
        }
        let mut damaged = two.clone();
        damaged[12] ^= 1;
        assert!(read(&damaged, 4096).is_err());
    }
}
