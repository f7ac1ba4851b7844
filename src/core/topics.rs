//! The topics that a ticket allows: exact names, `prefix*` and `*`
//! (ARCHITECTURE.md#tickets-and-sessions).

use std::{collections::BTreeSet, ops::Bound, sync::Arc};

use super::{channel::is_name, presence};

/// Maximum number of topics in a ticket or request.
pub const MAX_TOPICS: usize = 256;

/// Maximum length of an invalid pattern in an error, in characters.
const SHOWN_CHARS: usize = 64;

/// Why topic patterns are invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicsError {
    /// There are more than [`MAX_TOPICS`].
    #[error("must be at most {MAX_TOPICS} topics")]
    TooMany,
    /// The start of the first invalid pattern.
    #[error(
        "must be names of 1 to 256 printable ASCII characters without space, comma and \
         * ? [ ] {{ }} \\, `prefix*` or `*` (got {0:?})"
    )]
    Invalid(String),
}

/// A set of topic patterns.
///
/// ```
/// use sse_gateway::core::topics::Topics;
///
/// let ticket = Topics::parse(["news", "team-*"].into_iter())?;
/// assert!(ticket.allows("team-7") && !ticket.allows("sport"));
/// let request = Topics::parse(["team-7*", "sport"].into_iter())?;
/// assert_eq!(ticket.narrow(&request).patterns().collect::<Vec<_>>(), ["team-7*"]);
/// # Ok::<(), sse_gateway::core::topics::TopicsError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topics {
    /// Sorted; a set's first node would take 280 bytes in each connection.
    exact: Box<[Box<str>]>,
    /// Prefixes, sorted; the empty prefix is `*`.
    prefixes: Box<[Box<str>]>,
}

impl Topics {
    /// Parses patterns. Ignores the name `presence`, which [`Self::with_presence`] adds.
    ///
    /// # Errors
    /// See [`TopicsError`].
    pub fn parse<'a>(patterns: impl Iterator<Item = &'a str>) -> Result<Self, TopicsError> {
        let (mut exact, mut prefixes) = (BTreeSet::new(), BTreeSet::new());
        for (n, pattern) in patterns.enumerate() {
            if n == MAX_TOPICS {
                return Err(TopicsError::TooMany);
            }
            match pattern.strip_suffix('*') {
                Some(prefix) if prefix.is_empty() || is_name(prefix) => prefixes.insert(prefix),
                None if pattern == presence::TOPIC => continue,
                None if is_name(pattern) => exact.insert(pattern),
                _ => return Err(TopicsError::Invalid(pattern.chars().take(SHOWN_CHARS).collect())),
            };
        }
        Ok(Self { exact: boxed(exact), prefixes: boxed(prefixes) })
    }

    /// With the topic `presence`, if it is allowed or requested.
    pub fn with_presence(self, is_wanted: bool) -> Self {
        let at = self.exact.binary_search_by(|name| (**name).cmp(presence::TOPIC));
        let Some(at) = at.err().filter(|_| is_wanted) else { return self };
        let mut exact = self.exact.into_vec();
        exact.insert(at, presence::TOPIC.into());
        Self { exact: exact.into(), ..self }
    }

    /// Whether a topic is allowed.
    pub fn allows(&self, topic: &str) -> bool {
        self.exact.binary_search_by(|name| (**name).cmp(topic)).is_ok()
            || self.prefixes().any(|prefix| has_prefix(topic, prefix))
    }

    /// The topics that both these and those of a request allow, at most [`MAX_TOPICS`] from each of
    /// them. If one prefix is within another one, what both allow is the longer one.
    pub fn narrow(&self, request: &Self) -> Self {
        let (mut exact, mut prefixes) = (BTreeSet::new(), BTreeSet::new());
        for (one, other) in [(self, request), (request, self)] {
            exact.extend(one.exact().filter(|name| other.allows(name)));
            prefixes.extend(one.prefixes().filter(|prefix| other.has_prefix_of(prefix)));
        }
        Self { exact: boxed(exact), prefixes: boxed(prefixes) }
    }

    /// Whether all topics with that prefix are allowed by one of these prefixes.
    fn has_prefix_of(&self, prefix: &str) -> bool {
        self.prefixes().any(|own| prefix.starts_with(own))
    }

    /// Those of a list that are allowed, up to `max`. Its cost depends on the result, and not on
    /// the length of the list.
    pub fn among(&self, list: &BTreeSet<Arc<str>>, max: usize) -> Vec<Arc<str>> {
        let mut found: BTreeSet<_> = self.exact().filter_map(|name| list.get(name)).collect();
        let mut before = None;
        for prefix in self.prefixes() {
            // What the shorter prefix allows is in the result already.
            if before.is_some_and(|before| prefix.starts_with(before)) {
                continue;
            }
            before = Some(prefix);
            let from = (Bound::Included(prefix), Bound::Unbounded);
            let matching = list.range::<str, _>(from).take_while(|name| name.starts_with(prefix));
            for name in matching.filter(|name| has_prefix(name, prefix)) {
                if found.len() >= max {
                    break;
                }
                found.insert(name);
            }
        }
        found.into_iter().take(max).cloned().collect()
    }

    /// The exact names.
    pub fn exact(&self) -> impl Iterator<Item = &str> {
        self.exact.iter().map(|name| &**name)
    }

    /// The prefixes of the patterns that end in `*`.
    pub fn prefixes(&self) -> impl Iterator<Item = &str> {
        self.prefixes.iter().map(|prefix| &**prefix)
    }

    /// Whether no topic is allowed.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.is_empty()
    }

    /// The patterns in their original form.
    pub fn patterns(&self) -> impl Iterator<Item = String> {
        self.exact().map(str::to_owned).chain(self.prefixes().map(|p| format!("{p}*")))
    }
}

fn boxed(names: BTreeSet<&str>) -> Box<[Box<str>]> {
    names.into_iter().map(Into::into).collect()
}

/// Whether the pattern `prefix*` matches a topic. No pattern matches the topic `presence`.
pub fn has_prefix(topic: &str, prefix: &str) -> bool {
    topic.starts_with(prefix) && topic != presence::TOPIC
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(patterns: &[&str]) -> Topics {
        Topics::parse(patterns.iter().copied()).unwrap()
    }

    #[test]
    fn allows_exact_names_prefixes_and_all() {
        let t = topics(&["news", "team-*"]);
        assert!(t.allows("news") && t.allows("team-7") && t.allows("team-"));
        assert!(!t.allows("news2") && !t.allows("team"));
        assert!(topics(&["*"]).allows("anything"));
        assert!(!topics(&[]).allows("anything"));
    }

    #[test]
    fn request_is_narrowed_to_what_the_ticket_allows() {
        for (ticket, request, both) in [
            (&["a", "b*"][..], &["a", "b1", "c"][..], &["a", "b1"][..]),
            (&["team-7", "team-8*"], &["team-*"], &["team-7", "team-8*"]),
            (&["*"], &["team-*", "news"], &["team-*", "news"]),
            (&["team-*"], &["*"], &["team-*"]),
            (&["a*", "abc"], &["ab*", "a"], &["a", "abc", "ab*"]),
            (&["a*"], &["b*", "b"], &[]),
            (&[], &["a", "*"], &[]),
        ] {
            assert_eq!(topics(ticket).narrow(&topics(request)), topics(both), "{ticket:?}");
        }
    }

    /// Every list of patterns over two letters, up to two patterns of two characters.
    #[test]
    fn narrowed_topics_are_exactly_those_that_both_allow() {
        let names = ["a", "b", "aa", "ab", "ba", "bb", "aaa", "aab", "bbb"];
        let patterns = ["a", "b", "ab", "*", "a*", "b*", "aa*", "ab*"];
        let mut lists = vec![vec![]];
        for (n, first) in patterns.iter().enumerate() {
            lists.push(vec![*first]);
            lists.extend(patterns[n + 1..].iter().map(|second| vec![*first, *second]));
        }
        for (ticket, request) in lists.iter().flat_map(|t| lists.iter().map(move |r| (t, r))) {
            let (ticket, request) = (topics(ticket), topics(request));
            let both = ticket.narrow(&request);
            for name in names {
                let expected = ticket.allows(name) && request.allows(name);
                assert_eq!(both.allows(name), expected, "{name}: {ticket:?} {request:?}");
            }
            assert_eq!(both, request.narrow(&ticket));
        }
    }

    #[test]
    fn allowed_names_of_a_list_are_found_once() {
        let names = ["a", "ab", "abc", "b", "c", "presence"];
        let list: BTreeSet<Arc<str>> = names.into_iter().map(Arc::from).collect();
        for patterns in
            [&["a"][..], &["*"], &["a*", "ab*"], &["b*", "c", "x"], &["ab*", "pre*"], &[]]
        {
            let topics = topics(patterns);
            let allowed: Vec<_> = names.iter().filter(|name| topics.allows(name)).collect();
            let found = topics.among(&list, 9);
            assert!(found.iter().map(|n| &**n).eq(allowed.iter().map(|n| **n)), "{patterns:?}");
            assert_eq!(topics.among(&list, 1).len(), allowed.len().min(1));
        }
    }

    #[test]
    fn patterns_do_not_multiply_each_other() {
        let names: Vec<_> = (0..MAX_TOPICS).map(|n| format!("a{n}")).collect();
        let ticket = Topics::parse(names.iter().map(String::as_str)).unwrap();
        assert_eq!(ticket.narrow(&topics(&["a*", "*"])), ticket);
    }

    #[test]
    fn presence_needs_the_claim_and_its_exact_name() {
        for patterns in [&["*"][..], &["pre*"], &["presence"], &["presence", "presence*"]] {
            let without = topics(patterns);
            assert!(!without.allows("presence") && without.exact().next().is_none());
            let requested = topics(&[]).with_presence(true);
            assert!(without.narrow(&requested).is_empty(), "{patterns:?}");
            assert_eq!(topics(patterns).with_presence(false), without);
            let with = topics(patterns).with_presence(true).with_presence(true);
            assert!(with.allows("presence") && with.exact().eq(["presence"]));
            assert_eq!(with.narrow(&requested), requested);
        }
        let all = topics(&["*", "z"]).with_presence(true);
        assert!(all.allows("presence-room") && all.allows("presenc") && all.allows("z"));
    }

    #[test]
    fn other_patterns_are_rejected() {
        for bad in ["", "a*b", "**", "a b", "a,b", "{a", "a}*", "ä"] {
            let error = TopicsError::Invalid(bad.to_owned());
            assert_eq!(Topics::parse([bad].into_iter()), Err(error));
        }
        let long = "a b".repeat(100);
        let error = Topics::parse([long.as_str()].into_iter()).unwrap_err().to_string();
        assert!(error.ends_with(&format!("(got {:?})", &long[..SHOWN_CHARS])), "{error}");
    }

    #[test]
    fn too_many_topics_are_an_error_without_a_value() {
        let parse = |count| Topics::parse(std::iter::repeat_n("a", count));
        assert!(parse(MAX_TOPICS).is_ok());
        let error = parse(MAX_TOPICS + 1).unwrap_err();
        assert_eq!(error.to_string(), "must be at most 256 topics");
    }
}
