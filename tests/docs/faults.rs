//! The page of deliberate faults names files, functions and tests that exist.

use crate::{file, files, root};

const PAGE: &str = "docs/contributing/deliberate-faults.md";

/// The code spans of a table's cell.
fn spans(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Whether a text in Rust or Lua defines that function.
fn defines(text: &str, function: &str) -> bool {
    ["fn {}(", "fn {}<", "function {}(", ".{}("]
        .iter()
        .any(|pattern| text.contains(&pattern.replace("{}", function)))
}

#[test]
fn deliberate_faults_name_existing_code_and_tests() {
    let sources: String =
        ["src", "tests"].iter().flat_map(|d| files(d, &["rs"])).map(file).collect();
    let (mut missing, mut rows) = (Vec::new(), 0);
    for row in file(PAGE).lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        let [fault, tests, ..] = cells[..] else { panic!("{row}") };
        rows += 1;
        let names = spans(tests).map(|test| test.rsplit("::").next().unwrap_or(test));
        missing.extend(names.filter(|test| !defines(&sources, test)).map(str::to_owned));
        let is_code = |path: &&str| path.ends_with(".rs") || path.ends_with(".lua");
        let Some(path) = spans(fault).next().filter(is_code) else { continue };
        let path = format!("src/{path}");
        let function = spans(fault).nth(1).map(|name| name.rsplit("::").next().unwrap_or(name));
        if !root().join(&path).exists() {
            missing.push(path);
        } else if function.is_none_or(|function| !defines(&file(&path), function)) {
            missing.push(format!("{path}: {function:?}"));
        }
    }
    assert!(rows > 40, "only {rows} rows were found");
    assert!(missing.is_empty(), "{PAGE} names what does not exist: {missing:#?}");
}
