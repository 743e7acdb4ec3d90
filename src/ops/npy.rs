//! NumPy's files of one array.
//!
//! Source: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>, versions 1 to 3.

use super::error::{OpResult, refuse};
use super::{Array, Data, ElementType};

const MAGIC: &[u8] = b"\x93NUMPY";

/// NumPy's names of the element types, little-endian.
const NAMES: [(&str, ElementType); 12] = [
    ("<f4", ElementType::F32),
    ("<f8", ElementType::F64),
    ("<f2", ElementType::F16),
    ("|i1", ElementType::I8),
    ("<i2", ElementType::I16),
    ("<i4", ElementType::I32),
    ("<i8", ElementType::I64),
    ("|u1", ElementType::U8),
    ("<u2", ElementType::U16),
    ("<u4", ElementType::U32),
    ("<u8", ElementType::U64),
    ("|b1", ElementType::Bool),
];

/// The array of a `.npy` file.
///
/// # Errors
///
/// If the bytes are no such file, or it holds big-endian, text, or structured elements.
///
/// ```
/// use swath::ops::{Array, npy};
///
/// let array = Array::vector(vec![1.0f32, 2.0]);
/// assert_eq!(npy::read(&npy::write(&array)?)?, array);
/// # Ok::<(), swath::ops::OpError>(())
/// ```
pub fn read(bytes: &[u8]) -> OpResult<Array> {
    let Some(rest) = bytes.strip_prefix(MAGIC) else { refuse!("no .npy file: it does not start with \\x93NUMPY") };
    let (header, data) = match rest {
        [1, _, a, b, rest @ ..] => split(rest, usize::from(u16::from_le_bytes([*a, *b])))?,
        [2 | 3, _, a, b, c, d, rest @ ..] => split(rest, u32::from_le_bytes([*a, *b, *c, *d]) as usize)?,
        [version, ..] => refuse!("version {version} of .npy files, but 1 to 3 are known"),
        [] => refuse!("the file ends within its header"),
    };
    let name = quoted(value(header, "'descr'")?)?;
    let Some(&(_, element)) = NAMES.iter().find(|(known, _)| *known == name) else {
        refuse!("elements of type {name:?}");
    };
    let order = value(header, "'fortran_order'")?;
    let dims = dims(value(header, "'shape'")?)?;
    let elements = super::room::count(&dims);
    if elements.and_then(|n| element.packed_bytes(n)) != Some(data.len()) {
        refuse!("{} bytes of {element} elements, which do not make {dims:?}", data.len());
    }
    let data = Data::from_le_bytes(element, data)?;
    let array = |dims: Vec<usize>| Array::new(dims, data).expect("the lengths agree");
    if !order.starts_with("True") {
        return Ok(array(dims));
    }
    // Fortran's order is C's of the dimensions reversed.
    let reversed: Vec<usize> = dims.iter().rev().copied().collect();
    let order: Vec<usize> = (0..dims.len()).rev().collect();
    super::view::View::of(&reversed).permute(&order).array(&array(reversed))
}

fn split(rest: &[u8], len: usize) -> OpResult<(&str, &[u8])> {
    match rest.split_at_checked(len).map(|(header, data)| (std::str::from_utf8(header), data)) {
        Some((Ok(header), data)) => Ok((header, data)),
        _ => refuse!("a header of {len} bytes, which the file does not have"),
    }
}

/// What stands behind a key.
fn value<'h>(header: &'h str, key: &str) -> OpResult<&'h str> {
    match header.split_once(key).and_then(|(_, rest)| rest.trim_start().strip_prefix(':')) {
        Some(rest) => Ok(rest.trim_start()),
        None => refuse!("the header {header:?} has no {key}"),
    }
}

fn quoted(value: &str) -> OpResult<&str> {
    match value.strip_prefix('\'').and_then(|rest| rest.split_once('\'')) {
        Some((name, _)) => Ok(name),
        None => refuse!("elements of type {value:?}"),
    }
}

fn dims(value: &str) -> OpResult<Vec<usize>> {
    let inside = value.strip_prefix('(').and_then(|rest| rest.split_once(')'));
    let Some((inside, _)) = inside else { refuse!("the shape {value:?}") };
    let parse = |dim: &str| match dim.trim().parse() {
        Ok(dim) => Ok(dim),
        Err(_) => refuse!("the dimension {dim:?}"),
    };
    inside.split(',').filter(|dim| !dim.trim().is_empty()).map(parse).collect()
}

/// An array as a `.npy` file.
///
/// # Errors
///
/// If NumPy has no such elements: text, and `bfloat16`.
pub fn write(array: &Array) -> OpResult<Vec<u8>> {
    let Some((name, _)) = NAMES.iter().find(|(_, element)| *element == array.element()) else {
        refuse!("elements of type {}", array.element());
    };
    let dims: String = array.dims().iter().map(|d| format!("{d}, ")).collect();
    let mut header = format!("{{'descr': '{name}', 'fortran_order': False, 'shape': ({}), }}", dims.trim_end());
    // The data starts at a multiple of 64 bytes, behind a line's end.
    let start = MAGIC.len() + 4;
    header.push_str(&" ".repeat((start + header.len() + 1).next_multiple_of(64) - start - header.len() - 1));
    header.push('\n');
    let Ok(len) = u16::try_from(header.len()) else { refuse!("a shape of {} dimensions", array.rank()) };
    let mut bytes = [MAGIC, &[1, 0], &len.to_le_bytes(), header.as_bytes()].concat();
    bytes.extend(array.data().to_le_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_they_were_written() {
        for array in [
            Array::of([2, 0, 3], Vec::<f32>::new()),
            Array::scalar(7i64),
            Array::of([2, 3], (0..6).map(|i| i as f64).collect()),
            Array::vector(vec![true, false]),
            Array::vector(vec![half::f16::from_f32(1.5)]),
        ] {
            let bytes = write(&array).unwrap();
            assert_eq!(read(&bytes), Ok(array));
            (0..bytes.len().min(200)).for_each(|end| drop(read(&bytes[..end])));
        }
        assert!(write(&Array::vector(vec![String::new()])).is_err());
    }

    #[test]
    fn fortran_order_is_turned() {
        let header = "{'descr': '<i4', 'fortran_order': True, 'shape': (2, 3), }\n";
        let mut bytes = [MAGIC, &[1, 0], &(header.len() as u16).to_le_bytes(), header.as_bytes()].concat();
        bytes.extend([1i32, 4, 2, 5, 3, 6].iter().flat_map(|v| v.to_le_bytes()));
        assert_eq!(read(&bytes), Ok(Array::of([2, 3], vec![1i32, 2, 3, 4, 5, 6])));
    }

    #[test]
    fn other_files_are_refused() {
        assert_eq!(read(b"PK").unwrap_err().to_string(), "no .npy file: it does not start with \\x93NUMPY");
        let header = "{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }";
        let bytes = [MAGIC, &[1, 0], &(header.len() as u16).to_le_bytes(), header.as_bytes(), &[0; 4]].concat();
        assert_eq!(read(&bytes).unwrap_err().to_string(), "elements of type \">f4\"");
    }
}
