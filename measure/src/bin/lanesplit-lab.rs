//! `lanesplit-lab`: the laboratory.

use std::process::ExitCode;

fn main() -> ExitCode {
    measure::lab::cli::main()
}
