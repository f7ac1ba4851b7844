//! The parameter `limit`.

use crate::http::params::{BadRequest, Params};

/// Number of items in a response, unless the request limits it, and the maximum.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;
/// The maximum number of items that a request asks for.
///
/// # Errors
/// It is not an integer from 1 to 1000.
pub fn limit(params: &Params) -> Result<usize, BadRequest> {
    let Some(text) = params.get("limit") else { return Ok(DEFAULT_LIMIT) };
    let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
    limit.ok_or_else(|| BadRequest {
        code: "bad-limit",
        message: format!("limit must be an integer from 1 to {MAX_LIMIT}"),
    })
}
