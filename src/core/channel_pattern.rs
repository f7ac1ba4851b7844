//! Patterns of channel names in channel rules: `broadcast:prices.*`, `user:*:events`.

use std::fmt;

use super::channel::{Channel, is_name};

/// Maximum length of a pattern in an error, in characters.
const SHOWN_CHARS: usize = 64;
/// What precedes and follows the variable part of each form of a channel name.
const FORMS: [(&str, &str); 2] = [("user:", ":events"), ("broadcast:", "")];

/// Why a pattern is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It has two or more `*`, or characters that no channel name has.
    #[error(
        "must be a channel with at most one * (which stands for any text), for example \
         \"broadcast:prices.*\", \"user:*:events\" or \"broadcast:news\" (got {0:?})"
    )]
    Malformed(String),
    /// No channel has such a name.
    #[error(
        "must match channels, whose names are user:<id>:events and broadcast:<topic>, without \
         redis.channel_prefix (got {0:?}, which no name matches)"
    )]
    NoChannel(String),
}

/// A channel name with at most one `*`, which stands for any text, also for none. The channel
/// prefix is not part of it.
///
/// ```
/// use sse_gateway::core::channel_pattern::ChannelPattern;
///
/// let prices = ChannelPattern::parse("broadcast:prices.*")?;
/// assert!(prices.matches("broadcast:prices.eur") && !prices.matches("broadcast:news"));
/// assert!(ChannelPattern::parse("broadcast:*")?.covers(&prices));
/// # Ok::<(), sse_gateway::core::channel_pattern::PatternError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelPattern {
    before: Box<str>,
    /// The text after the `*`; `None` if the pattern has no `*`.
    after: Option<Box<str>>,
}

impl ChannelPattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// See [`PatternError`].
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let (before, after) = match text.split_once('*') {
            Some((before, after)) => (before, Some(after)),
            None => (text, None),
        };
        let shown = || text.chars().take(SHOWN_CHARS).collect();
        // A part may be longer than the name of a user or topic, but then no channel matches.
        let is_part = |part: &str| part.chars().all(|c| is_name(c.encode_utf8(&mut [0; 4])));
        if !is_part(before) || !after.is_none_or(is_part) {
            return Err(PatternError::Malformed(shown()));
        }
        let pattern = Self { before: before.into(), after: after.map(Into::into) };
        if pattern.examples('x').is_empty() {
            return Err(PatternError::NoChannel(shown()));
        }
        Ok(pattern)
    }

    /// The channels of the topics that begin with `prefix`.
    pub fn of_topics(prefix: &str) -> Self {
        Self { before: format!("broadcast:{prefix}").into(), after: Some("".into()) }
    }

    /// The texts before and after the `*`. Without a `*`: the whole name and `None`.
    pub fn parts(&self) -> (&str, Option<&str>) {
        (&self.before, self.after.as_deref())
    }

    /// Whether a channel with this name matches.
    pub fn matches(&self, name: &str) -> bool {
        match &self.after {
            None => *self.before == *name,
            Some(after) => {
                name.strip_prefix(&*self.before).is_some_and(|rest| rest.ends_with(&**after))
            }
        }
    }

    /// Whether every channel that matches the other pattern also matches this one.
    pub fn covers(&self, other: &Self) -> bool {
        let is_free = |c: &char| {
            let parts = [Some(&self.before), self.after.as_ref()];
            parts.into_iter().flatten().all(|part| !part.contains(*c))
        };
        let mut fillers = ('!'..='~').filter(|c| is_name(c.encode_utf8(&mut [0; 4])));
        // No realistic pattern has all characters.
        let Some(filler) = fillers.find(is_free) else { return false };
        other.examples(filler).iter().all(|name| self.matches(name))
    }

    /// Whether a channel may match both patterns; true in doubt.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (&self.after, &other.after) {
            (None, _) => other.matches(&self.before),
            (_, None) => self.matches(&other.before),
            (Some(a), Some(b)) => {
                let (c, d) = (&self.before, &other.before);
                (c.starts_with(&**d) || d.starts_with(&**c))
                    && (a.ends_with(&**b) || b.ends_with(&**a))
            }
        }
    }

    /// Names of channels that match, which stand for all: a pattern without the character `filler`
    /// matches every channel that this one matches if it matches these. Empty: no channel matches.
    ///
    /// The text that replaces the `*` may have to complete the beginning and the end of a form
    /// (`us*` and `user:*`, `*ents` and `*:events`); between them, one character stands for any
    /// text. The few names in which the two sides of the pattern overlap the same part of the form
    /// (`user:4:*` and `user:4:events`) are added one by one.
    fn examples(&self, filler: char) -> Vec<String> {
        let Self { before, after } = self;
        let Some(after) = after else {
            return Channel::parse(before).map(|_| before.to_string()).into_iter().collect();
        };
        let mut names = Vec::new();
        for (head, tail) in FORMS {
            let head = head.strip_prefix(&**before).unwrap_or_default();
            let tail = tail.strip_suffix(&**after).unwrap_or_default();
            for (begin, end) in (0..=head.len())
                .flat_map(|i| (0..=tail.len()).map(move |j| (&head[..i], &tail[j..])))
            {
                for middle in ["", filler.encode_utf8(&mut [0; 4])] {
                    let name = format!("{before}{begin}{middle}{end}{after}");
                    if Channel::parse(&name).is_some() {
                        names.push(name);
                    }
                }
            }
        }
        names
    }
}

impl fmt::Display for ChannelPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.before)?;
        self.after.as_ref().map_or(Ok(()), |after| write!(f, "*{after}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> ChannelPattern {
        ChannelPattern::parse(text).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn star_stands_for_any_text() {
        for (text, names) in [
            ("broadcast:prices.*", ["broadcast:prices.", "broadcast:prices.eur"]),
            ("user:*:events", ["user:1:events", "user:a:b:events"]),
            ("user:4:*", ["user:4:events", "user:4:5:events"]),
            ("*", ["user:1:events", "broadcast:a"]),
            ("*:events", ["user:1:events", "broadcast:a:events"]),
        ] {
            assert!(names.iter().all(|name| pattern(text).matches(name)), "{text}");
            assert_eq!(pattern(text).to_string(), text);
        }
        for (text, name) in [
            ("broadcast:prices.*", "broadcast:prices"),
            ("broadcast:news", "broadcast:news2"),
            ("broadcast:a*a", "broadcast:a"),
            ("user:*:events", "broadcast:a:events"),
        ] {
            assert!(!pattern(text).matches(name), "{text}");
        }
    }

    #[test]
    fn patterns_that_match_no_channel_are_errors() {
        let long = format!("broadcast:{}*", "x".repeat(256));
        for text in ["us*", "*", "b*x", "user:1:ev*", "*s", "broadcast:a*b", &long] {
            assert!(ChannelPattern::parse(text).is_ok(), "{text}");
        }
        for text in ["broadcast:**", "a b*", "broadcast:[a]", "broadcast:a,b", "broadcast:ä*"] {
            let error = PatternError::Malformed(text.to_owned());
            assert_eq!(ChannelPattern::parse(text), Err(error), "{text}");
        }
        let long = format!("broadcast:{}*", "x".repeat(257));
        for text in ["", "prices.*", "broadcast:", "user:42", "user:*:event", "app:*", &long] {
            let error = ChannelPattern::parse(text);
            assert!(matches!(error, Err(PatternError::NoChannel(_))), "{text}: {error:?}");
        }
    }

    #[test]
    fn wider_patterns_cover_narrower_ones() {
        for (wide, narrow) in [
            ("*", "user:*:events"),
            ("broadcast:*", "broadcast:prices.*"),
            ("broadcast:*", "b*"),
            ("user:*", "u*"),
            ("u*", "user:*:events"),
            ("user:*:events", "us*"),
            ("broadcast:*eur", "broadcast:prices.*.eur"),
            ("broadcast:a", "broadcast:a"),
            ("user:4*", "user:4:*"),
        ] {
            assert!(pattern(wide).covers(&pattern(narrow)), "{wide} {narrow}");
        }
        for (wide, narrow) in [
            ("user:*:events", "*"),
            ("user:*:events", "*:events"),
            ("broadcast:prices.*", "broadcast:*"),
            ("broadcast:a*", "broadcast:*a"),
            ("broadcast:a", "broadcast:a*"),
            // It also matches `user:4:events`.
            ("user:4:*:events", "user:4:*"),
        ] {
            assert!(!pattern(wide).covers(&pattern(narrow)), "{wide} {narrow}");
        }
    }
}
