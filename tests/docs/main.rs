//! Keeps the documentation consistent with the code and with itself.

mod code_names;
mod faults;
mod layout;
mod links;
mod llms;
mod names;
mod project;
mod reference;
mod samples;
mod snippets;
mod wording;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Directories without documents of this repository.
const SKIPPED: &[&str] = &["target", "node_modules", ".cache", ".git", ".next", ".venv", "book"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of a file, given its path from the root of the repository.
fn file(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// All files below a directory of the repository with one of these extensions, relative to the
/// root and sorted.
fn files(directory: &str, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(directory)];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).expect("the directory exists") {
            let entry = entry.expect("the directory can be read");
            let (name, path) = (entry.file_name(), entry.path());
            let skipped = SKIPPED.iter().any(|s| name == *s);
            if path.is_dir() && !path.is_symlink() && !skipped {
                open.push(path);
            } else if path.extension().is_some_and(|e| extensions.iter().any(|x| e == *x)) {
                found.push(path.strip_prefix(root()).expect("below the root").to_owned());
            }
        }
    }
    found.sort();
    found
}

/// All Markdown files of the repository.
fn documents() -> Vec<PathBuf> {
    let documents = files(".", &["md"]);
    assert!(documents.len() > 20, "only {} documents were found", documents.len());
    documents
}

/// The lines of a Markdown text outside of fenced code blocks, with their numbers from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fence: Option<&str> = None;
    text.lines().zip(1..).filter_map(move |(line, number)| {
        let start = line.trim_start();
        match fence {
            Some(mark) => {
                if start.starts_with(mark) {
                    fence = None;
                }
                None
            }
            None => {
                fence = ["```", "~~~"].into_iter().find(|mark| start.starts_with(mark));
                fence.is_none().then_some((number, line))
            }
        }
    })
}
