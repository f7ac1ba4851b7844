//! The address of a client behind proxies, from `Forwarded` (RFC 7239) or `X-Forwarded-For`.
//!
//! The header is read from the right while the proxy that wrote the element is trusted. An invalid
//! element ends the search, and the last valid address applies.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

/// Maximum number of hops to follow.
const MAX_HOPS: usize = 16;

/// The header that the proxies write. Only one is read, because clients can forge the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressHeader {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded`, RFC 7239.
    Forwarded,
}

impl AddressHeader {
    /// Name of the header.
    pub fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
        }
    }

    /// Splits off the last element; returns the value before it, and the element.
    fn last_element(self, value: &str) -> (Option<&str>, &str) {
        let comma = match self {
            Self::XForwardedFor => value.rfind(','),
            Self::Forwarded => last_comma(value),
        };
        comma.map_or((None, value), |at| (Some(&value[..at]), &value[at + 1..]))
    }

    /// The address in an element of the header.
    fn address(self, element: &str) -> Option<IpAddr> {
        match self {
            Self::XForwardedFor => node(element.trim()),
            Self::Forwarded => forwarded_for(element),
        }
    }
}

/// The last comma outside of quotes. Searched from the right, so that the client's part on the left
/// cannot change how the proxy's part is parsed.
fn last_comma(value: &str) -> Option<usize> {
    let bytes = value.as_bytes();
    let mut quoted = false;
    (0..bytes.len()).rev().find(|&at| {
        let escaped =
            || bytes[..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1;
        quoted ^= bytes[at] == b'"' && !escaped();
        !quoted && bytes[at] == b','
    })
}

/// The `for` parameter of an element (RFC 7239 section 4); `None` if it is missing or the element
/// is invalid.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut rest = element.trim();
    let mut named = None;
    loop {
        let (name, value) = rest.split_once('=')?;
        let is_token = |text: &str| !text.is_empty() && text.bytes().all(is_token_byte);
        let (value, after) = match value.strip_prefix('"') {
            Some(value) => quoted(value)?,
            None => {
                let (value, after) = value.split_at(value.find(';').unwrap_or(value.len()));
                is_token(value.trim_end()).then(|| (value.trim_end().to_owned(), after))?
            }
        };
        if !is_token(name) {
            return None;
        }
        // An element with two `for` parameters is invalid.
        if name.eq_ignore_ascii_case("for") && named.replace(value).is_some() {
            return None;
        }
        match after.trim_start().strip_prefix(';') {
            Some(more) => rest = more.trim_start(),
            None if after.trim().is_empty() => return node(&named?),
            None => return None,
        }
    }
}

/// Parses the rest of a quoted string (RFC 9110 section 5.6.4); returns its value and the text
/// after it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    loop {
        match chars.next()? {
            (at, '"') => return Some((value, &text[at + 1..])),
            (_, '\\') => value.push(chars.next()?.1),
            (_, plain) => value.push(plain),
        }
    }
}

/// Whether a byte may occur in a token (RFC 9110 section 5.6.2).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Parses an address with or without a port (RFC 7239 section 6). `unknown` and obfuscated
/// identifiers such as `_hidden` are not addresses.
fn node(text: &str) -> Option<IpAddr> {
    let bracketed =
        || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let plain = text.parse::<IpAddr>().ok();
    plain.or_else(bracketed).or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// Whether a peer is a trusted proxy.
pub fn is_trusted(peer: IpAddr, trusted: &[IpNet]) -> bool {
    let peer = peer.to_canonical();
    trusted.iter().any(|network| network.contains(&peer))
}

/// The client's address: the peer's address or, if the peer is a trusted proxy, the address that
/// the proxy names, and so on. `lines` are the values of the header, in order.
pub fn client<'a>(
    peer: IpAddr,
    trusted: &[IpNet],
    header: AddressHeader,
    lines: impl DoubleEndedIterator<Item = &'a str>,
) -> IpAddr {
    let mut known = peer.to_canonical();
    let elements = lines.rev().flat_map(|line| {
        let mut rest = Some(line);
        std::iter::from_fn(move || {
            let (before, element) = header.last_element(rest?);
            rest = before;
            Some(element)
        })
    });
    for element in elements.take(MAX_HOPS) {
        if !is_trusted(known, trusted) {
            break;
        }
        match header.address(element) {
            Some(address) => known = address.to_canonical(),
            None => break,
        }
    }
    known
}

/// The part of an address that identifies a client: the address itself, or the /64 of IPv6, which
/// is usually assigned to one site.
pub fn site(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client_of(peer: &str, header: AddressHeader, lines: &[&str]) -> String {
        let trusted: Vec<IpNet> =
            ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().unwrap()).to_vec();
        client(peer.parse().unwrap(), &trusted, header, lines.iter().copied()).to_string()
    }

    #[test]
    fn only_trusted_proxies_name_the_client() {
        use AddressHeader::XForwardedFor as X;
        assert_eq!(client_of("192.0.2.1", X, &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(client_of("10.0.0.1", X, &[]), "10.0.0.1");
        assert_eq!(client_of("10.0.0.1", X, &["198.51.100.7"]), "198.51.100.7");
        // The client's own part is on the left.
        assert_eq!(client_of("10.0.0.1", X, &["1.1.1.1, 198.51.100.7, 10.0.0.2"]), "198.51.100.7");
        assert_eq!(client_of("10.0.0.1", X, &["1.1.1.1", "198.51.100.7"]), "198.51.100.7");
        assert_eq!(client_of("::ffff:10.0.0.1", X, &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(client_of("fd00::1", X, &["198.51.100.7:5000"]), "198.51.100.7");
    }

    #[test]
    fn invalid_element_ends_the_search() {
        use AddressHeader::XForwardedFor as X;
        for bad in
            ["", "unknown", "198.51.100.7 1.1.1.1", "1.1.1", "a.example", "1.1.1.1;", "\"1.1.1.1\""]
        {
            assert_eq!(client_of("10.0.0.1", X, &[bad]), "10.0.0.1", "{bad}");
        }
        assert_eq!(client_of("10.0.0.1", X, &["198.51.100.7, junk, 10.0.0.2"]), "10.0.0.2");
        let long = ["10.0.0.9"; 40].join(",");
        assert_eq!(client_of("10.0.0.1", X, &["198.51.100.7", &long]), "10.0.0.9");
    }

    #[test]
    fn forwarded_header_is_parsed_by_rfc_7239() {
        use AddressHeader::Forwarded as F;
        assert_eq!(
            client_of("10.0.0.1", F, &["for=198.51.100.7;proto=https;by=10.0.0.1"]),
            "198.51.100.7"
        );
        assert_eq!(client_of("10.0.0.1", F, &["For=\"[2001:db8::1]:4711\""]), "2001:db8::1");
        assert_eq!(
            client_of("10.0.0.1", F, &["for=1.1.1.1, for=\"198.51.100.7:80\" , for=10.0.0.2"]),
            "198.51.100.7"
        );
        assert_eq!(
            client_of("10.0.0.1", F, &["for=198.51.100.7; proto=https , for=10.0.0.2;by=_x"]),
            "198.51.100.7"
        );
        // A client can choose the part in quotes and the part on the left.
        for chosen in ["a,for=9.9.9.9;x=", "a;for=9.9.9.9", "\\\",for=9.9.9.9;x=\\\"", "\\\\", ""] {
            let line = format!("for=198.51.100.7;host=\"{chosen}\"");
            assert_eq!(client_of("10.0.0.1", F, &[&line]), "198.51.100.7", "{line}");
        }
        for left in ["\"", "for=\"", "for=9.9.9.9;host=\"a", "\\\"", "\\"] {
            assert_eq!(
                client_of("10.0.0.1", F, &[&format!("{left}, for=198.51.100.7")]),
                "198.51.100.7",
                "{left}"
            );
        }
        for bad in [
            "for=unknown",
            "for=_hidden",
            "proto=https",
            "198.51.100.7",
            "for=1.1.1.1;for=2.2.2.2",
            "for=\"1.1.1.1",
            "for=\"1.1.1.1\"2",
            "garbage;;for=1.1.1.1;=;\"",
            "for=1.1.1.1;x",
            "for=1.1.1.1;=y",
            "for=1.1.1.1 x=y",
            "for=[2001:db8::1]",
            "for = 1.1.1.1",
        ] {
            assert_eq!(client_of("10.0.0.1", F, &[bad]), "10.0.0.1", "{bad}");
        }
    }

    #[test]
    fn ipv6_addresses_of_one_site_are_one_client() {
        let of = |text: &str| site(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3::4"), of("2001:db8:1:2::"));
        assert_ne!(of("2001:db8:1:2::"), of("2001:db8:1:3::"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
