//! The query of a request.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web::Query};

use super::{raw_query::RawQuery, responses};

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

impl From<BadRequest> for Box<HttpResponse> {
    fn from(error: BadRequest) -> Self {
        Box::new(error.response())
    }
}

/// The parameters of a query. If a parameter is repeated, the first one applies.
pub enum Params {
    /// Nothing is encoded, as in the URL of a stream with a ticket: nothing is copied.
    Plain(RawQuery),
    /// The decoded names and values.
    Decoded(Vec<(String, String)>),
}

impl Params {
    /// Decodes the query of a request.
    ///
    /// # Errors
    /// The query cannot be decoded.
    pub fn of(request: &HttpRequest) -> Result<Self, BadRequest> {
        Self::parse(RawQuery::of(request)).ok_or_else(|| BadRequest {
            code: "bad-request",
            message: "the query cannot be decoded; percent-encode its values as UTF-8".to_owned(),
        })
    }

    fn parse(query: RawQuery) -> Option<Self> {
        let text = query.as_str();
        if memchr::memchr2(b'%', b'+', text.as_bytes()).is_some() {
            let decoded = Query::<Vec<(String, String)>>::from_query(text).ok()?;
            return Some(Self::Decoded(decoded.into_inner()));
        }
        Some(Self::Plain(query))
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        match self {
            Self::Plain(query) => plain(query.as_str()).find(|(n, _)| *n == name).map(|(_, v)| v),
            Self::Decoded(pairs) => pairs.iter().find(|(n, _)| n == name).map(|(_, v)| &**v),
        }
    }

    /// The value of a parameter, unless it is empty.
    pub fn non_empty(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }
}

/// The names and values of a query in which nothing is encoded.
fn plain(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let ends = memchr::memchr_iter(b'&', query.as_bytes()).chain([query.len()]);
    let parts = ends.scan(0, |start, end| query.get(std::mem::replace(start, end + 1)..end));
    let parts = parts.filter(|part| !part.is_empty());
    parts.map(|part| part.split_once('=').unwrap_or((part, "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_without_encoding_is_read_like_any_other() {
        for query in ["", "a=1&b=2", "&&a&=&=x&b==c=", "ticket=a.b-c_d&topics=x,y*&a=1&a=2"] {
            let fast: Vec<(&str, &str)> = plain(query).collect();
            let full = Query::<Vec<(String, String)>>::from_query(query).unwrap().into_inner();
            let full: Vec<(&str, &str)> = full.iter().map(|(n, v)| (&**n, &**v)).collect();
            assert_eq!(fast, full, "{query}");
        }
        for (query, a) in [("a=%41+b", Some("A b")), ("b=1&a=2&a=3", Some("2")), ("b", None)] {
            let params = Params::parse(RawQuery::new(query).unwrap()).unwrap();
            assert_eq!(params.get("a"), a, "{query}");
        }
    }
}
