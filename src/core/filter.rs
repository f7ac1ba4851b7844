//! The `filter` claim of a ticket: which tags an event must have to be delivered.

use serde_json::Value;

use super::event_options::{EventOptions, MAX_TAGS, is_tag_name, is_tag_value};

/// Maximum number of values of one tag in a filter.
pub const MAX_FILTER_VALUES: usize = 64;

/// What is wrong with a claim that [`Filter::of_claim`] does not accept.
pub const INVALID_FILTER: &str = "filter must be an object of 1 to 8 tags, each with a list of 1 \
    to 64 values, such as {\"region\": [\"eu\", \"us\"]}";

/// For each tag, the values of which an event must have one. An event without that tag passes.
///
/// ```
/// use sse_gateway::core::{event_options::{EventOptions, Tags}, filter::Filter};
///
/// let filter = Filter::of_claim(&serde_json::json!({"region": ["eu", "us"]})).expect("a filter");
/// let event = |tags| EventOptions {
///     tags: Tags::parse(tags).expect("tags"),
///     ..Default::default()
/// };
/// assert!(filter.allows(Some(&event("region=eu"))) && !filter.allows(Some(&event("region=jp"))));
/// assert!(filter.allows(Some(&event("team=a"))) && filter.allows(None));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(Box<[TagFilter]>);

/// A tag, and the values that it may have, sorted.
type TagFilter = (Box<str>, Box<[Box<str>]>);

impl Filter {
    /// Parses the claim: an object of at most 8 tags, each with 1 to 64 values. `None`: invalid.
    pub fn of_claim(claim: &Value) -> Option<Self> {
        let tags = claim.as_object().filter(|tags| (1..=MAX_TAGS).contains(&tags.len()))?;
        let tags = tags.iter().map(|(name, values)| {
            let values = values.as_array()?;
            let is_valid = is_tag_name(name) && (1..=MAX_FILTER_VALUES).contains(&values.len());
            let text = |value: &Value| Some(value.as_str().filter(|v| is_tag_value(v))?.into());
            let mut values: Vec<Box<str>> = values.iter().map(text).collect::<Option<_>>()?;
            values.sort();
            values.dedup();
            is_valid.then(|| (name.as_str().into(), values.into()))
        });
        Some(Self(tags.collect::<Option<_>>()?))
    }

    /// Whether an event with these options is delivered.
    pub fn allows(&self, options: Option<&EventOptions>) -> bool {
        let Some(tags) = options.map(|options| &options.tags) else { return true };
        self.0.iter().all(|(name, values)| {
            tags.get(name).is_none_or(|tag| values.binary_search_by(|v| (**v).cmp(tag)).is_ok())
        })
    }

    /// The first tag and its values, by which streams are indexed.
    pub fn first(&self) -> Option<(&str, &[Box<str>])> {
        self.0.first().map(|(name, values)| (&**name, &**values))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn other_claims_are_invalid() {
        let many: Vec<_> = (0..=MAX_FILTER_VALUES).map(|n| n.to_string()).collect();
        for bad in [
            json!(null),
            json!([]),
            json!({}),
            json!({"a": "b"}),
            json!({"a": []}),
            json!({"a": [1]}),
            json!({"a b": ["c"]}),
            json!({"a": ["b c"]}),
            json!({"a": many}),
            json!((0..9).map(|n| (n.to_string(), json!(["a"]))).collect::<serde_json::Map<_, _>>()),
        ] {
            assert_eq!(Filter::of_claim(&bad), None, "{bad}");
        }
    }
}
