//! Reads the fixtures: reference results from PyTorch, computed in float64 by `tools/scripts/make_fixtures.py`.

use std::path::PathBuf;

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// One file of cases. Case `c` has tensors `c.x`, `c.y` and so on, and its parameters as a JSON object in the metadata.
pub struct Fixtures {
    name: String,
    bytes: Vec<u8>,
}

impl Fixtures {
    /// Reads `tests/fixtures/NAME.safetensors`.
    pub fn open(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(format!("{name}.safetensors"));
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self { name: name.into(), bytes }
    }

    /// Names and parameters of all cases, by name.
    pub fn cases(&self) -> impl Iterator<Item = (String, Value)> {
        let (_, metadata) = SafeTensors::read_metadata(&self.bytes).expect("a safetensors header");
        let metadata = metadata.metadata().clone().expect("parameters of the cases");
        let mut cases: Vec<_> = metadata
            .into_iter()
            .map(|(name, text)| {
                let value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("parameters of {name}: {e}"));
                (name, value)
            })
            .collect();
        cases.sort_by(|a, b| a.0.cmp(&b.0));
        cases.into_iter()
    }

    /// Extents and values of a tensor, as `CASE.x`.
    pub fn tensor(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let file = SafeTensors::deserialize(&self.bytes).expect("a safetensors file");
        let view = file.tensor(name).unwrap_or_else(|e| panic!("{} of {}: {e}", name, self.name));
        assert_eq!(view.dtype(), Dtype::F32, "{name}");
        let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        (view.shape().to_vec(), values)
    }
}

impl Fixtures {
    /// Values of a tensor of 64-bit integers.
    #[allow(dead_code)] // not every test has some
    pub fn integers(&self, name: &str) -> Vec<i64> {
        let file = SafeTensors::deserialize(&self.bytes).expect("a safetensors file");
        let view = file.tensor(name).unwrap_or_else(|e| panic!("{} of {}: {e}", name, self.name));
        assert_eq!(view.dtype(), Dtype::I64, "{name}");
        view.data().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect()
    }
}

/// A parameter that is one or several numbers.
pub fn numbers<const N: usize>(params: &Value, key: &str) -> [usize; N] {
    let values = params[key].as_array().unwrap_or_else(|| panic!("{key} in {params}"));
    assert_eq!(values.len(), N, "{key} in {params}");
    std::array::from_fn(|i| values[i].as_u64().unwrap_or_else(|| panic!("{key} in {params}")) as usize)
}

/// Asserts `abs(y - want) <= tolerance * (1 + abs(want))` for all elements.
#[allow(dead_code)] // not every test compares so
pub fn assert_close(what: &str, y: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(y.len(), want.len(), "{what}");
    for (i, (y, want)) in y.iter().zip(want).enumerate() {
        assert!((y - want).abs() <= tolerance * (1.0 + want.abs()), "{what} [{i}]: {y} for {want}");
    }
}
