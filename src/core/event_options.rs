//! What a publisher may ask for besides type and payload: retained values, tags, and more
//! (ARCHITECTURE.md#live-messages). `library/options.lua` has the same rules.

use std::borrow::Cow;

/// Maximum length of the key of a retained value, in bytes.
const MAX_KEPT_KEY_BYTES: usize = 256;
/// Maximum number of tags of an event.
pub const MAX_TAGS: usize = 8;
/// Maximum length of a tag's name, in bytes.
const MAX_TAG_NAME_BYTES: usize = 64;
/// Maximum length of a tag's value, in bytes.
const MAX_TAG_BYTES: usize = 256;

/// Whether a text can be the key of a retained value: 1 to 256 bytes without control characters.
pub fn is_kept_key(text: &str) -> bool {
    (1..=MAX_KEPT_KEY_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Whether a text can be the name of a tag: 1 to 64 letters, digits and `_ . -`.
pub fn is_tag_name(text: &str) -> bool {
    (1..=MAX_TAG_NAME_BYTES).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// Whether a text can be the value of a tag: 1 to 256 bytes without spaces and control characters.
pub fn is_tag_value(text: &str) -> bool {
    let is_space = |c: char| c.is_ascii_whitespace() || c == '\u{b}' || c.is_ascii_control();
    (1..=MAX_TAG_BYTES).contains(&text.len()) && !text.chars().any(is_space)
}

/// What an event does to the retained values of its channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retain {
    /// It is the current value of this key.
    Keep(Box<str>),
    /// It deletes the value of this key.
    Forget(Box<str>),
}

impl Retain {
    /// The key.
    pub fn key(&self) -> &str {
        match self {
            Self::Keep(key) | Self::Forget(key) => key,
        }
    }
}

/// The tags of an event, `<name>=<value>` separated by spaces; empty: none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags(Box<str>);

impl Tags {
    /// Parses tags. `None`: more than 8, an invalid one, or a name that occurs twice.
    ///
    /// ```
    /// use sse_gateway::core::event_options::Tags;
    ///
    /// let tags = Tags::parse("region=eu team=a").expect("tags");
    /// assert_eq!((tags.get("region"), tags.get("desk")), (Some("eu"), None));
    /// assert_eq!(Tags::parse("region"), None);
    /// ```
    pub fn parse(text: &str) -> Option<Self> {
        let mut names = Vec::new();
        for tag in text.split(' ') {
            let (name, value) = tag.split_once('=')?;
            let is_valid = is_tag_name(name) && is_tag_value(value);
            if !is_valid || names.contains(&name) || names.len() == MAX_TAGS {
                return None;
            }
            names.push(name);
        }
        Some(Self(text.into()))
    }

    /// The value of a tag.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// All tags: name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.split(' ').filter_map(|tag| tag.split_once('='))
    }

    /// The tags in the format of the library: `name=value`, separated by spaces.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the event has no tags.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The options of an event; most have none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventOptions {
    /// What it does to the retained values.
    pub retain: Option<Retain>,
    /// Its tags.
    pub tags: Tags,
    /// Whether it is delivered live only, and dropped first.
    pub is_ephemeral: bool,
    /// Until when a stream must be handed the event, ms since 1970; otherwise it counts as
    /// undelivered.
    pub unseen_ms: Option<u64>,
}

impl EventOptions {
    /// Sets the option that a letter of the library stands for. `None`: it is unknown, or the text
    /// is invalid.
    pub fn set(&mut self, letter: u8, text: &str) -> Option<()> {
        match letter {
            b'k' if is_kept_key(text) => self.retain = Some(Retain::Keep(text.into())),
            b'f' if is_kept_key(text) => self.retain = Some(Retain::Forget(text.into())),
            b'g' => self.tags = Tags::parse(text)?,
            b'u' => self.unseen_ms = Some(text.parse().ok()?),
            _ => return None,
        }
        Some(())
    }
}

/// `retry:` in ms, the options, and the payload of a message.
type Parsed<'a> = (Option<u64>, Option<Box<EventOptions>>, &'a str);

/// The word of `retry:` with the letters of the options behind it, and the options, whose lines are
/// taken from the start of `rest`.
///
/// `None`: malformed.
pub fn parse_options<'a>(word: &str, rest: &'a str) -> Option<Parsed<'a>> {
    let end = word.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(word.len());
    let (retry, letters) = word.split_at(end);
    let retry_ms = match retry {
        "-" => None,
        ms => Some(ms.parse().ok()?),
    };
    if letters.is_empty() {
        return Some((retry_ms, None, rest));
    }
    let (mut options, mut rest) = (EventOptions::default(), rest);
    for letter in letters.bytes() {
        let (line, after) = rest.split_once('\n')?;
        options.set(letter, line)?;
        rest = after;
    }
    Some((retry_ms, Some(Box::new(options)), rest))
}

/// A duration of `UNSEEN` as the library accepts it: from 1 second to 7 days.
pub fn is_unseen(text: &str) -> bool {
    duration_ms(text).is_some_and(|ms| (1000..=7 * 86_400_000).contains(&ms))
}

/// A duration in ms: a whole number with `ms`, `s`, `m`, `h` or `d`.
pub fn duration_ms(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let ms_of_unit = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(ms_of_unit)
}

/// Tags from names and values.
pub fn join_tags<'a>(tags: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>) -> String {
    tags.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_follow_the_retry_word() {
        let (retry, options, rest) = parse_options("-", "payload\nk").unwrap();
        assert_eq!((retry, options, rest), (None, None, "payload\nk"));
        let (retry, options, rest) = parse_options("300kgu", "btc\na=1 b=2\n99\nx\ny").unwrap();
        let options = options.unwrap();
        assert_eq!((retry, rest), (Some(300), "x\ny"));
        assert_eq!(options.retain, Some(Retain::Keep("btc".into())));
        assert_eq!((options.tags.as_str(), options.unseen_ms), ("a=1 b=2", Some(99)));
        for (word, rest) in [
            ("", ""),
            ("x", "a\nb"),
            ("-z", "a\nb"),
            ("-k", "no line"),
            ("-k", "\nb"),
            ("-g", "a\nb"),
        ] {
            assert_eq!(parse_options(word, rest), None, "{word:?} {rest:?}");
        }
    }

    #[test]
    fn invalid_tags_are_rejected() {
        let nine = (0..9).map(|n| format!("t{n}=1")).collect::<Vec<_>>().join(" ");
        for bad in ["", "a", "=1", "a=", "a=1 a=2", "a=1  b=2", "ä=1", "a=1\tb", &nine] {
            assert_eq!(Tags::parse(bad), None, "{bad:?}");
        }
        assert!(Tags::parse("a=ä b=x=y").is_some());
    }

    #[test]
    fn unseen_takes_whole_durations_up_to_seven_days() {
        for valid in ["1000ms", "30s", "5m", "2h", "7d"] {
            assert!(is_unseen(valid), "{valid}");
        }
        for bad in ["", "s", "30", "1.5m", "999ms", "8d", "30 s", "99999999999999999999s"] {
            assert!(!is_unseen(bad), "{bad}");
        }
    }
}
