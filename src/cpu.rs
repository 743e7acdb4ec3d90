//! The CPU that plans take kernels for: detected, lowered by `SWATH_LEVEL`.

use std::sync::OnceLock;

use swath_kernels::isa::{Cpu, LevelError};

use crate::error::{Error, Result};

/// The environment variable that lowers the level.
pub const LEVEL_VARIABLE: &str = "SWATH_LEVEL";

/// This machine's CPU, held to the level that the environment variable `SWATH_LEVEL` names, if it is set and not
/// empty. The variable is read once, at the first call.
///
/// # Errors
/// [`Error::LevelVariable`], which lists the levels that this machine can run, where the variable names another.
///
/// ```
/// let cpu = swath::cpu()?;
/// assert!(swath::Level::available().contains(&cpu.level));
/// # Ok::<(), swath::Error>(())
/// ```
pub fn cpu() -> Result<Cpu> {
    static CPU: OnceLock<Result<Cpu, LevelError>> = OnceLock::new();
    CPU.get_or_init(|| {
        let asked = std::env::var_os(LEVEL_VARIABLE);
        held_to(asked.as_deref().map(|v| v.to_string_lossy()).as_deref())
    })
    .clone()
    .map_err(Error::LevelVariable)
}

fn held_to(asked: Option<&str>) -> Result<Cpu, LevelError> {
    match asked.map(str::trim) {
        None | Some("") => Ok(Cpu::detect()),
        Some(name) => Cpu::detect().lowered(name.parse()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swath_kernels::isa::Level;

    #[test]
    fn the_variable_lowers_and_refuses() {
        assert_eq!(held_to(None), Ok(Cpu::detect()));
        assert_eq!(held_to(Some(" ")), Ok(Cpu::detect()));
        for &level in Level::available() {
            assert_eq!(held_to(Some(level.name())).unwrap().level, level);
        }
        let e = Error::LevelVariable(held_to(Some("sse9")).unwrap_err()).to_string();
        assert!(e.starts_with("SWATH_LEVEL: ") && e.contains("\"sse9\" is unknown") && e.contains("scalar"), "{e}");
        let foreign = Level::ALL.into_iter().find(|l| !l.is_available()).expect("no machine has all levels");
        assert!(held_to(Some(foreign.name())).unwrap_err().to_string().contains("not available on this machine"));
    }
}
