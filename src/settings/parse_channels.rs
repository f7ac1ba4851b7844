//! Parser of channel rules. All errors of all rules are reported.

use toml::Value;

use super::{
    error::{ValueError, invalid},
    parse::{self, Parsed},
    parse_keys::tables,
    table::{EVENT_BYTES, LOG_LENGTHS, LOG_RETENTIONS},
};
use crate::core::{
    channel_pattern::ChannelPattern,
    channel_rules::{ChannelRule, MAX_RULES},
};

const MEMBERS: [&str; 7] =
    ["match", "max_len", "retention", "max_event_bytes", "keep", "ephemeral", "rate"];
/// The highest rate, events per second.
const MAX_RATE: u64 = 1_000_000;

/// `channels`: `[{ match, max_len, retention, max_event_bytes, keep, ephemeral, rate }]`.
///
/// # Errors
/// Every error of every rule, with the number of the rule from 1.
pub fn channel_rules(value: &Value) -> Parsed<Vec<ChannelRule>> {
    let tables = tables(value)?;
    if tables.len() > MAX_RULES {
        return Err(invalid!(
            "must be at most {MAX_RULES} rules (got {}); combine some with a wider match",
            tables.len()
        ));
    }
    let (mut rules, mut problems) = (Vec::new(), Vec::new());
    for (number, table) in (1..).zip(&tables) {
        let mut rule = RuleTable { number, table, problems: &mut problems };
        rules.push(rule.parse());
    }
    problems.extend(unreachable_rules(&rules));
    if !problems.is_empty() {
        return Err(ValueError::Several(problems));
    }
    Ok(rules.into_iter().flatten().collect())
}

/// One table while it is parsed.
struct RuleTable<'a> {
    number: usize,
    table: &'a toml::Table,
    problems: &'a mut Vec<ValueError>,
}

impl RuleTable<'_> {
    /// `None`: the rule has no valid `match`. Other errors are only added to the problems.
    fn parse(&mut self) -> Option<ChannelRule> {
        for name in self.table.keys().filter(|name| !MEMBERS.contains(&name.as_str())) {
            let known = MEMBERS.join(", ");
            self.problems
                .push(invalid!("rule {}: unknown member {name:?}; use {known}", self.number));
        }
        if !self.table.contains_key("match") {
            let problem = "match is missing; set it, for example match = \"broadcast:prices.*\"";
            self.problems.push(invalid!("rule {}: {problem}", self.number));
        }
        let pattern = self.member("match", pattern);
        let max_len = self.member("max_len", |value| parse::number(value, LOG_LENGTHS));
        let retention = self.member("retention", |value| parse::duration(value, LOG_RETENTIONS));
        let max_event_bytes =
            self.member("max_event_bytes", |value| parse::bytes(value, EVENT_BYTES));
        let requires_keep = self.member("keep", keep).unwrap_or(false);
        let is_ephemeral = self.member("ephemeral", parse::flag).unwrap_or(false);
        let rate = self.member("rate", |value| parse::number(value, 1..=MAX_RATE));
        if requires_keep && is_ephemeral {
            self.problems.push(invalid!(
                "rule {}: keep must not be \"required\" if ephemeral is true, because ephemeral \
                 events are not kept; remove one of them",
                self.number
            ));
        }
        let pattern = pattern?;
        Some(ChannelRule {
            pattern,
            max_len,
            retention,
            max_event_bytes,
            requires_keep,
            is_ephemeral,
            rate,
        })
    }

    /// The value of a member; `None`: it is missing or invalid.
    fn member<T>(&mut self, name: &str, parse: impl Fn(&Value) -> Parsed<T>) -> Option<T> {
        match parse(self.table.get(name)?) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.problems.push(invalid!("rule {}: {name} {problem}", self.number));
                None
            }
        }
    }
}

fn pattern(value: &Value) -> Parsed<ChannelPattern> {
    ChannelPattern::parse(&parse::text(value)?).map_err(|error| invalid!("{error}"))
}

/// `optional` or `required`; true for `required`.
fn keep(value: &Value) -> Parsed<bool> {
    match value.as_str() {
        Some("optional") => Ok(false),
        Some("required") => Ok(true),
        _ => Err(invalid!("must be \"optional\" or \"required\" (got {value})")),
    }
}

/// Rules whose channels all match an earlier rule.
fn unreachable_rules(rules: &[Option<ChannelRule>]) -> Vec<ValueError> {
    let patterns: Vec<_> = (1..)
        .zip(rules)
        .filter_map(|(number, rule)| Some((number, &rule.as_ref()?.pattern)))
        .collect();
    let hidden = patterns.iter().enumerate().filter_map(|(n, (number, pattern))| {
        let (first, wider) = patterns[..n].iter().find(|(_, earlier)| earlier.covers(pattern))?;
        let first: &usize = first;
        Some(invalid!(
            "rule {number}: match \"{pattern}\" can never apply, because rule {first} \
             (\"{wider}\") matches the same channels first; move rule {number} before rule \
             {first}, or remove one of them"
        ))
    });
    hidden.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(json: &str) -> Vec<String> {
        match channel_rules(&Value::String(json.to_owned())) {
            Ok(_) => Vec::new(),
            Err(problem) => problem.each().iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn rules_come_from_tables_or_json() {
        let json = r#"[{"match": "broadcast:prices.*", "max_len": 5, "retention": "1h",
            "max_event_bytes": "1KiB", "keep": "required", "rate": 7},
            {"match": "user:*:events", "ephemeral": true, "keep": "optional"}]"#;
        let rules = channel_rules(&Value::String(json.to_owned())).unwrap();
        let (prices, users) = (&rules[0], &rules[1]);
        assert_eq!((prices.max_len, prices.max_event_bytes), (Some(5), Some(1024)));
        assert_eq!(prices.retention, Some(std::time::Duration::from_secs(3600)));
        assert_eq!((prices.requires_keep, prices.is_ephemeral), (true, false));
        assert_eq!((prices.rate, users.rate), (Some(7), None));
        assert_eq!((users.requires_keep, users.is_ephemeral), (false, true));
        let toml = "[[channels]]\nmatch = \"broadcast:prices.*\"\nmax_len = 5\nrate = 7\n\
                    retention = \"1h\"\nmax_event_bytes = 1024\nkeep = \"required\"\n";
        let table: toml::Table = toml.parse().unwrap();
        assert_eq!(channel_rules(&table["channels"]).unwrap(), rules[..1]);
        assert_eq!(problems(""), [""; 0]);
    }

    #[test]
    fn every_error_names_rule_member_and_fix() {
        let found = problems(
            r#"[{"match": "prices.*", "max_len": 0, "colour": 1},
                {"retention": "1", "max_event_bytes": "17MiB", "keep": 1, "ephemeral": "yes"},
                {"match": "broadcast:*", "keep": "required", "ephemeral": true, "rate": 0},
                {"match": "broadcast:news", "rate": 1.5}]"#,
        );
        for (error, words) in found.iter().zip([
            ["rule 1: unknown member \"colour\"", "use match"],
            ["rule 1: match must match channels", "broadcast:<topic>"],
            ["rule 1: max_len must be an integer from 1", "(got 0)"],
            ["rule 2: match is missing", "set it"],
            ["rule 2: retention must be a duration", "from 100ms to 365d"],
            ["rule 2: max_event_bytes must be a size", "16777216"],
            ["rule 2: keep must be \"optional\" or \"required\"", "(got 1)"],
            ["rule 2: ephemeral must be true or false", "yes"],
            ["rule 3: rate must be an integer from 1", "(got 0)"],
            ["rule 3: keep must not be \"required\"", "remove one of them"],
            ["rule 4: rate must be an integer", "(got 1.5)"],
            ["rule 4: match \"broadcast:news\" can never apply", "move rule 4 before rule 3"],
        ]) {
            assert!(words.iter().all(|word| error.contains(word)), "{words:?}: {error}");
        }
        assert_eq!(found.len(), 12, "{found:#?}");
    }

    #[test]
    fn number_of_rules_is_limited() {
        let rules = |count: usize| {
            let rule = |n| format!(r#"{{"match": "broadcast:{n}"}}"#);
            format!("[{}]", (0..count).map(rule).collect::<Vec<_>>().join(","))
        };
        assert_eq!(problems(&rules(64)), [""; 0]);
        let found = problems(&rules(65));
        assert!(found[0].contains("at most 64 rules (got 65)"), "{found:?}");
    }
}
