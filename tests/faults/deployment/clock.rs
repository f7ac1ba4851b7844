//! A clock of its own for a server process (clock.c).

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The library for `LD_PRELOAD`, which is built once.
pub fn library() -> &'static PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/deployment/clock.c");
        let library = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("clock.so");
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&library)
            .arg(source)
            .status()
            .expect("cc is installed");
        assert!(status.success(), "{source} does not compile");
        library
    })
}
