//! Replies of the function library in which each value has a name.

use std::str::FromStr;

use redis::{FromRedisValue, ParsingError, Value};

/// The names and values of a reply, of which there are few.
pub struct NamedReply(Vec<(String, String)>);

impl NamedReply {
    /// A value; empty if the reply has no value with that name.
    pub fn text(&self, name: &str) -> &str {
        self.0.iter().rev().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }

    /// A number; `None` if the reply has no value with that name, or if it is not a number.
    pub fn number<T: FromStr>(&self, name: &str) -> Option<T> {
        self.text(name).parse().ok()
    }
}

impl FromRedisValue for NamedReply {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        Vec::from_redis_value(value).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_by_name() {
        let text = |text: &str| Value::BulkString(text.into());
        let values = [text("held"), Value::Int(1), text("n"), text("-1"), text("token"), text("")];
        let reply: NamedReply = redis::from_redis_value(Value::Array(values.into())).unwrap();
        assert_eq!((reply.text("held"), reply.text("token"), reply.text("other")), ("1", "", ""));
        assert_eq!((reply.number("held"), reply.number::<i64>("n")), (Some(1), Some(-1)));
        assert_eq!(reply.number::<u64>("n"), None);
    }

    #[test]
    fn reply_without_names_is_an_error() {
        let reply = Value::Array(vec![Value::BulkString(b"used".into())]);
        assert!(redis::from_redis_value::<NamedReply>(reply).is_err());
    }
}
