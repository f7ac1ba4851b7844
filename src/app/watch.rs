//! Watches files by polling their metadata. Kubernetes replaces mounted files with a symbolic link
//! in a parent directory (`..data`), and network file systems send no notifications. Polling once a
//! second detects both, at one system call per file.

use std::{os::unix::fs::MetadataExt, path::PathBuf};

/// Metadata that changes with the file or its content; `None` if the file does not exist.
type Metadata = Option<(u64, u64, u64, i64, i64, i64, i64)>;

/// The watched files and their metadata.
#[derive(Default)]
pub struct Watch {
    files: Vec<PathBuf>,
    /// Metadata when the content was read.
    initial: Vec<Metadata>,
    /// Metadata at the last check.
    last: Vec<Metadata>,
}

impl Watch {
    /// Starts to watch these files. Call it before you read their content.
    pub fn start(&mut self, files: Vec<PathBuf>) {
        self.initial = files.iter().map(metadata).collect();
        self.last = self.initial.clone();
        self.files = files;
    }

    /// Whether a file has changed since [`Watch::start`] and no file has changed since the last
    /// call: files that are still being written do not count.
    pub fn has_changed(&mut self) -> bool {
        let now: Vec<Metadata> = self.files.iter().map(metadata).collect();
        let settled = now == self.last;
        self.last = now;
        settled && self.last != self.initial
    }
}

/// Reads the metadata of a file; follows symbolic links.
fn metadata(file: &PathBuf) -> Metadata {
    let m = std::fs::metadata(file).ok()?;
    Some((m.dev(), m.ino(), m.size(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_is_reported_after_the_files_have_settled() {
        let dir = std::env::temp_dir().join(format!("sse-watch-{}", std::process::id()));
        for (version, content) in [("1", "one"), ("2", "two")] {
            std::fs::create_dir_all(dir.join(version)).unwrap();
            std::fs::write(dir.join(version).join("key"), content).unwrap();
        }
        let point_to = |version: &str| {
            std::os::unix::fs::symlink(version, dir.join("next")).unwrap();
            std::fs::rename(dir.join("next"), dir.join("..data")).unwrap();
        };
        point_to("1");
        let files = vec![dir.join("..data/key"), dir.join("missing")];
        let mut watch = Watch::default();
        watch.start(files.clone());
        assert!(!watch.has_changed() && !watch.has_changed());
        point_to("2");
        assert!(!watch.has_changed(), "not settled yet");
        assert!(watch.has_changed() && watch.has_changed(), "until the next start");
        watch.start(files);
        assert!(!watch.has_changed());
        std::fs::write(dir.join("missing"), "new").unwrap();
        assert!(!watch.has_changed());
        std::fs::write(dir.join("missing"), "new and longer").unwrap();
        assert!(!watch.has_changed(), "still being written");
        assert!(watch.has_changed());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
