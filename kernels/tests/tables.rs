//! What the tables of all levels have to keep. They stand here because the crate's unit tests have the scalar level's tables only.

use swath_kernels::isa::Level;
use swath_kernels::machine::Core;
use swath_kernels::probe::{fma_flops, read_bytes};
use swath_kernels::registry::FAMILIES;
use swath_kernels::tile::{Access, MAX_MR, OVERHANG, TileSet, overhang, pieces, rows};

#[test]
fn every_family_has_kernels_at_every_available_level_and_no_name_twice() {
    let mut all: Vec<&str> = Vec::new();
    for &level in Level::available() {
        for family in FAMILIES {
            let names = (family.names)(level);
            assert!(!names.is_empty(), "{} at {level}", family.name);
            all.extend(names);
        }
    }
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[test]
fn names_are_unique_and_sizes_contiguous() {
    for level in Level::ALL {
        let mut names: Vec<_> = rows(level).iter().map(|r| r.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), rows(level).len());
        if names.is_empty() {
            continue; // a level that is not compiled in has sizes, and no kernels
        }
        for access in [Access::Blocked1, Access::Strided, Access::Plain4, Access::Packed] {
            for set in [Some(TileSet::new(Core::here(level), access, 1)), TileSet::half(Core::here(level), access, 1)]
                .into_iter()
                .flatten()
            {
                for blocks in 1..=set.max_blocks {
                    assert!((1..=set.max_mr(blocks)).all(|mr| set.get(mr, blocks).mr == mr));
                }
            }
        }
    }
}

/// Direct convolution relies on it where more than one pixel on each side of a row lacks taps.
#[test]
fn rows_of_several_tiles_have_long_ones() {
    for level in Level::ALL.into_iter().filter(|&level| overhang(level, 1, MAX_MR) > 1) {
        {
            let access = Access::Blocked1;
            for set in [Some(TileSet::new(Core::here(level), access, 1)), TileSet::half(Core::here(level), access, 1)]
                .into_iter()
                .flatten()
            {
                for (blocks, pixels) in (1..=set.max_blocks).flat_map(|b| (MAX_MR + 1..=300).map(move |p| (b, p))) {
                    assert!(pieces(pixels, set.max_mr(blocks)).count() > 1);
                    assert!(pieces(pixels, set.max_mr(blocks)).all(|(_, mr)| overhang(level, 1, mr) == OVERHANG));
                }
            }
        }
    }
}

#[test]
fn every_level_counts_its_work() {
    for &level in Level::available() {
        let accumulators = if matches!(level, Level::Avx512 | Level::Neon) { 24 } else { 12 };
        assert_eq!(fma_flops(level, 10), Ok(10 * 2 * accumulators * level.lanes() as u64));
        assert_eq!(fma_flops(level, 0), Ok(0));
        assert_eq!(read_bytes(level, &[0.5; 8 * 16 * 3 + 7], 5), Ok(5 * 8 * 16 * 3 * 4));
        assert_eq!(read_bytes(level, &[], 5), Ok(0));
    }
    for level in Level::ALL.into_iter().filter(|l| !l.is_available()) {
        assert!(fma_flops(level, 1).is_err() && read_bytes(level, &[], 1).is_err());
    }
}

#[cfg(all(target_arch = "aarch64", feature = "neon"))]
#[test]
fn every_aarch64_cpu_runs_neon() {
    assert_eq!(swath_kernels::isa::Cpu::detect().level, Level::Neon);
}
