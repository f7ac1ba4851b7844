//! Parsers of `[tracing]`.

use reqwest::{
    Url,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use toml::Value;

use super::{
    error::{ValueError, invalid},
    parse::{Parsed, optional_text, path},
};

/// The path of traces in OTLP over HTTP.
const TRACES: &str = "/v1/traces";

/// The URL of a collector, or `None` if it is empty.
pub fn endpoint(value: &Value) -> Parsed<Option<Url>> {
    let Some(text) = optional_text(value)? else { return Ok(None) };
    // The value is not shown: it may contain a password.
    let url = Url::parse(&text).ok();
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    match url {
        None => Err(invalid!(
            "must be an http or https URL, for example \"http://otel-collector:4318\""
        )),
        Some(url) if !url.username().is_empty() || url.password().is_some() => {
            Err(invalid!("must not contain a user or password; use tracing.headers_file"))
        }
        Some(mut url) => {
            if url.path() == "/" {
                url.set_path(TRACES);
            }
            Ok(Some(url))
        }
    }
}

/// A file with one `name: value` per line; empty if the path is empty.
pub fn headers_file(value: &Value) -> Parsed<HeaderMap> {
    let Some(path) = path(value)? else { return Ok(HeaderMap::new()) };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(ValueError::UnreadableFile(path, source)),
    };
    let mut headers = HeaderMap::new();
    for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        // The line is not shown: it is secret.
        let (name, value) = header(line).ok_or_else(|| {
            let (path, n) = (path.display(), n + 1);
            invalid!("line {n} of {path} must be a header, for example \"x-api-key: abc\"")
        })?;
        headers.append(name, value);
    }
    Ok(headers)
}

fn header(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':')?;
    let mut value = HeaderValue::from_str(value.trim()).ok()?;
    value.set_sensitive(true);
    Some((name.trim().parse().ok()?, value))
}

/// A number from 0 to 1.
pub fn ratio(value: &Value) -> Parsed<f64> {
    let ratio = match value {
        Value::Float(ratio) => Some(*ratio),
        Value::Integer(ratio) => Some(*ratio as f64),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    ratio
        .filter(|ratio| (0.0..=1.0).contains(ratio))
        .ok_or_else(|| invalid!("must be a number from 0 to 1, for example 0.01 (got {value})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::String(text.to_owned())
    }

    #[test]
    fn endpoint_gets_the_path_of_traces() {
        let of = |url: &str| endpoint(&text(url)).unwrap().map(|url| url.to_string());
        assert_eq!(of("http://c:4318").as_deref(), Some("http://c:4318/v1/traces"));
        assert_eq!(of("https://c/otlp/v1/traces").as_deref(), Some("https://c/otlp/v1/traces"));
        assert_eq!(of(""), None);
        for bad in ["c:4318", "grpc://c:4317", "http://user:secret@c"] {
            let error = endpoint(&text(bad)).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn headers_are_read_and_never_shown() {
        let file = std::env::temp_dir().join(format!("sse-headers-{}", std::process::id()));
        let path = text(file.to_str().unwrap());
        std::fs::write(&file, "x-api-key: the-key\n\nauthorization: Bearer a:b\n").unwrap();
        let headers = headers_file(&path).unwrap();
        assert_eq!(headers["x-api-key"], "the-key");
        assert_eq!(headers["authorization"], "Bearer a:b");
        assert!(!format!("{headers:?}").contains("the-key"));
        std::fs::write(&file, "x: y\nthe-key\n").unwrap();
        let error = headers_file(&path).unwrap_err().to_string();
        assert!(error.contains("line 2") && !error.contains("the-key"), "{error}");
        std::fs::remove_file(file).unwrap();
        assert!(headers_file(&path).is_err());
        assert!(headers_file(&text("")).unwrap().is_empty());
    }

    #[test]
    fn ratio_is_between_0_and_1() {
        for (value, expected) in
            [(Value::Float(0.25), 0.25), (Value::Integer(1), 1.0), (text("0.01"), 0.01)]
        {
            assert_eq!(ratio(&value).unwrap(), expected);
        }
        for bad in [Value::Float(1.1), Value::Integer(-1), text("a"), text("NaN")] {
            assert!(ratio(&bad).is_err(), "{bad}");
        }
    }
}
