//! Phrases that read like a literal translation do not come back.

use crate::{documents, file, prose, reference::is_generated};

/// Phrases to avoid, and what to write.
const PHRASES: &[(&str, &str)] = &[
    (" is told", "gets, receives, is notified"),
    (" are told", "get, receive, are notified"),
    (" at the most", "at most, maximum"),
    ("as long as it takes to", "until"),
    (" stay good", "remain valid"),
    (" stays good", "remains valid"),
    (" mend ", "repair, fix"),
    (" dear ", "expensive"),
    ("to be had", "available"),
    ("bare publish", "plain publish"),
    ("bare PUBLISH", "plain PUBLISH"),
    (" no whole number", "not an integer"),
    (" gives way", "is closed first"),
];

#[test]
fn documents_avoid_phrases_of_literal_translations() {
    let mut found = Vec::new();
    for document in documents() {
        // The help texts of the code, which the reference repeats, are not this test's.
        if is_generated(&file(&document)) {
            continue;
        }
        for (line, text) in prose(&file(&document)) {
            let bad = PHRASES.iter().filter(|(phrase, _)| text.contains(phrase));
            let place = document.display();
            found.extend(bad.map(|(p, better)| format!("{place}:{line}: {p:?}: {better}")));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}
