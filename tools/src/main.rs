//! The program `swath`.

use std::process::ExitCode;

fn main() -> ExitCode {
    swath_cli::main()
}
