//! The query of a request over HTTP/1, which is not part of its URI: it contains the ticket, and
//! actix's parser takes 5 % of a connect for it.

use std::rc::Rc;

use actix_web::HttpMessage;

/// The query, without the question mark.
#[derive(Clone)]
pub struct RawQuery(Rc<str>);

impl RawQuery {
    /// Checks a query; `None` if it contains a character that no query may contain.
    pub fn new(text: &str) -> Option<Self> {
        text.bytes().all(|byte| IS_ALLOWED[usize::from(byte)]).then(|| Self(text.into()))
    }

    /// The query of a request.
    pub fn of(request: &actix_web::HttpRequest) -> Self {
        let separate = request.extensions().get().cloned();
        separate.unwrap_or_else(|| Self(request.query_string().into()))
    }

    /// The query as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Path and query of a request, for tests.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn target_of(request: &actix_http::Request) -> String {
        let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
        match request.extensions().get::<Self>() {
            Some(query) => format!("{target}?{}", query.as_str()),
            None => target,
        }
    }
}

/// The bytes that the `http` crate accepts in a query: all visible ASCII but `" # < >`.
const IS_ALLOWED: [bool; 256] = {
    let mut allowed = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        allowed[byte as usize] = !matches!(byte, b'"' | b'#' | b'<' | b'>');
        byte += 1;
    }
    allowed
};

#[cfg(test)]
mod tests {
    use actix_web::http::Uri;

    use super::*;

    #[test]
    fn the_same_queries_are_valid_as_in_a_uri() {
        for byte in 0..=u8::MAX {
            let Ok(text) = std::str::from_utf8(std::slice::from_ref(&byte)) else { continue };
            // The parser ends the query at a fragment.
            let is_valid = byte != b'#' && format!("/?{text}").parse::<Uri>().is_ok();
            assert_eq!(RawQuery::new(text).is_some(), is_valid, "{text:?}");
        }
    }
}
