//! The ticket in a request: in `Authorization`, the query, or a cookie. A browser sends the cookie
//! by itself, for pages of other sites too, so that it counts only for pages that may read the
//! response.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{self, HeaderMap, HeaderName},
    },
};

use super::{api_keys::bearer, cookie, params::Params, responses};
use crate::{
    auth::{Credential, CredentialSource},
    settings::Settings,
};

/// The relation of a request's page to the gateway, as the browser sees it (Fetch Metadata, W3C).
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A page that may not use the cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignPage {
    /// Its origin is not allowed.
    Origin,
    /// It belongs to another origin, and does not name it.
    Site,
}

impl ForeignPage {
    /// The response.
    pub fn response(self) -> HttpResponse {
        let message = match self {
            Self::Origin => {
                "this origin may not use the ticket in the cookie; add it to cors.allowed_origins \
                 (\"*\" does not allow cookies)"
            }
            Self::Site => {
                "a page of another origin may not use the ticket in the cookie without CORS; open \
                 the stream with withCredentials, from an origin in cors.allowed_origins"
            }
        };
        responses::error(StatusCode::FORBIDDEN, "origin-not-allowed", message)
    }
}

/// The settings for tickets in a cookie.
#[derive(Clone, Debug)]
pub struct TicketCookie {
    /// `tickets.cookie`; `None`: there is no such cookie.
    name: Option<String>,
    /// `cors.allowed_origins`
    allowed_origins: Vec<String>,
}

impl TicketCookie {
    /// Takes what is needed from all settings.
    pub fn new(settings: &Settings) -> Self {
        let allowed_origins = settings.cors.allowed_origins.clone();
        Self { name: settings.tickets.cookie.clone(), allowed_origins }
    }

    /// The cookie in a request; `None` if it is missing or empty.
    fn presented<'a>(&self, request: &'a HttpRequest) -> Result<Option<&'a str>, ForeignPage> {
        let Some(name) = &self.name else { return Ok(None) };
        let token = cookie::value(request, name).filter(|token| !token.is_empty());
        if token.is_some() {
            let authority = request.uri().authority().map(|authority| authority.as_str());
            self.check_page(request.headers(), authority)?;
        }
        Ok(token)
    }

    /// Checks that a request comes from a page that may read the response: one of the gateway's
    /// own origin, or of an origin that is allowed by name. Requests of clients other than browsers
    /// name no page. `authority` is that of the request's target, if it has one.
    fn check_page(&self, headers: &HeaderMap, authority: Option<&str>) -> Result<(), ForeignPage> {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
        if let Some(origin) = text(header::ORIGIN) {
            let host = authority.or_else(|| text(header::HOST)).unwrap_or_default();
            let is_allowed = self.allowed_origins.iter().any(|allowed| allowed == origin);
            return match is_allowed || is_origin_of(origin, host) {
                true => Ok(()),
                false => Err(ForeignPage::Origin),
            };
        }
        match text(SEC_FETCH_SITE) {
            None | Some("same-origin" | "none") => Ok(()),
            Some(_) => Err(ForeignPage::Site),
        }
    }
}

/// Whether an origin is that of a host. The scheme is unknown: a proxy may have ended TLS.
fn is_origin_of(origin: &str, host: &str) -> bool {
    let Some((scheme, of_origin)) = origin.split_once("://") else { return false };
    let default_port = if scheme == "https" { ":443" } else { ":80" };
    let host = host.strip_suffix(default_port).unwrap_or(host);
    !of_origin.is_empty() && of_origin.eq_ignore_ascii_case(host)
}

/// The ticket in a request; `None`: the client presents none. An empty one counts as presented,
/// except in a cookie, because a client that lost its ticket must not become an anonymous one.
///
/// # Errors
/// The ticket is in a cookie, and the request comes from a page that may not use it.
pub fn credential<'a>(
    request: &'a HttpRequest,
    params: &'a Params,
    ticket_cookie: &TicketCookie,
) -> Result<Option<Credential<'a>>, ForeignPage> {
    let from = |source| move |token| Credential { token, source };
    let bearer = bearer(request).map(from(CredentialSource::Bearer));
    let query = params.get("ticket").map(from(CredentialSource::Query));
    let explicit = [bearer, query].into_iter().flatten();
    if let Some(credential) = explicit.clone().find(|credential| !credential.token.is_empty()) {
        return Ok(Some(credential));
    }
    let cookie = ticket_cookie.presented(request)?.map(from(CredentialSource::Cookie));
    Ok(cookie.or(explicit.last()))
}

#[cfg(test)]
mod tests {
    use actix_web::{http::header::HeaderValue, test::TestRequest};

    use super::*;

    fn settings(origins: &[&str]) -> TicketCookie {
        let allowed_origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
        TicketCookie { name: Some("sse".to_owned()), allowed_origins }
    }

    fn presented(uri: &str, headers: &[(&str, &str)]) -> Option<(String, CredentialSource)> {
        let mut request = TestRequest::with_uri(uri);
        for header in headers {
            request = request.append_header(*header);
        }
        let request = request.to_http_request();
        let params = Params::of(&request).unwrap();
        let found = credential(&request, &params, &settings(&[])).unwrap();
        found.map(|credential| (credential.token.to_owned(), credential.source))
    }

    #[test]
    fn bearer_precedes_query_which_precedes_cookie() {
        use CredentialSource::{Bearer, Cookie, Query};
        let bearer = ("authorization", "Bearer b");
        let cookie = ("cookie", "other=x; sse=c; sse=d");
        let expect = |token: &str, source| Some((token.to_owned(), source));
        assert_eq!(presented("/events?ticket=q", &[bearer, cookie]), expect("b", Bearer));
        assert_eq!(presented("/events?ticket=q", &[cookie]), expect("q", Query));
        assert_eq!(presented("/events", &[cookie]), expect("c", Cookie));
        assert_eq!(presented("/events?ticket=", &[cookie]), expect("c", Cookie));
        assert_eq!(
            presented("/events", &[("authorization", "Basic b"), cookie]),
            expect("c", Cookie)
        );
    }

    #[test]
    fn empty_ticket_is_none_only_in_a_cookie() {
        let empty = Some((String::new(), CredentialSource::Query));
        assert_eq!(presented("/events?ticket=", &[]), empty);
        assert_eq!(presented("/events?ticket=", &[("cookie", "sse=")]), empty);
        assert_eq!(presented("/events", &[("cookie", "sse=; sse2=x")]), None);
        assert_eq!(presented("/events", &[]), None);
        let bearer = presented("/events", &[("authorization", "Bearer")]);
        assert_eq!(bearer, Some((String::new(), CredentialSource::Bearer)));
    }

    #[test]
    fn cookie_is_found_beside_one_with_other_bytes() {
        let value = HeaderValue::from_bytes(b"name=J\xf6rg; sse=c").unwrap();
        let request = TestRequest::default().insert_header(("cookie", value)).to_http_request();
        let found = settings(&[]).presented(&request);
        assert_eq!(found, Ok(Some("c")));
    }

    #[test]
    fn cookie_counts_only_for_pages_that_may_read_the_response() {
        let check = |origins: &[&str], headers: &[(&str, &str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                map.insert(name, HeaderValue::from_str(value).unwrap());
            }
            settings(origins).check_page(&map, None).err()
        };
        let host = ("host", "sse.example");
        let named = &["https://app.example"][..];
        for (origins, origin, allowed) in [
            (named, "https://app.example", true),
            (named, "https://app.example:8443", false),
            (named, "http://app.example", false),
            (named, "https://sse.example", true),
            (&["*"], "https://app.example", false),
            (&[], "https://app.example", false),
            (&[], "http://sse.example", true),
            (&[], "https://SSE.example", true),
            (&[], "https://sse.example:8443", false),
            (&[], "https://evil.sse.example", false),
            (&[], "https://sse.example.evil.example", false),
            (&[], "null", false),
            (&[], "", false),
        ] {
            // A browser that names an allowed origin may belong to another site.
            for site in ["cross-site", "same-site", "same-origin"] {
                let headers = [host, ("origin", origin), ("sec-fetch-site", site)];
                let expected = (!allowed).then_some(ForeignPage::Origin);
                assert_eq!(check(origins, &headers), expected, "{origin} {site}");
            }
        }
        // Over HTTP/2 the host is in the target.
        let mut page = HeaderMap::new();
        page.insert(header::ORIGIN, HeaderValue::from_static("https://sse.example"));
        assert_eq!(settings(&[]).check_page(&page, Some("sse.example:443")), Ok(()));
        let other = settings(&[]).check_page(&page, Some("other.example"));
        assert_eq!(other, Err(ForeignPage::Origin));
        let with_port = [("host", "sse.example:443"), ("origin", "https://sse.example")];
        assert_eq!(check(&[], &with_port), None);
        for (site, allowed) in
            [("cross-site", false), ("same-site", false), ("same-origin", true), ("none", true)]
        {
            let expected = (!allowed).then_some(ForeignPage::Site);
            assert_eq!(check(named, &[host, ("sec-fetch-site", site)]), expected, "{site}");
        }
        assert_eq!(check(&[], &[host]), None, "not a browser");
    }
}
