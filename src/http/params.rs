//! The query of a request.

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
pub struct Params(Vec<(String, String)>);

impl Params {
    /// Decodes the query of a request.
    ///
    /// # Errors
    /// The query cannot be decoded.
    pub fn of(request: &HttpRequest) -> Result<Self, BadRequest> {
        let query = Query::<Vec<(String, String)>>::from_query(request.query_string());
        query.map(|query| Self(query.into_inner())).map_err(|_| BadRequest {
            code: "bad-request",
            message: "the query cannot be decoded; percent-encode its values as UTF-8".to_owned(),
        })
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The value of a parameter, unless it is empty.
    pub fn non_empty(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }
}
