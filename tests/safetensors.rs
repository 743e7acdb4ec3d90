//! Weights files: round trips, strict loading, and damaged files.
#![cfg(feature = "nn")]

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use swath::nn::*;
use swath::{Error, Model, Strictness, Tensor, WeightsFile};

/// A folder of its own for every test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("swath-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn model(seed: u64) -> Model {
    Sequential::new((Conv2d::new(2, 3, 3).named("conv"), Flatten, Linear::new(12, 4).named("fc"))).build(seed).unwrap()
}

fn values(m: &Model) -> Vec<Tensor> {
    m.parameters().map(|(_, t)| t.clone()).collect()
}

fn saved(m: &Model) -> Vec<u8> {
    let folder = Folder::new(&format!("saved-{:?}", std::thread::current().id()));
    m.save_safetensors(folder.file("m.safetensors")).unwrap();
    fs::read(folder.file("m.safetensors")).unwrap()
}

#[test]
fn what_is_saved_is_loaded() {
    let folder = Folder::new("round-trip");
    let path = folder.file("model.safetensors");
    let (a, mut b) = (model(1), model(2));
    assert_ne!(values(&a), values(&b));
    let metadata = HashMap::from([("epoch".to_string(), "3".to_string())]);
    a.save_safetensors_with(&path, &metadata).unwrap();
    b.load_safetensors(&path).unwrap();
    assert_eq!(values(&a), values(&b));
    let file = WeightsFile::open(&path).unwrap();
    assert_eq!((file.metadata("epoch"), file.metadata("loss")), (Some("3"), None));
    assert_eq!(file.names().collect::<Vec<_>>(), ["conv.bias", "conv.weight", "fc.bias", "fc.weight"]);
    assert_eq!(file.dims("fc.weight").unwrap(), [4, 12]);
    // Saving again replaces the file, and nothing else is left in the folder.
    model(3).save_safetensors(&path).unwrap();
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
    b.load_safetensors(&path).unwrap();
    assert_eq!(values(&b), values(&model(3)));
}

#[test]
fn a_file_that_does_not_fit_is_refused_by_name_and_changes_nothing() {
    let file = |m: Model| WeightsFile::from_bytes(saved(&m)).unwrap();
    let other = |fc: usize| {
        Sequential::new((Conv2d::new(2, 3, 3).named("conv"), Flatten, Linear::new(12, fc).named("fc")))
            .build(5)
            .unwrap()
    };
    let mut m = model(1);
    let e = m.load_weights(&file(other(7)), Strictness::Strict).unwrap_err();
    assert_eq!(e.to_string(), "tensor `fc.weight` has the shape [7, 12], but the model's parameter has [4, 12]");
    let renamed =
        Sequential::new((Conv2d::new(2, 3, 3).named("conv"), Linear::new(12, 4).named("head"))).build(5).unwrap();
    let e = m.load_weights(&file(renamed.clone()), Strictness::Strict).unwrap_err();
    assert_eq!(
        e.to_string(),
        "the safetensors data does not fit the model: missing `fc.weight`, `fc.bias`; unexpected `head.bias`, `head.weight`"
    );
    assert!(m.load_weights(&file(renamed.clone()), Strictness::IgnoreUnexpected).is_err());
    assert_eq!(values(&m), values(&model(1)));
    let loaded = m.load_weights(&file(renamed.clone()), Strictness::Lenient).unwrap();
    assert_eq!(loaded.loaded, ["conv.weight", "conv.bias"]);
    assert_eq!(loaded.missing, ["fc.weight", "fc.bias"]);
    assert_eq!(loaded.unexpected, ["head.bias", "head.weight"]);
    assert_eq!(m.parameter("conv.weight").unwrap(), renamed.parameter("conv.weight").unwrap());
    assert_eq!(m.parameter("fc.weight").unwrap(), model(1).parameter("fc.weight").unwrap());
    let larger = Sequential::new((
        Conv2d::new(2, 3, 3).named("conv"),
        Linear::new(12, 4).named("fc"),
        Linear::new(4, 4).named("more"),
    ));
    let larger = file(larger.build(9).unwrap());
    assert!(
        m.load_weights(&larger, Strictness::Strict).unwrap_err().to_string().contains("missing none; unexpected `more")
    );
    let loaded = m.load_weights(&larger, Strictness::IgnoreUnexpected).unwrap();
    assert_eq!((loaded.loaded.len(), loaded.missing.len()), (4, 0));
    let stranger = file(Sequential::new((Linear::new(2, 2).named("other"),)).build(5).unwrap());
    let before = values(&m);
    let e = m.load_weights(&stranger, Strictness::Lenient).unwrap_err().to_string();
    assert!(e.contains("missing `conv.weight`") && e.contains("unexpected `other.bias`"), "{e}");
    assert_eq!(values(&m), before);
}

#[test]
fn every_truncation_is_one_clear_error() {
    let bytes = saved(&model(1));
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for len in 0..bytes.len() {
        let e = WeightsFile::from_bytes(bytes[..len].to_vec()).unwrap_err().to_string();
        assert_eq!(e.lines().count(), 1, "{len}: {e}");
        match len {
            0..8 => assert!(e.contains(&format!("it has {len} bytes")), "{e}"),
            _ if len < header => assert!(e.contains("truncated: its header"), "{len}: {e}"),
            _ => assert!(e.contains("truncated: tensor `"), "{len}: {e}"),
        }
    }
    let e = WeightsFile::from_bytes(bytes[..bytes.len() - 1].to_vec()).unwrap_err().to_string();
    assert!(
        e.ends_with("truncated: tensor `fc.weight` of shape [4, 12] is bytes 244..436 of the data, which has only 435"),
        "{e}"
    );
    assert!(WeightsFile::from_bytes([bytes.as_slice(), &[0]].concat()).is_err(), "too long");
}

#[test]
fn flipped_bytes_never_panic() {
    let bytes = saved(&model(1));
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for i in 0..header {
        for value in [0, b'9', b'"', b'}', 255] {
            let mut damaged = bytes.clone();
            damaged[i] = value;
            if let Ok(file) = WeightsFile::from_bytes(damaged) {
                let _ = model(1).load_weights(&file, Strictness::Strict);
            }
        }
    }
    for foreign in [&b""[..], b"PK\x03\x04 not this", b"\x93NUMPY\x01\x00..................", &[255; 64]] {
        let e = WeightsFile::from_bytes(foreign.to_vec()).unwrap_err().to_string();
        assert!(e.starts_with("the safetensors data: "), "{e}");
    }
}

/// A file of one tensor `x`.
fn one(dtype: &str, shape: &[usize], data: &[u8]) -> WeightsFile {
    let header = format!("{{\"x\":{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[0,{}]}}}}", data.len());
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat();
    WeightsFile::from_bytes(bytes).unwrap()
}

#[allow(clippy::excessive_precision)] // the values of the bits, exactly
#[test]
fn halves_and_doubles_are_read_as_floats() {
    let read = |dtype: &str, data: &[u8], n: usize| one(dtype, &[n], data).tensor("x").unwrap().as_slice().to_vec();
    let words = |words: &[u16]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
    assert_eq!(read("BF16", &words(&[0x3fc0, 0xc010, 0x3dcd]), 3), [1.5, -2.25, 0.10009765625]);
    assert_eq!(read("F16", &words(&[0x3e00, 0xc080, 0x2e66]), 3), [1.5, -2.25, 0.0999755859375]);
    // The smallest and the largest half, infinity, minus zero, and a NaN.
    let f16 = read("F16", &words(&[0x0001, 0x7bff, 0x7c00, 0x8000, 0x7e00]), 5);
    assert_eq!(f16[..3], [2f32.powi(-24), 65504.0, f32::INFINITY]);
    assert!(f16[3] == 0.0 && f16[3].is_sign_negative() && f16[4].is_nan());
    // All that bf16 drops is the second half of a float.
    let all: Vec<u16> = (0..=u16::MAX).collect();
    for (word, v) in all.iter().zip(read("BF16", &words(&all), 65536)) {
        let float = f32::from_bits(u32::from(*word) << 16);
        assert!(v.to_bits() == float.to_bits() || v.is_nan() && float.is_nan(), "{word:#06x}");
    }
    let doubles = [0.1, -1e300, 1e-300, f64::from(f32::MAX), f64::NAN].map(f64::to_le_bytes);
    let f64s = read("F64", doubles.as_flattened(), 5);
    assert_eq!(f64s[..4], [0.1f32, f32::NEG_INFINITY, 0.0, f32::MAX]);
    assert!(f64s[4].is_nan());
    // A model takes them as it takes floats.
    let mut linear = Linear::new(3, 1).bias(false).named("x").build(0).unwrap();
    let half = one("BF16", &[1, 3], &words(&[0x3fc0, 0xc010, 0x3dcd]));
    let renamed = WeightsFile::from_bytes({
        let header = r#"{"x.weight":{"dtype":"BF16","shape":[1,3],"data_offsets":[0,6]}}"#;
        let data = words(&[0x3fc0, 0xc010, 0x3dcd]);
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
    });
    linear.load_weights(&renamed.unwrap(), Strictness::Strict).unwrap();
    assert_eq!(linear.parameter("x.weight").unwrap(), &half.tensor("x").unwrap());
}

#[test]
fn other_element_types_and_missing_files_are_named() {
    let path = format!("{}/tests/fixtures/layers.safetensors", env!("CARGO_MANIFEST_DIR"));
    let file = WeightsFile::open(&path).unwrap();
    let e = file.tensor("cross_entropy_ls0.0.target").unwrap_err().to_string();
    assert!(
        e.contains("tensor `cross_entropy_ls0.0.target` of")
            && e.contains("I64; only F16, BF16, F32 and F64 can be read"),
        "{e}"
    );
    let e = file.tensor("nothing").unwrap_err().to_string();
    assert!(e.contains("has no tensor `nothing`") && e.contains("more"), "{e}");
    let e = WeightsFile::open("/nonexistent/m.safetensors").unwrap_err();
    assert!(matches!(&e, Error::Io { action: "read", .. }));
    assert!(e.to_string().starts_with("cannot read /nonexistent/m.safetensors: "), "{e}");
}

#[test]
fn a_failed_save_leaves_the_old_file() {
    let folder = Folder::new("failed-save");
    assert!(matches!(model(1).save_safetensors(folder.file("no/such/folder")), Err(Error::Io { action: "write", .. })));
    // A folder cannot be replaced by a file, and the temporary file goes away.
    let occupied = folder.file("occupied");
    fs::create_dir(&occupied).unwrap();
    fs::write(occupied.join("kept"), "x").unwrap();
    assert!(model(1).save_safetensors(&occupied).is_err());
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
    assert!(model(1).save_safetensors("/").is_err());
}
