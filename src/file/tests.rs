//! Parts that no path reaches from outside.

use std::path::Path;

use super::{Target, short_name, without_mark};

#[test]
fn short_names_are_themselves_and_long_ones_differ() {
    let short = |name: &str| short_name(Path::new(name)).unwrap();
    assert_eq!(short("folder/tuning.toml"), "tuning.toml");
    let (a, b) = (short(&format!("{}a", "n".repeat(200))), short(&format!("{}b", "n".repeat(200))));
    assert_ne!(a, b);
    assert_eq!((a.len(), a.as_str()), (100, format!("{}~{}", "n".repeat(83), &a[84..]).as_str()));
    // Cut between letters, not within one.
    assert!(short(&"é".repeat(100)).starts_with(&format!("{}~", "é".repeat(41))));
    assert!(short_name(Path::new("/")).is_err() && short_name(Path::new("a/..")).is_err());
}

#[test]
fn only_a_mark_at_the_start_is_skipped() {
    assert_eq!(without_mark("\u{feff}a\u{feff}".into()), "a\u{feff}");
    assert_eq!(without_mark("a".into()), "a");
}

#[cfg(target_os = "linux")]
#[test]
fn own_output_is_not_opened_again() {
    for (path, target) in [("/proc/self/fd/1", Target::Stdout), ("/proc/thread-self/fd/2", Target::Stderr)] {
        assert_eq!(Target::of(Path::new(path)).unwrap(), target);
    }
    assert_eq!(Target::of(Path::new("/dev/null")).unwrap(), Target::Stream("/dev/null".into()));
    for folder in ["/", "..", "a/.."] {
        assert_eq!(Target::of(Path::new(folder)).unwrap_err().kind(), std::io::ErrorKind::IsADirectory, "{folder}");
    }
    assert!(Target::of(Path::new("")).is_err());
}
