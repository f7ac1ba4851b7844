//! Paths, types and functions of the code that ARCHITECTURE.md and the page of deliberate faults
//! name exist.

use std::path::Path;

use crate::{file, files, prose, root};

const PAGES: [&str; 2] = ["ARCHITECTURE.md", "docs/contributing/deliberate-faults.md"];

/// Paths are relative to one of these directories.
const BASES: [&str; 4] = ["", "src", "tests", "tests/gateway"];

/// Names with the form of a type that are not in `src`.
const FOREIGN: &[&str] = &["Arc", "EventSource"];

/// Ends of paths of source files.
const ENDINGS: &[&str] = &[".rs", ".lua", ".py", ".js", ".md", ".toml", ".yaml"];

fn is_path(span: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let is_file = ENDINGS.iter().any(|end| span.ends_with(end));
    span.chars().all(is_plain) && (is_file || span.ends_with('/')) && !span.starts_with(['/', '.'])
}

/// The parts of `module::name`, or a name with the form of a type.
fn code_name(span: &str) -> Option<Vec<&str>> {
    let span = span.strip_suffix("()").unwrap_or(span);
    let parts: Vec<&str> = span.split("::").collect();
    let is_word = |part: &&str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let is_type = span.starts_with(|c: char| c.is_ascii_uppercase())
        && span.bytes().any(|b| b.is_ascii_lowercase());
    (parts.iter().all(is_word) && (parts.len() > 1 || is_type)).then_some(parts)
}

/// The sources of the gateway by path.
fn sources() -> Vec<(String, String)> {
    let paths = files("src", &["rs"]).into_iter();
    paths.map(|path| (path.display().to_string(), file(&path))).collect()
}

/// Whether a text defines or imports this name: an item, a variant, or a member of a `use`.
fn has_name(text: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(name).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + name.len()..]);
        !before.ends_with(is_part) && !after.starts_with(is_part)
    })
}

/// Whether a file of that module, or that defines that type, has the name.
fn exists(parts: &[&str], sources: &[(String, String)]) -> bool {
    let name = parts[parts.len() - 1];
    let is_module = |path: &str, module: &str| {
        path.ends_with(&format!("/{module}.rs")) || path.contains(&format!("/{module}/"))
    };
    let defines = |text: &str, owner: &str| {
        let kinds = ["struct", "enum", "trait", "type", "mod"];
        // A list of reasons is the argument of a macro.
        let is_list = text.contains(&format!("\n    {owner} {{\n        ///"));
        is_list || kinds.iter().any(|kind| has_name(text, &format!("{kind} {owner}")))
    };
    let mut files = sources.iter().filter(|(path, text)| match parts {
        [name] => defines(text, name),
        [.., owner, _] => is_module(path, owner) || defines(text, owner),
        [] => false,
    });
    files.any(|(path, text)| is_module(path, name) || has_name(text, name))
}

fn is_missing(span: &str, sources: &[(String, String)]) -> bool {
    if is_path(span) {
        return !BASES.iter().any(|base| root().join(Path::new(base).join(span)).exists());
    }
    let name = code_name(span).filter(|_| !FOREIGN.contains(&span));
    name.is_some_and(|parts| !exists(&parts, sources))
}

#[test]
fn code_that_the_architecture_names_exists() {
    let sources = sources();
    let (mut missing, mut checked) = (Vec::new(), 0);
    for page in PAGES {
        let text = file(page);
        for (line, prose) in prose(&text) {
            for span in prose.split('`').skip(1).step_by(2) {
                checked += usize::from(is_path(span) || code_name(span).is_some());
                // The page of faults names tests after the name of their target.
                let span = span.rsplit(' ').next().unwrap_or(span);
                let is_test = page != PAGES[0] && span.contains("::");
                if !is_test && is_missing(span, &sources) {
                    missing.push(format!("{page}:{line}: {span}"));
                }
            }
        }
    }
    assert!(checked > 150, "only {checked} names were found");
    assert!(missing.is_empty(), "names that do not exist: {missing:#?}");
}

#[test]
fn names_that_do_not_exist_are_found() {
    let sources = sources();
    for missing in ["redis/tick.rs", "core/", "NoSuchType", "answers::error", "responses::none"] {
        assert_eq!(is_missing(missing, &sources), missing != "core/", "{missing}");
    }
    for known in ["core/id.rs", "responses::error", "GapReason", "Outcome::CatchUp", "redis"] {
        assert!(!is_missing(known, &sources), "{known}");
    }
}
