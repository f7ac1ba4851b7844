//! The sample configuration files match the code.

use crate::{file, root};
use sse_gateway::settings::{self, sample};

#[test]
fn sample_file_matches_the_table_of_settings() {
    assert_eq!(file("config/gateway.toml"), sample::toml());
}

#[test]
fn rules_of_the_guide_are_valid() {
    let guide = file("docs/guides/channel-rules.md");
    let (_, rest) = guide.split_once("```toml\n").expect("an example");
    let (example, _) = rest.split_once("```").expect("its end");
    let path = std::env::temp_dir().join(format!("sse-rules-{}.toml", std::process::id()));
    std::fs::write(&path, example).expect("a temporary file");
    let secret = ("SSE_GATEWAY__TICKETS__SECRET".to_owned(), "x".repeat(64));
    let loaded = settings::load(Some(&path), std::iter::once(secret));
    std::fs::remove_file(path).expect("the file");
    let rules = loaded.expect("valid rules").channels;
    assert_eq!(rules.rules().len(), 3);
}

#[test]
fn production_file_is_valid_and_contains_no_secret() {
    let path = root().join("config/production.toml");
    let faults = settings::load(Some(&path), std::iter::empty()).expect_err("it has no ticket key");
    let keys: Vec<&str> = faults.iter().map(|f| f.key.as_str()).collect();
    assert_eq!(keys, ["tickets.secret"]);
    let secret = ("SSE_GATEWAY__TICKETS__SECRET".to_owned(), "x".repeat(64));
    settings::load(Some(&path), std::iter::once(secret)).expect("it is valid with a secret");
}
