//! The head of a request (RFC 9112 sections 2 to 6), parsed once by httparse and then validated.
//! Pure, and strict: input that another parser might read differently is malformed.

use std::mem::MaybeUninit;

use actix_http::{HttpMessage, Request, Version};
use actix_web::http::{
    Method, Uri,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};
use bytes::{Buf, BytesMut};

use super::{body::Decoder, host};
use crate::http::{malformed::Malformed, raw_query::RawQuery};

/// Maximum length of a head in bytes, including the request line and the final empty line.
pub const MAX_HEAD_BYTES: usize = 16 << 10;
/// Maximum number of header fields.
pub const MAX_HEADERS: usize = 96;

/// A request whose body has not been read.
pub struct Head {
    /// Method, target, version and header fields, without a payload.
    pub request: Request,
    /// Finds the end of the body.
    pub body: Decoder,
    /// Whether the client allows the connection to be reused.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

/// Takes a head from the start of `held`; `None` if more bytes are needed.
///
/// # Errors
/// The request is malformed; nothing was taken.
pub fn parse(held: &mut BytesMut) -> Result<Option<Head>, Malformed> {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut []);
    let head = match parsed.parse_with_uninit_headers(held, &mut headers) {
        Ok(httparse::Status::Complete(len)) if len <= MAX_HEAD_BYTES => {
            has_strict_line_ends(&held[..len])?;
            (read(&parsed)?, len)
        }
        Ok(httparse::Status::Partial) if held.len() < MAX_HEAD_BYTES => {
            has_strict_line_ends(held)?;
            return Ok(None);
        }
        Ok(_) => return Err(Malformed::HeadTooLong),
        Err(error) => return Err(fault(error, held)),
    };
    held.advance(head.1);
    Ok(Some(head.0))
}

fn fault(error: httparse::Error, bytes: &[u8]) -> Malformed {
    match error {
        httparse::Error::TooManyHeaders => Malformed::TooManyHeaders,
        httparse::Error::HeaderName | httparse::Error::HeaderValue => Malformed::Header,
        httparse::Error::Version if names_another_version(bytes) => Malformed::Version,
        httparse::Error::NewLine if has_strict_line_ends(bytes).is_err() => Malformed::Header,
        _ => Malformed::RequestLine,
    }
}

/// Whether the first line is a request line of another version of HTTP.
fn names_another_version(bytes: &[u8]) -> bool {
    let line = bytes.trim_ascii_start().split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (_, _, version, more) = (words.next(), words.next(), words.next(), words.next());
    let number = version.and_then(|version| version.strip_prefix(b"HTTP/"));
    let is_number = match number {
        Some([major]) => major.is_ascii_digit(),
        Some([major, b'.', minor]) => major.is_ascii_digit() && minor.is_ascii_digit(),
        _ => false,
    };
    is_number && more.is_none()
}

/// Rejects a LF without CR, which httparse accepts as a line end (RFC 9112 section 2.2 allows
/// both).
fn has_strict_line_ends(bytes: &[u8]) -> Result<(), Malformed> {
    // A CR at the very end may be followed by its LF later.
    let is_bare = |at: usize| match bytes[at] {
        b'\r' => bytes.get(at + 1).is_some_and(|next| *next != b'\n'),
        _ => at == 0 || bytes[at - 1] != b'\r',
    };
    match memchr::memchr2_iter(b'\r', b'\n', bytes).any(is_bare) {
        true => Err(Malformed::Header),
        false => Ok(()),
    }
}

/// Number of fields for which a head has room from the start.
const MIN_FIELDS: usize = 6;

fn read(parsed: &httparse::Request<'_, '_>) -> Result<Head, Malformed> {
    let (Some(method), Some(path)) = (parsed.method, parsed.path) else {
        return Err(Malformed::RequestLine);
    };
    let mut request = Request::new();
    let head = request.head_mut();
    head.version = if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    head.method = Method::from_bytes(method.as_bytes()).map_err(|_| Malformed::RequestLine)?;
    let (uri, query) = target(&head.method, path)?;
    head.uri = uri;
    // Actix makes room for 16 fields, 6.6 KiB, and keeps up to 128 heads for later requests.
    let count = parsed.headers.len();
    if head.headers.capacity() > 2 * count.max(MIN_FIELDS) {
        head.headers = HeaderMap::with_capacity(count.max(MIN_FIELDS));
    }
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed::Header)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| Malformed::Header)?;
        head.headers.append(name, value);
    }
    let (version, method, headers) = (head.version, &head.method, &head.headers);
    check_host(headers, version)?;
    let body = body(headers, version, method)?;
    let expects_continue = expects_continue(headers, version)?;
    let keep_alive = version == Version::HTTP_11 && !has_close(headers);
    if let Some(query) = query {
        request.extensions_mut().insert(query);
    }
    Ok(Head { request, body, keep_alive, expects_continue })
}

/// The target in origin form or `*` (RFC 9112 section 3.2); the absolute form is reduced to path
/// and query. The query of the origin form is separate.
fn target(method: &Method, text: &str) -> Result<(Uri, Option<RawQuery>), Malformed> {
    if method == Method::CONNECT {
        return Err(Malformed::Connect);
    }
    if text.starts_with('/')
        && let Some((path, query)) = text.split_once('?')
    {
        let query = RawQuery::new(query).ok_or(Malformed::Target)?;
        return Ok((parse_uri(path)?, Some(query)));
    }
    let uri = parse_uri(text)?;
    if text.starts_with('/') || text == "*" && method == Method::OPTIONS {
        return Ok((uri, None));
    }
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    let names_host = uri.authority().is_some_and(|a| host::is_valid(a.as_str().as_bytes()));
    let path = uri.path_and_query().filter(|_| is_http && names_host).ok_or(Malformed::Target)?;
    let path = path.as_str();
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Ok((path.parse().map_err(|_| Malformed::Target)?, None))
}

fn parse_uri(text: &str) -> Result<Uri, Malformed> {
    // The URI parser accepts some of these, and drops a fragment.
    if !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(Malformed::Target);
    }
    text.parse().map_err(|_| Malformed::Target)
}

/// Checks that there is exactly one valid host (RFC 9112 section 3.2).
fn check_host(headers: &HeaderMap, version: Version) -> Result<(), Malformed> {
    let mut all = headers.get_all(header::HOST);
    match (all.next(), all.next()) {
        (None, _) if version == Version::HTTP_10 => Ok(()),
        (Some(host), None) if host::is_valid(host.as_bytes()) => Ok(()),
        _ => Err(Malformed::Host),
    }
}

/// Determines the framing of the body (RFC 9112 section 6.3). A repeated Content-Length is
/// malformed, even with the same value.
fn body(headers: &HeaderMap, version: Version, method: &Method) -> Result<Decoder, Malformed> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH);
    let mut codings = headers.get_all(header::TRANSFER_ENCODING);
    let (length, coding) = (lengths.next(), codings.next());
    let is_ambiguous = length.is_some() && coding.is_some();
    if is_ambiguous || lengths.next().is_some() || codings.next().is_some() {
        return Err(Malformed::Length);
    }
    match (length, coding) {
        (_, Some(_)) if version == Version::HTTP_10 => Err(Malformed::Coding),
        (_, Some(coding)) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            Ok(Decoder::chunked())
        }
        (_, Some(_)) => Err(Malformed::Coding),
        (Some(length), _) => {
            let text = length.to_str().map_err(|_| Malformed::Length)?;
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let bytes = text.parse().ok().filter(|_| is_number).ok_or(Malformed::Length)?;
            Ok(Decoder::length(bytes))
        }
        // HTTP/1.0 requires Content-Length for an empty body, too (RFC 1945 section 7.2.2).
        (None, None) if version == Version::HTTP_10 && method == Method::POST => {
            Err(Malformed::Length)
        }
        (None, None) => Ok(Decoder::length(0)),
    }
}

/// Whether the client expects `100 Continue` (RFC 9110 section 10.1.1; not in HTTP/1.0).
fn expects_continue(headers: &HeaderMap, version: Version) -> Result<bool, Malformed> {
    if version == Version::HTTP_10 {
        return Ok(false);
    }
    let mut expects = false;
    for item in members(headers, header::EXPECT) {
        if !item.eq_ignore_ascii_case(b"100-continue") {
            return Err(Malformed::Expectation);
        }
        expects = true;
    }
    Ok(expects)
}

fn has_close(headers: &HeaderMap) -> bool {
    members(headers, header::CONNECTION).any(|item| item.eq_ignore_ascii_case(b"close"))
}

/// The members of a list in one or more fields (RFC 9110 section 5.6.1).
fn members(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(name).flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    lines.map(|item| item.trim_ascii()).filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Option<Head>, Malformed> {
        parse(&mut BytesMut::from(text))
    }

    #[test]
    fn head_is_taken_when_it_is_complete() {
        let text = "\r\nPOST /publish?a=b HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\n\
                    Content-Length: 3\r\nConnection: a, CLOSE\r\n\r\n";
        for end in 0..text.len() {
            assert!(parsed(&text[..end]).unwrap().is_none(), "{end}");
        }
        let mut held = BytesMut::from(format!("{text}abcGET").as_str());
        let head = parse(&mut held).unwrap().expect("it is whole");
        assert_eq!(held, "abcGET");
        let target = RawQuery::target_of(&head.request);
        assert_eq!((head.request.method(), target.as_str()), (&Method::POST, "/publish?a=b"));
        assert_eq!(head.request.headers().len(), 4);
        assert!(head.expects_continue && !head.keep_alive && !head.body.is_ended());
    }

    #[test]
    fn heads_are_bounded_in_bytes_and_fields() {
        let of_len = |len: usize| {
            let rest = "GET /? HTTP/1.1\r\nHost: x\r\n\r\n";
            rest.replace('?', &format!("?{}", "x".repeat(len - rest.len())))
        };
        assert!(parsed(&of_len(MAX_HEAD_BYTES)).unwrap().is_some());
        let too_long = of_len(MAX_HEAD_BYTES + 1);
        for text in [too_long.as_str(), &too_long[..MAX_HEAD_BYTES]] {
            assert_eq!(parsed(text).err(), Some(Malformed::HeadTooLong));
        }
        let of_fields = |count: usize| {
            format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "a: b\r\n".repeat(count - 1))
        };
        assert!(parsed(&of_fields(MAX_HEADERS)).unwrap().is_some());
        assert_eq!(parsed(&of_fields(MAX_HEADERS + 1)).err(), Some(Malformed::TooManyHeaders));
    }

    #[test]
    fn absolute_form_is_reduced_to_path_and_query() {
        for (target, path) in [
            ("http://a/b?c", "/b?c"),
            ("HTTPS://a:1", "/"),
            ("http://a?b", "/?b"),
            ("//a/b", "//a/b"),
        ] {
            let head = parsed(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).unwrap();
            assert_eq!(RawQuery::target_of(&head.expect("whole").request), path, "{target}");
        }
    }

    #[test]
    fn line_ends_other_than_crlf_are_malformed() {
        let valid = "GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n";
        assert!(parsed(valid).unwrap().is_some());
        for (at, _) in valid.match_indices("\r\n") {
            for end in ["\n", "\r", "\n\r"] {
                let mut bad = valid.to_owned();
                bad.replace_range(at..at + 2, end);
                // The end of the last line may not have arrived yet.
                assert!(!matches!(parsed(&bad), Ok(Some(_))), "{bad:?}");
            }
        }
        assert!(parsed(&format!("\n{valid}")).is_err());
    }
}
