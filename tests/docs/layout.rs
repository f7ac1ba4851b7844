//! Line lengths of text and of configuration, and the size of the README.

use std::path::Path;

use crate::{documents, file, files, reference::is_generated};

const MAX_COLUMNS: usize = 100;
const MAX_README_LINES: usize = 150;

/// Whether a line may be longer: rows of tables, and lines that a link makes long.
fn may_be_long(line: &str) -> bool {
    let is_row = line.trim_start().starts_with('|');
    let is_tag = line.trim_start().starts_with('<');
    let has_long_word = line.split_whitespace().any(|word| word.len() > 60);
    is_row || is_tag || has_long_word || line.contains("](")
}

/// A line of a Redis ACL file, a string and a series of a test of alerts cannot be continued.
fn has_no_continuation(line: &str) -> bool {
    ["user ", "description = \"", "- series: "].iter().any(|s| line.trim_start().starts_with(s))
}

fn too_long(path: &Path) -> Vec<String> {
    let text = file(path);
    let lines = text.lines().zip(1..);
    let long = lines.filter(|(line, _)| line.chars().count() > MAX_COLUMNS);
    long.filter(|(line, _)| !may_be_long(line) && !has_no_continuation(line))
        .map(|(_, number)| format!("{}:{number}", path.display()))
        .collect()
}

#[test]
fn markdown_lines_have_at_most_100_columns() {
    // `make bench` writes one of them, with commands in it.
    let generated = |path: &Path| is_generated(&file(path)) || path.ends_with("docs/benchmarks.md");
    let documents = documents().into_iter().filter(|path| !generated(path));
    let long: Vec<String> = documents.flat_map(|path| too_long(&path)).collect();
    assert!(long.is_empty(), "longer than {MAX_COLUMNS} columns: {long:#?}");
}

#[test]
fn configuration_lines_have_at_most_100_columns() {
    let paths = files(".", &["conf", "service", "toml", "yaml", "yml"]);
    assert!(paths.len() > 50, "only {} files were checked", paths.len());
    let long: Vec<String> = paths.iter().flat_map(|path| too_long(path)).collect();
    assert!(long.is_empty(), "longer than {MAX_COLUMNS} columns: {long:#?}");
}

#[test]
fn readme_has_at_most_150_lines() {
    let lines = file("README.md").lines().count();
    assert!(lines <= MAX_README_LINES, "README.md has {lines} lines");
}
