//! Users, topics, filters and channels.

use std::collections::BTreeMap;

use crate::Error;

const MAX_NAME_BYTES: usize = 256;
const MAX_TOPICS: usize = 256;
const MAX_TAGS: usize = 8;
const MAX_FILTER_VALUES: usize = 64;
const MAX_TAG_NAME_BYTES: usize = 64;
const MAX_TAG_BYTES: usize = 256;
const NAME_RULE: &str =
    r"1 to 256 printable ASCII characters without space, comma and * ? [ ] { } \";

fn is_name(text: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&text.len())
        && text.bytes().all(|c| c.is_ascii_graphic() && !br",*?[]{}\".contains(&c))
}

pub(crate) fn check_user(user: &str) -> Result<(), Error> {
    if is_name(user) {
        return Ok(());
    }
    Err(Error::new("bad-user", format!("user must have {NAME_RULE} (got {user:?})")))
}

pub(crate) fn check_topics(topics: &[String]) -> Result<(), Error> {
    let is_pattern =
        |topic: &String| topic == "*" || is_name(topic.strip_suffix('*').unwrap_or(topic));
    if topics.len() <= MAX_TOPICS && topics.iter().all(is_pattern) {
        return Ok(());
    }
    let rule =
        format!("topics must be at most 256 names, `prefix*` or `*`; a name has {NAME_RULE}");
    Err(Error::new("bad-topics", rule))
}

pub(crate) fn check_filter(filter: &BTreeMap<String, Vec<String>>) -> Result<(), Error> {
    let is_name = |name: &str| {
        (1..=MAX_TAG_NAME_BYTES).contains(&name.len())
            && name.bytes().all(|c| c.is_ascii_alphanumeric() || b"_.-".contains(&c))
    };
    let is_value = |value: &String| {
        (1..=MAX_TAG_BYTES).contains(&value.len())
            && !value.contains(|c: char| c.is_whitespace() || c.is_control())
    };
    let is_tag = |(name, values): (&String, &Vec<String>)| {
        is_name(name)
            && (1..=MAX_FILTER_VALUES).contains(&values.len())
            && values.iter().all(is_value)
    };
    if filter.len() <= MAX_TAGS && filter.iter().all(is_tag) {
        return Ok(());
    }
    let rule = "filter must have at most 8 tags, each with 1 to 64 values without spaces";
    Err(Error::new("bad-filter", rule))
}

/// The key of a channel in Redis. A broadcast's key names the slot that all broadcasts share, which
/// a cluster requires.
pub(crate) fn channel_key(channel: &str, prefix: &str) -> Result<String, Error> {
    let user = channel.strip_prefix("user:").and_then(|rest| rest.strip_suffix(":events"));
    if user.is_some_and(is_name) {
        return Ok(format!("{prefix}{channel}"));
    }
    let topic = channel.strip_prefix("broadcast:").or_else(|| channel.strip_prefix("{broadcast}:"));
    if let Some(topic) = topic.filter(|topic| is_name(topic)) {
        return Ok(format!("{{{prefix}broadcast}}:{topic}"));
    }
    let rule = format!(
        "the channel must be user:<id>:events or broadcast:<topic>, with {NAME_RULE} \
         (got {channel:?})"
    );
    Err(Error::new("bad-channel", rule))
}

/// The gateway names its functions after its key prefix: `shop-1:` becomes `shop_1`.
pub(crate) fn function(key_prefix: &str) -> String {
    let is_other = |c: char| !c.is_ascii_alphanumeric();
    let name = key_prefix.trim_matches(is_other).replace(is_other, "_");
    format!("{}_publish", if name.is_empty() { "sse" } else { &name })
}
