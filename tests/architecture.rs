//! Modules depend downward only, and the core is pure (ARCHITECTURE.md, "Module map").

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The layers from the bottom to the top. A module may use its own layer and those before it.
const LAYERS: [&str; 15] = [
    "core",
    "backoff",
    "settings",
    "log_limit",
    "error_chain",
    "metrics",
    "postgres",
    "auth",
    "state",
    "redis",
    "sources",
    "admission",
    "http",
    "app",
    "cli",
];

/// Modules of `std` that the pure core must not use.
const IMPURE_MODULES: [&str; 5] = ["env", "fs", "io", "process", "thread"];

/// What the pure core must not use: I/O, clocks, tasks, locks, randomness.
const IMPURE: [&str; 10] = [
    "TcpStream",
    "UdpSocket",
    "tokio",
    "actix",
    "Mutex",
    "RwLock",
    "Instant",
    "SystemTime",
    "fastrand",
    "getrandom",
];

fn sources(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    entries
        .map(|entry| entry.expect("an entry").path())
        .flat_map(|path| match path.is_dir() {
            true => sources(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .collect()
}

/// The code of a file without its unit tests, line comments and doc comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let code = without_test_modules(&text);
    let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// A formatted file without its modules of unit tests, inline or declared.
fn without_test_modules(text: &str) -> String {
    let (mut code, mut rest) = (String::new(), text);
    while let Some((before, module)) = rest.split_once("#[cfg(test)]\nmod ") {
        code.push_str(before);
        let is_inline = module.lines().next().is_some_and(|line| line.ends_with('{'));
        let end = if is_inline { "\n}\n" } else { ";\n" };
        rest = module.split_once(end).map_or("", |(_, rest)| rest);
    }
    code + rest
}

/// Every module of a crate that a file names: `crate::a`, and the members of
/// `use crate::{a, b::c}`.
fn used_modules(code: &str, of: &str) -> Vec<String> {
    let mut used = Vec::new();
    for rest in code.split(&format!("{of}::")).skip(1) {
        match rest.strip_prefix('{') {
            None => used.push(word(rest)),
            Some(group) => used.extend(members(group).iter().map(|member| word(member))),
        }
    }
    used
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

/// The members of a `use` group at its outermost level.
fn members(group: &str) -> Vec<String> {
    let (mut all, mut member, mut depth) = (Vec::new(), String::new(), 0);
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => all.push(std::mem::take(&mut member)),
            c => {
                depth += i32::from(c == '{') - i32::from(c == '}');
                member.push(c);
            }
        }
    }
    all.push(member);
    all.iter().map(|member| member.trim().to_owned()).filter(|m| !m.is_empty()).collect()
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| *layer == module)
}

/// Each file of `src`, with the name of its layer.
fn files_by_layer() -> Vec<(String, PathBuf)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let own = |path: &PathBuf| {
        let relative = path.strip_prefix(&src).expect("a path below src");
        word(&relative.components().next().expect("a name").as_os_str().to_string_lossy())
    };
    let files = sources(&src).into_iter().map(|path| (own(&path), path));
    files.filter(|(layer, _)| layer != "lib" && layer != "main").collect()
}

#[test]
fn modules_depend_downward_only() {
    let mut wrong = Vec::new();
    for (own, path) in files_by_layer() {
        let rank = layer(&own).unwrap_or_else(|| panic!("{own} is missing in LAYERS"));
        for used in used_modules(&code(&path), "crate") {
            match layer(&used) {
                Some(other) if other <= rank => {}
                Some(_) => wrong.push(format!("{} uses {used}", path.display())),
                // A macro or an item of the crate's root.
                None => {}
            }
        }
    }
    assert!(wrong.is_empty(), "upward dependencies: {wrong:#?}");
}

#[test]
fn core_has_no_io_clock_task_or_lock() {
    let mut wrong = Vec::new();
    for (_, path) in files_by_layer().into_iter().filter(|(layer, _)| layer == "core") {
        let code = code(&path);
        let found = IMPURE.iter().filter(|word| code.contains(**word));
        wrong.extend(found.map(|word| format!("{} uses {word}", path.display())));
        let modules = used_modules(&code, "std").into_iter();
        let found = modules.filter(|module| IMPURE_MODULES.contains(&module.as_str()));
        wrong.extend(found.map(|module| format!("{} uses std::{module}", path.display())));
    }
    assert!(wrong.is_empty(), "the core is not pure: {wrong:#?}");
}

#[test]
fn layers_below_http_do_not_use_actix() {
    let http = layer("http");
    let below = files_by_layer().into_iter().filter(|(own, _)| layer(own) < http);
    let wrong: Vec<_> = below.filter(|(_, path)| code(path).contains("actix")).collect();
    assert!(wrong.is_empty(), "these files use actix: {wrong:#?}");
}

#[test]
fn scan_understands_nested_use_groups() {
    let code =
        "use crate::{\n    core::{id, event::Event},\n    state::hub,\n};\ncrate::redis::x();";
    assert_eq!(used_modules(code, "crate"), ["core", "state", "redis"]);
    assert_eq!(used_modules("use std::{fmt, io::Read, fs};", "std"), ["fmt", "io", "fs"]);
}

#[test]
fn scan_continues_after_test_modules() {
    let text =
        "a();\n#[cfg(test)]\nmod tests;\nb();\n#[cfg(test)]\nmod tests {\n    c();\n}\nd();\n";
    assert_eq!(without_test_modules(text), "a();\nb();\nd();\n");
}

/// Languages of source files.
const SOURCES: [&str; 9] = ["rs", "lua", "py", "js", "jsx", "ts", "tsx", "sh", "mjs"];

/// What is not this project's source: built, downloaded, or not tracked.
const FOREIGN: [&str; 10] = [
    "target",
    "node_modules",
    ".cache",
    ".git",
    ".next",
    ".venv",
    "book",
    "dist",
    "clients/js/types",
    "__pycache__",
];

/// All source files, and the scripts of `.ci`, which have no extension.
fn all_sources(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        let is_foreign = FOREIGN.iter().any(|name| path.ends_with(name));
        let is_source = match path.extension() {
            Some(extension) => SOURCES.iter().any(|known| extension == *known),
            None => dir.file_name().is_some_and(|name| name == ".ci"),
        };
        match path.is_dir() {
            true if !is_foreign && !path.is_symlink() => found.extend(all_sources(&path)),
            false if is_source => found.push(path),
            _ => {}
        }
    }
    found
}

/// The project's source files with their texts.
fn source_texts() -> Vec<(PathBuf, String)> {
    let all = all_sources(Path::new(env!("CARGO_MANIFEST_DIR")));
    for part in ["src", "loadtest", "clients", "examples", "tests/deploy", "fuzz", ".ci"] {
        let part = Path::new(env!("CARGO_MANIFEST_DIR")).join(part);
        assert!(all.iter().any(|path| path.starts_with(&part)), "none in {}", part.display());
    }
    let text =
        |path: &PathBuf| fs::read_to_string(path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    all.into_iter().map(|path| (path.clone(), text(&path))).collect()
}

#[test]
fn source_files_have_at_most_500_lines() {
    let long: Vec<_> = source_texts()
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > 500)
        .collect();
    assert!(long.is_empty(), "files over 500 lines: {long:#?}");
}

#[test]
fn source_lines_have_at_most_100_columns() {
    let mut wide = Vec::new();
    for (path, text) in source_texts() {
        // The text of pages of the book, which tests/docs checks.
        if path.to_string_lossy().contains("tests/docs/reference") {
            continue;
        }
        for (n, line) in text.lines().enumerate() {
            // Tables and links cannot be wrapped.
            let exempt = ["://", "](", "| "].iter().any(|mark| line.contains(mark));
            if line.chars().count() > 100 && !exempt {
                wide.push(format!("{}:{}", path.display(), n + 1));
            }
        }
    }
    assert!(wide.is_empty(), "{} lines over 100 columns: {wide:#?}", wide.len());
}
