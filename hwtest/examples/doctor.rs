//! Checks this host for a demo in a directory: `cargo run --example doctor -- [DIRECTORY]`.

use std::path::PathBuf;
use std::time::Duration;

use ogive_hwtest::{Requirements, check, measure};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    print!("{}", check(&Requirements::demo(&dir, 2, 4 << 30)));
    print!("{}", measure(&dir, Duration::from_millis(500))?);
    Ok(())
}
