//! Golden files: structures as they were written once, byte for byte.

use std::path::Path;

/// Compares bytes with the golden file of this name; with `OGIVE_WRITE_GOLDEN` set writes it first.
#[allow(clippy::disallowed_methods)] // the files that tests compare with
pub(crate) fn golden(name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.bin"));
    if std::env::var_os("OGIVE_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, bytes).expect("the golden file can be written");
    }
    let kept = std::fs::read(&path).expect("a golden file for each structure");
    let differs = bytes.iter().zip(&kept).position(|(new, old)| new != old);
    assert_eq!(
        (differs, bytes.len()),
        (None, kept.len()),
        "{name}: first difference; a changed format needs a new version"
    );
}
