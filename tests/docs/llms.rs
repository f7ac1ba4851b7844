//! `docs/llms.txt` (llmstxt.org) lists the pages of `docs/SUMMARY.md`, each with a line of its own.

use crate::file;

/// Maximum length of the text about a page, in characters.
const MAX_CHARS: usize = 100;

/// The links of a list: title, target, and what follows.
fn links(text: &str) -> Vec<(&str, &str, &str)> {
    let links = text.lines().filter_map(|line| {
        let (title, rest) = line.trim_start_matches("- ").strip_prefix('[')?.split_once("](")?;
        let (target, about) = rest.split_once(')')?;
        Some((title, target, about))
    });
    links.collect()
}

#[test]
fn llms_txt_lists_every_page_of_the_summary() {
    let (summary, llms) = (file("docs/SUMMARY.md"), file("docs/llms.txt"));
    let pages = |text| links(text).into_iter().map(|(title, target, _)| (title, target));
    let (expected, listed): (Vec<_>, Vec<_>) = (pages(&summary).collect(), pages(&llms).collect());
    assert!(expected.len() > 50, "the scan does not work: {expected:?}");
    let missing: Vec<_> = expected.iter().filter(|page| !listed.contains(page)).collect();
    assert!(missing.is_empty(), "docs/llms.txt lacks {missing:#?}");
    assert_eq!(listed, expected, "docs/llms.txt has other pages, or another order");
}

#[test]
fn llms_txt_has_a_summary_and_a_line_for_each_page() {
    let llms = file("docs/llms.txt");
    assert!(llms.starts_with("# sse-gateway\n\n> "), "a title and a summary");
    for (title, _, about) in links(&llms) {
        let about = about.strip_prefix(": ").unwrap_or_default();
        let length = about.chars().count();
        assert!((1..=MAX_CHARS).contains(&length), "{title}: {length} characters");
    }
}
