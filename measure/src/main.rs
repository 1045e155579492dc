//! `lanesplit-measure`: parse arguments, do what they say, show what was found.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
