//! Phrases of a literal translation must not return, in documents, comments, messages or names.

use crate::{file, files, reference::is_generated};

/// Words to avoid, and what to write instead. Words are separated by spaces here, and by spaces,
/// punctuation, line ends or underscores in the text.
const PHRASES: &[(&str, &str)] = &[
    ("anybody has", "a user has"),
    ("as long as it takes", "until"),
    ("at the most", "at most, maximum"),
    ("bare publish", "plain publish"),
    ("dear", "expensive"),
    ("else reach", "allow only …"),
    ("for good", "permanently"),
    ("give it as", "send it as"),
    ("gives way", "is closed first"),
    ("go on", "continue"),
    ("goes on", "continues"),
    ("heard", "received"),
    ("howmanyth", "sequence number"),
    ("is let in", "is admitted"),
    ("longest idle", "idle longest"),
    ("look at them", "review them"),
    ("look closer", "check"),
    ("ids of before", "earlier ids"),
    ("it is none", "it does not exist, it is invalid"),
    ("mend", "repair, fix"),
    ("mends", "repairs, fixes"),
    ("no news", "no change"),
    ("no whole number", "not an integer"),
    ("none is known", "unknown"),
    ("none of that name", "no value with that name"),
    ("none that the", "not one of those that the"),
    ("nothing of it", "no part of it"),
    ("redis is away", "Redis is unavailable"),
    ("shown the door", "disconnected"),
    ("so long a", "this long"),
    ("so many of", "this number of"),
    ("stand before", "precede"),
    ("stand still", "stop"),
    ("stands here", "is in this file"),
    ("stands still", "stops"),
    ("stay good", "remain valid"),
    ("stays good", "remains valid"),
    ("take notice", "notice"),
    ("to be had", "available"),
    ("that is none", "that does not exist, that is invalid"),
    ("the settings of before", "the previous settings"),
    ("told", "notified, gets, receives"),
    ("url is none", "the URL is invalid"),
    ("was let in", "was admitted"),
    ("went on", "continued"),
    ("which is all", "that is all of them"),
    ("which is not all", "the search was incomplete"),
    ("who was away", "clients that were disconnected"),
    ("whoever", "anyone who, clients that"),
    ("whom", "the client that"),
];

const EXTENSIONS: &[&str] = &[
    "conf", "css", "html", "js", "jsx", "lua", "md", "py", "rs", "service", "sh", "toml", "yaml",
    "yml",
];

/// The words of each line and of the start of the next line, so that phrases are found across line
/// ends.
fn lines_with_next(text: &str) -> Vec<(Vec<String>, usize)> {
    let words = |line: &str| -> Vec<String> {
        line.split(|c: char| !c.is_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_lowercase)
            .collect()
    };
    let lines: Vec<_> = text.lines().map(words).collect();
    let next = |n: usize| lines.get(n + 1).map(Vec::as_slice).unwrap_or_default();
    let joined = |n: usize| [lines[n].as_slice(), next(n)].concat();
    (0..lines.len()).map(|n| (joined(n), lines[n].len())).collect()
}

/// The phrases that begin in a line, with its number.
fn found(text: &str) -> Vec<(usize, &'static str, &'static str)> {
    let mut found = Vec::new();
    for (n, (words, own)) in lines_with_next(text).iter().enumerate() {
        for (phrase, better) in PHRASES {
            let phrase_words: Vec<_> = phrase.split(' ').collect();
            let at = words.windows(phrase_words.len()).position(|part| part == phrase_words);
            if at.is_some_and(|at| at < *own) {
                found.push((n + 1, *phrase, *better));
            }
        }
    }
    found
}

#[test]
fn text_avoids_phrases_of_literal_translations() {
    let paths = files(".", EXTENSIONS);
    assert!(paths.len() > 300, "only {} files were checked", paths.len());
    let mut bad = Vec::new();
    for path in paths.iter().map(|path| path.to_string_lossy()) {
        let text = file(&*path);
        // The phrases are in this file. Generated pages repeat the text of the code.
        if path == "tests/docs/wording.rs" || is_generated(&text) {
            continue;
        }
        let found = found(&text);
        bad.extend(found.iter().map(|(n, p, better)| format!("{path}:{n}: {p:?}: {better}")));
    }
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn phrases_are_found_across_lines_and_in_names() {
    assert_eq!(found("// clients are\n// told\n")[0].0, 2);
    assert_eq!(found("/// Waits for\n/// good.\n")[0].1, "for good");
    assert_eq!(found("fn go_on_from()")[0].1, "go on");
    assert_eq!(found("The gold standard; the client is notified."), []);
}
