//! For tests: how much they try.
#![allow(dead_code)] // not every test binary uses all of it

use proptest::test_runner::Config;

/// As many as `PROPTEST_CASES` says (the gate asks for few under QEMU), `usual` where it is not set. proptest itself lets a number in
/// the code win over the variable.
pub fn tries(usual: u32) -> Config {
    let usual = Config { cases: usual, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() { Config::default() } else { usual }
}

/// All of a list; under QEMU, which is some twenty times slower than the machine, one in four (the gate sets the variable).
pub fn some<T>(all: impl IntoIterator<Item = T>) -> impl Iterator<Item = T> {
    let step = if std::env::var_os("SWATH_TEST_EMULATED").is_some() { 4 } else { 1 };
    all.into_iter().step_by(step)
}
