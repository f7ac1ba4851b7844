//! The channel rules as Lua.

use std::fmt::Write;

use crate::core::channel_rules::{ChannelPolicy, ChannelRules};

/// Maximum time by which a log outlives its retention, in ms: busy logs are not renewed each time.
const MAX_EXPIRY_SLACK_MS: u64 = 10_000;

/// The fields of a Lua table: one line for each rule, and one that matches every channel. The text
/// contains no `@`.
pub(super) fn table(rules: &ChannelRules) -> String {
    let rule = |rule| (rules.resolve(rule), rule.pattern.parts());
    let all = rules.rules().iter().map(rule).chain([(rules.default_policy(), ("", Some("")))]);
    let lines =
        all.map(|(policy, parts)| format!("    {{ {}, {} }},", names(parts), fields(policy)));
    lines.collect::<Vec<_>>().join("\n")
}

fn names(parts: (&str, Option<&str>)) -> String {
    match parts {
        (name, None) => format!("name = {}", string(name)),
        (before, Some(after)) => format!("before = {}, after = {}", string(before), string(after)),
    }
}

fn fields(policy: ChannelPolicy) -> String {
    let retention_ms = policy.retention.as_millis() as u64;
    let slack_ms = (retention_ms / 100).min(MAX_EXPIRY_SLACK_MS);
    let mut text = format!(
        "max_len = {}, retention_ms = {retention_ms}, expiry_slack_ms = {slack_ms}, \
         max_event_bytes = {}",
        policy.max_len, policy.max_event_bytes
    );
    for (name, is_set) in
        [("requires_keep", policy.requires_keep), ("is_ephemeral", policy.is_ephemeral)]
    {
        if is_set {
            let _ = write!(text, ", {name} = true");
        }
    }
    if let Some(rate) = policy.rate {
        let _ = write!(text, ", rate = {rate}");
    }
    text
}

/// A string literal. Everything that could end it, or begin a placeholder, is escaped.
fn string(text: &str) -> String {
    let mut literal = String::from("'");
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'.' | b'-' | b'_' => {
                literal.push(byte.into());
            }
            other => {
                let _ = write!(literal, "\\{other:03}");
            }
        }
    }
    literal + "'"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::testing::settings;

    fn lines(json: &str) -> Vec<String> {
        let settings = settings(&[("CHANNELS", json)]);
        table(&settings.channels).lines().map(str::to_owned).collect()
    }

    const DEFAULT: &str = "    { before = '', after = '', max_len = 1000, retention_ms = 86400000, \
                           expiry_slack_ms = 10000, max_event_bytes = 65536 },";

    #[test]
    fn rules_precede_the_defaults() {
        assert_eq!(lines("[]"), [DEFAULT]);
        let rules = lines(
            r#"[{"match": "broadcast:a*b", "retention": "5s", "keep": "required", "rate": 7},
                {"match": "user:1:events", "max_len": 3, "max_event_bytes": 9,
                 "ephemeral": true}]"#,
        );
        assert_eq!(
            rules,
            [
                "    { before = 'broadcast:a', after = 'b', max_len = 1000, retention_ms = 5000, \
                 expiry_slack_ms = 50, max_event_bytes = 65536, requires_keep = true, rate = 7 },",
                "    { name = 'user:1:events', max_len = 3, retention_ms = 86400000, \
                 expiry_slack_ms = 10000, max_event_bytes = 9, is_ephemeral = true },",
                DEFAULT,
            ]
        );
    }

    #[test]
    fn patterns_cannot_end_their_literal() {
        let line = &lines(r#"[{"match": "broadcast:'..os.exit()..'@F@\"*"}]"#)[0];
        let escaped = r"'broadcast:\039..os.exit\040\041..\039\064F\064\034'";
        assert!(line.contains(&format!("before = {escaped},")), "{line}");
    }
}
