//! The reference captures, which are kept outside this repository, next to it. Where they are
//! absent these tests say so and pass; in CI they fail.

#[path = "captures/streams.rs"]
mod streams;

use std::path::PathBuf;

/// Where the reference captures are; `None`, said loudly, without them.
pub fn reference() -> Option<PathBuf> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/captures");
    if dir.join("expected").is_dir() {
        return Some(dir);
    }
    assert!(std::env::var_os("CI").is_none(), "CI without the reference captures in {dir:?}");
    eprintln!("SKIPPED: no reference captures in {}", dir.display());
    None
}
