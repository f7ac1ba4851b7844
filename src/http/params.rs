//! The query of a request.

use std::borrow::Cow;

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web::Query};

use super::responses;

/// A malformed request, which gets status 400.
#[derive(Debug)]
pub struct BadRequest {
    /// The code of the error.
    pub code: &'static str,
    /// The problem and the fix.
    pub message: String,
}

impl BadRequest {
    /// The response.
    pub fn response(&self) -> HttpResponse {
        responses::error(StatusCode::BAD_REQUEST, self.code, &self.message)
    }
}

/// The decoded parameters of a query. If a parameter is repeated, the first one applies.
pub struct Params<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Params<'a> {
    /// Decodes the query of a request.
    ///
    /// # Errors
    /// The query cannot be decoded.
    pub fn of(request: &'a HttpRequest) -> Result<Self, BadRequest> {
        Self::parse(request.query_string()).ok_or_else(|| BadRequest {
            code: "bad-request",
            message: "the query cannot be decoded; percent-encode its values as UTF-8".to_owned(),
        })
    }

    fn parse(query: &'a str) -> Option<Self> {
        if query.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
            let decoded = Query::<Vec<(String, String)>>::from_query(query).ok()?.into_inner();
            let owned = decoded.into_iter().map(|(name, value)| (name.into(), value.into()));
            return Some(Self(owned.collect()));
        }
        // Nothing is encoded, as in the URL of a stream with a ticket: nothing is copied.
        let parts = query.split('&').filter(|part| !part.is_empty());
        let pairs = parts.map(|part| part.split_once('=').unwrap_or((part, "")));
        Some(Self(pairs.map(|(name, value)| (name.into(), value.into())).collect()))
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| &**value)
    }

    /// The value of a parameter, unless it is empty.
    pub fn non_empty(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_without_encoding_is_read_like_any_other() {
        for query in ["", "a=1&b=2", "&&a&=&=x&b==c=", "ticket=a.b-c_d&topics=x,y*&a=1&a=2"] {
            let fast = Params::parse(query).unwrap().0;
            let full = Query::<Vec<(String, String)>>::from_query(query).unwrap().into_inner();
            let fast: Vec<(&str, &str)> = fast.iter().map(|(n, v)| (&**n, &**v)).collect();
            let full: Vec<(&str, &str)> = full.iter().map(|(n, v)| (&**n, &**v)).collect();
            assert_eq!(fast, full, "{query}");
        }
        let encoded = Params::parse("a=%41+b").unwrap();
        assert_eq!(encoded.get("a"), Some("A b"));
    }
}
