//! Weights files: reading any bytes is an error or gives tensors of the stated extents.

use swath::WeightsFile;

/// Reads the bytes as a file.
pub fn run(bytes: &[u8]) {
    let file = match WeightsFile::from_bytes(bytes.to_vec()) {
        Ok(file) => file,
        Err(e) => {
            let text = e.to_string();
            assert!(!text.is_empty() && text.lines().count() == 1, "{text:?}");
            return;
        }
    };
    for name in file.names() {
        let dims = file.dims(name).expect("a name of the file's own");
        if let Ok(tensor) = file.tensor(name) {
            assert_eq!(tensor.dims(), dims);
            assert_eq!(tensor.as_slice().len(), dims.iter().product::<usize>());
            // Half a byte is the smallest element, and its file has them all.
            assert!(tensor.as_slice().len() <= 2 * bytes.len());
        }
    }
    assert!(file.tensor("no tensor has this name \u{1f980}").is_err());
}
