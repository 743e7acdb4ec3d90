//! This machine in words.

pub use swath::machine::{Cache, caches, cpu_identity, cpu_name, last_cache};

/// `1.5 MiB`
pub fn bytes(n: usize) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.into_iter().find(|(shift, _)| n >> shift > 0) {
        Some((shift, unit)) => {
            let v = n as f64 / (1u64 << shift) as f64;
            if v.fract() == 0.0 { format!("{v:.0} {unit}") } else { format!("{v:.1} {unit}") }
        }
        None => format!("{n} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        assert_eq!((bytes(32768), bytes(1536 << 10), bytes(7)), ("32 KiB".into(), "1.5 MiB".into(), "7 B".into()));
    }
}
