//! The files that a newcomer needs, and their references.

use crate::{documents, file, files, root};

#[test]
fn project_files_exist() {
    let expected = [
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "SECURITY.md",
        ".editorconfig",
        ".github/dependabot.yml",
        ".github/pull_request_template.md",
        ".github/workflows/ci.yml",
        ".github/workflows/nightly.yml",
        "docs/adr/template.md",
        "rust-toolchain.toml",
    ];
    let missing: Vec<&str> = expected.into_iter().filter(|p| !root().join(p).exists()).collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
}

#[test]
fn toolchain_satisfies_the_minimum_version() {
    let toolchain: toml::Table = file("rust-toolchain.toml").parse().expect("TOML");
    let channel = toolchain["toolchain"]["channel"].as_str().expect("a channel").to_owned();
    let manifest: toml::Table = file("Cargo.toml").parse().expect("TOML");
    let minimum = manifest["workspace"]["package"]["rust-version"].as_str().expect("a version");
    assert!(channel.starts_with(minimum), "toolchain {channel}, rust-version {minimum}");
}

/// Makefile targets that the documents name exist.
#[test]
fn make_targets_named_in_documents_exist() {
    let makefile = file("Makefile");
    let mut unknown = Vec::new();
    for document in documents() {
        let text = file(&document);
        for part in text.split("make ").skip(1) {
            let in_target = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-';
            let target: String = part.chars().take_while(in_target).collect();
            let quoted = text[..offset(&text, part) - "make ".len()].ends_with(['`', '\n']);
            if quoted && !target.is_empty() && !makefile.contains(&format!("\n{target}:")) {
                unknown.push(format!("{}: make {target}", document.display()));
            }
        }
    }
    assert!(unknown.is_empty(), "targets that do not exist: {unknown:#?}");
}

fn offset(text: &str, part: &str) -> usize {
    part.as_ptr() as usize - text.as_ptr() as usize
}

/// The contract is ARCHITECTURE.md; the page from which it was written is not in the repository.
///
/// To be extended to `src` and `tests` as soon as their comments refer to ARCHITECTURE.md: add
/// "rs" and "lua" to the extensions.
#[test]
fn documents_refer_only_to_the_repositorys_contract() {
    let extensions = ["md", "toml", "yaml", "yml", "json"];
    let all = files(".", &extensions).into_iter();
    let citing: Vec<String> = all
        .filter(|path| !path.starts_with("docs/adr"))
        .filter(|path| file(path).contains("DESIGN.md"))
        .map(|path| path.display().to_string())
        .collect();
    assert!(citing.is_empty(), "refer to DESIGN.md, which is not in the repository: {citing:#?}");
}
