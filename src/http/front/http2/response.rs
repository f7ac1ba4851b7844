//! Converts the head of a response from actix to h2.

use std::time::SystemTime;

use actix_http::ResponseHead;
use actix_web::body::BodySize;
use http::{HeaderName, HeaderValue, StatusCode, header};

/// Fields that HTTP/2 forbids (RFC 9113 section 8.2.2), and the one that is derived from the size
/// of the body.
const OMITTED: [HeaderName; 4] =
    [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, header::CONTENT_LENGTH];
const OMITTED_TEXT: [&str; 2] = ["keep-alive", "proxy-connection"];

/// The head of a response with a body of this size.
pub fn head(from: &ResponseHead, size: BodySize) -> http::Response<()> {
    let mut response = http::Response::new(());
    // The same status in another version of the type.
    *response.status_mut() =
        StatusCode::from_u16(from.status.as_u16()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.reserve(from.headers.len() + 2);
    for (name, value) in from.headers.iter() {
        let name = HeaderName::from_bytes(name.as_str().as_bytes());
        let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) else {
            continue;
        };
        if !OMITTED.contains(&name) && !OMITTED_TEXT.contains(&name.as_str()) {
            headers.append(name, value);
        }
    }
    if let BodySize::Sized(bytes) = size {
        headers.insert(header::CONTENT_LENGTH, bytes.into());
    }
    if let Ok(date) = HeaderValue::from_str(&httpdate::fmt_http_date(SystemTime::now())) {
        headers.entry(header::DATE).or_insert(date);
    }
    response
}

#[cfg(test)]
mod tests {
    use actix_http::Response;

    use super::*;

    #[test]
    fn connection_specific_fields_are_omitted() {
        let mut response = Response::build(actix_web::http::StatusCode::OK);
        for name in [
            "connection",
            "transfer-encoding",
            "upgrade",
            "keep-alive",
            "proxy-connection",
            "x-own",
        ] {
            response.insert_header((name, "a"));
        }
        response.insert_header(("content-length", "7"));
        let response = response.finish();
        let names = |size| {
            let head = head(response.head(), size);
            let text = |(name, value): (&HeaderName, &HeaderValue)| {
                format!("{name}: {}", value.to_str().unwrap())
            };
            let mut all: Vec<String> = head.headers().iter().map(text).collect();
            all.retain(|line| !line.starts_with("date: "));
            assert_eq!(all.len() + 1, head.headers().len(), "one date");
            all
        };
        assert_eq!(names(BodySize::Stream), ["x-own: a"]);
        assert_eq!(names(BodySize::Sized(3)), ["x-own: a", "content-length: 3"]);
    }
}
