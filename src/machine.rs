//! What this machine is, as the CPU and the operating system tell: its identity and its caches.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use swath_kernels::isa::Cpu;

/// A cache that holds data.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "tune", derive(serde::Serialize, serde::Deserialize))]
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

/// Which CPU this is: what tuning tables are keyed by. Vendor, family/model and brand on x86-64, the main
/// identification register of the first core on aarch64 under Linux, else `unknown` and the architecture.
///
/// ```
/// assert!(!swath::machine::cpu_identity().is_empty());
/// ```
pub fn cpu_identity() -> &'static str {
    static IDENTITY: OnceLock<String> = OnceLock::new();
    IDENTITY.get_or_init(|| {
        let midr = || fs::read_to_string("/sys/devices/system/cpu/cpu0/regs/identification/midr_el1").ok();
        Cpu::identity()
            .or_else(|| midr().map(|m| format!("{} midr {}", std::env::consts::ARCH, m.trim())))
            .unwrap_or_else(|| format!("unknown {}", std::env::consts::ARCH))
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

/// The size of the last data cache in bytes, or 32 MiB where the system does not tell.
pub fn last_cache() -> usize {
    caches().last().map_or(32 << 20, |c| c.bytes)
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
        assert_eq!(caches_in(Path::new("/nowhere")), []);
    }

    #[test]
    fn the_identity_is_one_line_that_stays() {
        let identity = cpu_identity();
        assert_eq!(identity, cpu_identity());
        assert!(!identity.contains('\n') && identity.trim() == identity && identity.contains(' '), "{identity:?}");
        if let (Some(name), "x86_64") = (cpu_name(), std::env::consts::ARCH) {
            let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(identity.ends_with(&name), "{identity:?} and the system's {name:?}");
        }
    }
}
