//! Every relative link in every Markdown file leads to a file that exists, and to a heading in it.

use std::{
    collections::{HashMap, HashSet},
    path::{Component, Path, PathBuf},
};

use crate::{documents, file, files, prose, root};

/// The anchor that GitHub and mdBook give a heading.
fn anchor(heading: &str) -> String {
    let text: String = heading.chars().filter(|c| *c != '`' && *c != '*').collect();
    let kept = text.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The text of a heading without the targets of its links.
fn without_targets(heading: &str) -> String {
    let mut out = String::new();
    let mut rest = heading;
    while let Some((before, after)) = rest.split_once("](") {
        out.push_str(&before.replace('[', ""));
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    out + rest
}

fn anchors(text: &str) -> HashSet<String> {
    let mut found = HashSet::new();
    let mut times: HashMap<String, usize> = HashMap::new();
    for (_, line) in prose(text) {
        let hashes = line.len() - line.trim_start_matches('#').len();
        if (1..=6).contains(&hashes) && line[hashes..].starts_with(' ') {
            let name = anchor(&without_targets(&line[hashes..]));
            let n = times.entry(name.clone()).or_default();
            found.insert(if *n == 0 { name } else { format!("{name}-{n}") });
            *n += 1;
        }
    }
    found
}

/// The targets of links and images, with the numbers of their lines.
fn targets(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        // Code spans may contain brackets.
        let line: String = line.split('`').step_by(2).collect::<Vec<_>>().join("code");
        for part in line.split("](").skip(1) {
            let target = part.split([')', ' ']).next().unwrap_or_default();
            found.push((number, target.trim_matches(['<', '>']).to_owned()));
        }
        for attribute in ["src=\"", "srcset=\"", "href=\""] {
            for part in line.split(attribute).skip(1) {
                found.push((number, part.split('"').next().unwrap_or_default().to_owned()));
            }
        }
        // [name]: target
        if let Some((name, target)) = line.split_once("]: ")
            && name.starts_with('[')
            && !target.contains(' ')
        {
            found.push((number, target.to_owned()));
        }
    }
    found
}

/// A path without `..`, or `None` if it leaves the repository.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => out.pop().then_some(())?,
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    Some(out)
}

fn fault_of(document: &Path, target: &str) -> Option<String> {
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let directory = document.parent().unwrap_or(Path::new(""));
    let linked = match path {
        "" => Some(document.to_owned()),
        path => normal(&directory.join(path)),
    };
    let Some(linked) = linked else { return Some("leaves the repository".to_owned()) };
    if !root().join(&linked).exists() {
        return Some("there is no such file".to_owned());
    }
    let is_page = linked.extension().is_some_and(|e| e == "md");
    (is_page && !anchor.is_empty() && !anchors(&file(&linked)).contains(anchor))
        .then(|| format!("{} has no heading #{anchor}", linked.display()))
}

#[test]
fn relative_links_lead_to_files_and_headings() {
    let mut looked_at = 0;
    let mut dead = Vec::new();
    for document in documents() {
        for (line, target) in targets(&file(&document)) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            looked_at += 1;
            if let Some(fault) = fault_of(&document, &target) {
                dead.push(format!("{}:{line}: {target}: {fault}", document.display()));
            }
        }
    }
    assert!(looked_at > 100, "only {looked_at} links were found");
    assert!(dead.is_empty(), "dead links: {dead:#?}");
}

#[test]
fn table_of_contents_names_every_page() {
    let summary = targets(&file("docs/SUMMARY.md"));
    let named: HashSet<PathBuf> = summary.iter().map(|(_, t)| Path::new("docs").join(t)).collect();
    let pages = files("docs", &["md"]).into_iter().filter(|p| !p.ends_with("SUMMARY.md"));
    let missing: Vec<PathBuf> = pages.filter(|page| !named.contains(page)).collect();
    assert!(missing.is_empty(), "docs/SUMMARY.md does not name {missing:?}");
}

/// Files that name a page or a section of the documentation in a comment, a message or a URL.
#[test]
fn paths_of_pages_in_other_files_exist() {
    let extensions =
        ["rs", "lua", "toml", "yaml", "yml", "py", "js", "jsx", "conf", "cfg", "service", "json"];
    let mut dead = Vec::new();
    for path in files(".", &extensions) {
        if path.starts_with("tests/docs") || path.ends_with("package-lock.json") {
            continue;
        }
        let text = file(&path);
        let places = ["docs/", "ARCHITECTURE.md", "CONTRIBUTING.md"];
        for (at, _) in places.iter().flat_map(|place| text.match_indices(place)) {
            let before = text[..at].chars().next_back().unwrap_or(' ');
            let page: String = text[at..]
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || "/._-".contains(*c))
                .collect();
            // The end of a sentence.
            let page = page.trim_end_matches('.');
            if before.is_alphanumeric() || !page.ends_with(".md") {
                continue;
            }
            let rest = &text[at + page.len()..];
            let anchor: String = rest
                .strip_prefix('#')
                .unwrap_or_default()
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || "-_".contains(*c))
                .collect();
            let exists = root().join(page).exists();
            if !exists || (!anchor.is_empty() && !anchors(&file(page)).contains(&anchor)) {
                dead.push(format!("{}: {page}#{anchor}", path.display()));
            }
        }
    }
    assert!(dead.is_empty(), "pages that do not exist: {dead:#?}");
}

#[test]
fn headings_become_the_anchors_of_forges() {
    for (heading, expected) in [
        (" Plain and durable", "plain-and-durable"),
        (" `GET /events`", "get-events"),
        (" What is *not* promised?", "what-is-not-promised"),
        (" SseGatewayDown", "ssegatewaydown"),
    ] {
        assert_eq!(anchor(heading), expected);
    }
    assert_eq!(without_targets("See [this](a.md) page"), "See this page");
    assert_eq!(anchors("# A\n```\n# B\n```\n## A\n"), ["a", "a-1"].map(str::to_owned).into());
    let text = "[a](b.md#c) `[d](e)` ![f](<g.png>)\n[h]: i.md\n```\n[j](k)\n```\n";
    let found: Vec<String> = targets(text).into_iter().map(|(_, target)| target).collect();
    assert_eq!(found, ["b.md#c", "g.png", "i.md"]);
}
