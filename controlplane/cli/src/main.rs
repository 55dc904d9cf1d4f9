//! The `ogive` command; all of it is in the library, where the tests reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    ogive_cli::run()
}
