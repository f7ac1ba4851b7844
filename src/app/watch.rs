//! Watches files by asking for them: what Kubernetes mounts is swapped by a symbolic link of a
//! directory above (`..data`), and network file systems tell nobody of changes. To ask once a
//! second sees both, and costs a system call a file.

use std::{os::unix::fs::MetadataExt, path::PathBuf};

/// What tells that a file is another one, or has other content; `None`: there is none.
type Look = Option<(u64, u64, u64, i64, i64, i64, i64)>;

/// Files, and how they looked.
#[derive(Default)]
pub struct Watch {
    files: Vec<PathBuf>,
    taken: Vec<Look>,
    seen: Vec<Look>,
}

impl Watch {
    /// From now on these; their content is going to be read after this.
    pub fn take(&mut self, files: Vec<PathBuf>) {
        self.taken = files.iter().map(look).collect();
        self.seen = self.taken.clone();
        self.files = files;
    }

    /// Whether a file has changed since [`Watch::take`], and none since the last call: one that is
    /// being written is left in peace.
    pub fn has_changed(&mut self) -> bool {
        let now: Vec<Look> = self.files.iter().map(look).collect();
        let settled = now == self.seen;
        self.seen = now;
        settled && self.seen != self.taken
    }
}

/// Follows symbolic links.
fn look(file: &PathBuf) -> Look {
    let m = std::fs::metadata(file).ok()?;
    Some((m.dev(), m.ino(), m.size(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_once_it_has_settled_also_behind_a_link() {
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
        watch.take(files.clone());
        assert!(!watch.has_changed() && !watch.has_changed());
        point_to("2");
        assert!(!watch.has_changed(), "it may not be all yet");
        assert!(watch.has_changed() && watch.has_changed(), "until it is taken");
        watch.take(files);
        assert!(!watch.has_changed());
        std::fs::write(dir.join("missing"), "new").unwrap();
        assert!(!watch.has_changed());
        std::fs::write(dir.join("missing"), "new and longer").unwrap();
        assert!(!watch.has_changed(), "still being written");
        assert!(watch.has_changed());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
