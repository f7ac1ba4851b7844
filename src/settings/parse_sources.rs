//! Parser of external sources. All errors of all tables are reported.

use toml::Value;

use super::{
    RedisTarget, RedisUrl,
    error::{ValueError, invalid},
    parse::{self, Parsed},
    parse_keys::tables,
    sources::{EntryMapping, EntryTemplates, RedisStream, StreamStart},
};
use crate::core::template::Template;

/// Maximum number of sources of one kind.
const MAX_SOURCES: usize = 16;
/// Maximum length of a source's name, in bytes.
const MAX_NAME_BYTES: usize = 64;
/// Maximum length of the key of a stream and the name of a group, in bytes.
const MAX_KEY_BYTES: usize = 512;
const MEMBERS: [&str; 11] = [
    "name", "stream", "group", "url", "start", "channel", "type", "payload", "id", "keep",
    "envelope",
];
const DEFAULT_GROUP: &str = "sse-gateway";

/// The name of a source: in logs, metrics, keys.
///
/// # Errors
/// It is not 1 to 64 letters, digits and `_ . -`.
pub fn source_name(value: &Value) -> Parsed<String> {
    let name = parse::text(value)?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(name);
    }
    Err(invalid!("must have 1 to {MAX_NAME_BYTES} letters, digits and _ . - (got {name:?})"))
}

/// `sources.redis_streams`: one table for each stream.
///
/// # Errors
/// Every error of every table, with the number of the table from 1.
pub fn redis_streams(value: &Value) -> Parsed<Vec<RedisStream>> {
    let tables = tables(value)?;
    if tables.len() > MAX_SOURCES {
        return Err(invalid!(
            "must be at most {MAX_SOURCES} streams (got {}); write to fewer streams",
            tables.len()
        ));
    }
    let (mut streams, mut problems) = (Vec::new(), Vec::new());
    for (number, table) in (1..).zip(&tables) {
        let mut table = StreamTable { number, table, problems: &mut problems };
        streams.extend(table.parse());
    }
    let mut names: Vec<&str> = streams.iter().map(|stream: &RedisStream| &*stream.name).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        problems.push(invalid!("two sources have the name {:?}; give each its own name", pair[0]));
    }
    if problems.is_empty() { Ok(streams) } else { Err(ValueError::Several(problems)) }
}

/// One table while it is parsed.
struct StreamTable<'a> {
    number: usize,
    table: &'a toml::Table,
    problems: &'a mut Vec<ValueError>,
}

impl StreamTable<'_> {
    /// `None`: there is an error.
    fn parse(&mut self) -> Option<RedisStream> {
        let before = self.problems.len();
        for name in self.table.keys().filter(|name| !MEMBERS.contains(&name.as_str())) {
            let problem = format!("unknown member {name:?}; use {}", MEMBERS.join(", "));
            self.problem(&problem);
        }
        if !self.has("stream") {
            self.problem("stream is missing; set it to the key, for example stream = \"orders\"");
        }
        let stream = self.member("stream", key).unwrap_or_default();
        let name = if self.has("name") {
            self.member("name", source_name)
        } else {
            let name = source_name(&Value::String(stream.clone())).ok();
            if name.is_none() && !stream.is_empty() {
                self.problem(
                    "name is missing, and the key of the stream cannot be one; set it, for \
                     example name = \"orders\"",
                );
            }
            name
        };
        let group = self.member("group", key).unwrap_or_else(|| DEFAULT_GROUP.to_owned());
        let url = self.member("url", url);
        let start = self.member("start", start).unwrap_or_default();
        let mapping = self.mapping();
        if self.problems.len() > before {
            return None;
        }
        Some(RedisStream { name: name?, stream, group, url, start, mapping: mapping? })
    }

    /// How entries become events. `None`: there is an error.
    fn mapping(&mut self) -> Option<EntryMapping> {
        let channel = self.member("channel", template);
        let only_templates = ["type", "payload", "id", "keep"];
        if self.has("envelope") {
            for name in only_templates.into_iter().filter(|name| self.table.contains_key(*name)) {
                let problem =
                    format!("{name} must not be set together with envelope, which has it");
                self.problems.push(invalid!("stream {}: {problem}; remove it", self.number));
            }
            let field = self.member("envelope", parse::non_empty)?;
            return Some(EntryMapping::Envelope { field, channel });
        }
        if !self.has("channel") {
            for name in only_templates.into_iter().filter(|name| self.table.contains_key(*name)) {
                let problem = format!("{name} needs channel");
                self.problems.push(invalid!(
                    "stream {}: {problem}; set it, for example channel = \"broadcast:orders\"",
                    self.number
                ));
            }
            return Some(EntryMapping::Members);
        }
        let kind = self.member("type", template);
        let payload = self.member("payload", parse::non_empty);
        let key = self.member("id", template);
        let keep = self.member("keep", template);
        let templates = EntryTemplates { channel: channel?, kind, payload, key, keep };
        Some(EntryMapping::Templates(Box::new(templates)))
    }

    fn has(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    fn problem(&mut self, problem: &str) {
        self.problems.push(invalid!("stream {}: {problem}", self.number));
    }

    /// The value of a member; `None`: it is missing or invalid.
    fn member<T>(&mut self, name: &str, parse: impl Fn(&Value) -> Parsed<T>) -> Option<T> {
        match parse(self.table.get(name)?) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.problems.push(invalid!("stream {}: {name} {problem}", self.number));
                None
            }
        }
    }
}

fn key(value: &Value) -> Parsed<String> {
    let key = parse::non_empty(value)?;
    if key.len() > MAX_KEY_BYTES || key.chars().any(char::is_control) {
        return Err(invalid!("must have at most {MAX_KEY_BYTES} bytes without control characters"));
    }
    Ok(key)
}

fn template(value: &Value) -> Parsed<Template> {
    Template::parse(&parse::text(value)?).map_err(|error| invalid!("{error}"))
}

fn url(value: &Value) -> Parsed<RedisUrl> {
    let url = parse::redis_url(value)?;
    if matches!(url.target, RedisTarget::Cluster { .. }) {
        return Err(invalid!(
            "must not be a cluster; only the stream of redis.url can be on a cluster"
        ));
    }
    Ok(url)
}

/// `new` or `beginning`.
fn start(value: &Value) -> Parsed<StreamStart> {
    match value.as_str() {
        Some("new") => Ok(StreamStart::New),
        Some("beginning") => Ok(StreamStart::Beginning),
        _ => Err(invalid!("must be \"new\" or \"beginning\" (got {value})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: &str) -> Parsed<Vec<RedisStream>> {
        redis_streams(&Value::String(json.to_owned()))
    }

    #[test]
    fn each_form_of_a_table_has_its_mapping() {
        let streams = parsed(
            r#"[{"stream": "events"},
                {"stream": "app:orders", "name": "orders", "group": "g", "start": "beginning",
                 "channel": "user:{userId}:events", "type": "order-{status}", "keep": "{orderId}"},
                {"stream": "mail", "envelope": "data", "url": "redis://u:hush@b:1"}]"#,
        )
        .unwrap();
        let [events, orders, mail] = &streams[..] else { panic!("{streams:?}") };
        assert_eq!((&*events.name, &*events.group), ("events", "sse-gateway"));
        assert_eq!((events.start, &events.mapping), (StreamStart::New, &EntryMapping::Members));
        let EntryMapping::Templates(templates) = &orders.mapping else { panic!("{orders:?}") };
        assert_eq!(templates.channel.to_string(), "user:{userId}:events");
        assert_eq!((&*orders.name, orders.start), ("orders", StreamStart::Beginning));
        assert!(matches!(&mail.mapping, EntryMapping::Envelope { field, channel: None }
            if field == "data"));
        assert!(!format!("{mail:?}").contains("hush"), "{mail:?}");
    }

    #[test]
    fn errors_name_the_table_the_member_and_the_fix() {
        for (json, expected) in [
            (r#"[{"group": "g"}]"#, "stream 1: stream is missing; set it to the key"),
            (r#"[{"stream": "a:b"}]"#, "stream 1: name is missing"),
            (r#"[{"stream": "a", "name": "a b"}]"#, "stream 1: name must have 1 to 64 letters"),
            (r#"[{"stream": "a"}, {"stream": "a"}]"#, "two sources have the name \"a\""),
            (r#"[{"stream": "a", "type": "t"}]"#, "stream 1: type needs channel"),
            (r#"[{"stream": "a", "channel": "user:{:x"}]"#, "channel must have a field name"),
            (r#"[{"stream": "a", "envelope": "e", "type": "t"}]"#, "together with envelope"),
            (r#"[{"stream": "a", "start": "end"}]"#, "must be \"new\" or \"beginning\""),
            (r#"[{"stream": "a", "url": "redis+cluster://a:1"}]"#, "must not be a cluster"),
            (r#"[{"stream": "a", "chanel": "c"}]"#, "unknown member \"chanel\"; use name, stream"),
            (r#"[{"stream": ""}]"#, "stream 1: stream must not be empty"),
        ] {
            let error = parsed(json).unwrap_err().to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
        let many: Vec<_> = (0..17).map(|n| format!(r#"{{"stream": "s{n}"}}"#)).collect();
        let error = parsed(&format!("[{}]", many.join(","))).unwrap_err().to_string();
        assert!(error.contains("at most 16 streams (got 17)"), "{error}");
    }
}
