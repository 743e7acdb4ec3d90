//! What the operating system says of this machine: the CPU's name and its caches.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A cache that holds data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cache {
    /// 1, 2, 3.
    pub level: usize,
    /// Size in bytes.
    pub bytes: usize,
    /// Length of a line in bytes; 0 where unknown.
    pub line: usize,
    /// Cores that share it; 0 where unknown.
    pub shared_by: usize,
}

/// The CPU's name, where the system tells.
pub fn cpu_name() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    text.lines().find_map(|l| {
        let (key, value) = l.split_once(':')?;
        (key.trim() == "model name").then(|| value.trim().to_string()).filter(|v| !v.is_empty())
    })
}

/// The data caches of the first core, smallest first; empty where the system does not tell.
pub fn caches() -> Vec<Cache> {
    caches_in(Path::new("/sys/devices/system/cpu/cpu0/cache"))
}

fn caches_in(dir: &Path) -> Vec<Cache> {
    let mut caches = Vec::new();
    for index in 0..16 {
        let get = |file: &str| fs::read_to_string(dir.join(format!("index{index}/{file}"))).ok();
        let Some(kind) = get("type") else { break };
        if kind.trim() == "Instruction" {
            continue;
        }
        let number = |file| get(file).and_then(|v| v.trim().parse().ok());
        if let (Some(level), Some(bytes)) = (number("level"), get("size").and_then(|s| size(s.trim()))) {
            let shared_by = get("shared_cpu_list").map_or(0, |l| cores(l.trim()));
            caches.push(Cache { level, bytes, line: number("coherency_line_size").unwrap_or(0), shared_by });
        }
    }
    caches.sort_by_key(|c| c.level);
    caches
}

/// `32K` in bytes.
fn size(s: &str) -> Option<usize> {
    let digits = s.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &s[digits.len()..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return None,
    };
    digits.parse::<usize>().ok()?.checked_mul(unit)
}

/// Number of cores in a list such as `0-3,8`.
fn cores(list: &str) -> usize {
    list.split(',')
        .filter_map(|part| {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            Some((to.parse::<usize>().ok()? + 1).saturating_sub(from.parse().ok()?))
        })
        .sum()
}

/// The size of the last data cache, or 32 MiB where the system does not tell.
pub fn last_cache() -> usize {
    caches().last().map_or(32 << 20, |c| c.bytes)
}

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
    fn sizes_and_core_lists() {
        assert_eq!(
            (size("32K"), size("1M"), size("64"), size("9Q"), size("")),
            (Some(32768), Some(1 << 20), Some(64), None, None)
        );
        assert_eq!((cores("0-3,8"), cores("2"), cores(""), cores("x")), (5, 1, 0, 0));
        assert_eq!((bytes(32768), bytes(1536 << 10), bytes(7)), ("32 KiB".into(), "1.5 MiB".into(), "7 B".into()));
        assert_eq!(caches_in(Path::new("/nowhere")), []);
    }
}
