//! IDX files, plain and in gzip.

use swath::data::Idx;

/// Reads the bytes as a file.
pub fn run(bytes: &[u8]) {
    match Idx::from_bytes(bytes) {
        Ok(idx) => assert_eq!(idx.bytes().len(), idx.dims().iter().product::<usize>()),
        Err(e) => assert_eq!(e.to_string().lines().count(), 1, "{e}"),
    }
}
