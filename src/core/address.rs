//! Whose address is a client's, behind proxies: RFC 7239 (`Forwarded`) and `X-Forwarded-For`, read from the right, as far as those who
//! wrote are trusted. What cannot be read ends the search: the last address that is known counts.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

/// More hops are not followed.
const MAX_HOPS: usize = 16;

/// The header that the proxies write. Only one: what they do not write comes from the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressHeader {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded`, RFC 7239.
    Forwarded,
}

impl AddressHeader {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
        }
    }

    /// The address that an element of the header names.
    fn address(self, element: &str) -> Option<IpAddr> {
        match self {
            Self::XForwardedFor => node(element.trim()),
            Self::Forwarded => {
                let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
                let mut named = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"));
                let value = named.next()?.1.trim();
                // Twice `for` in one element is no element.
                let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
                named.next().is_none().then(|| node(quoted.unwrap_or(value)))?
            }
        }
    }
}

/// RFC 7239 section 6: an address, with or without a port. `unknown` and `_hidden` are none.
fn node(text: &str) -> Option<IpAddr> {
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let plain = text.parse::<IpAddr>().ok();
    plain.or_else(bracketed).or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// The client's address: that of the peer, or while it is a trusted proxy's the one that this proxy has named. `lines` are the values
/// of the header, in order.
pub fn client<'a>(
    peer: IpAddr,
    trusted: &[IpNet],
    header: AddressHeader,
    lines: impl DoubleEndedIterator<Item = &'a str>,
) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut known = peer.to_canonical();
    for element in lines.rev().flat_map(|line| line.rsplit(',')).take(MAX_HOPS) {
        if !is_trusted(&known) {
            break;
        }
        match header.address(element) {
            Some(address) => known = address.to_canonical(),
            None => break,
        }
    }
    known
}

/// What counts as one client: an address, of IPv6 the /64 that a site gets.
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
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().unwrap()).to_vec();
        client(peer.parse().unwrap(), &trusted, header, lines.iter().copied()).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        use AddressHeader::XForwardedFor as X;
        assert_eq!(client_of("192.0.2.1", X, &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(client_of("10.0.0.1", X, &[]), "10.0.0.1");
        assert_eq!(client_of("10.0.0.1", X, &["198.51.100.7"]), "198.51.100.7");
        // What the client wrote itself stands on the left.
        assert_eq!(client_of("10.0.0.1", X, &["1.1.1.1, 198.51.100.7, 10.0.0.2"]), "198.51.100.7");
        assert_eq!(client_of("10.0.0.1", X, &["1.1.1.1", "198.51.100.7"]), "198.51.100.7");
        assert_eq!(client_of("::ffff:10.0.0.1", X, &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(client_of("fd00::1", X, &["198.51.100.7:5000"]), "198.51.100.7");
    }

    #[test]
    fn what_cannot_be_read_ends_the_search() {
        use AddressHeader::XForwardedFor as X;
        for bad in ["", "unknown", "198.51.100.7 1.1.1.1", "1.1.1", "a.example", "1.1.1.1;", "\"1.1.1.1\""] {
            assert_eq!(client_of("10.0.0.1", X, &[bad]), "10.0.0.1", "{bad}");
        }
        assert_eq!(client_of("10.0.0.1", X, &["198.51.100.7, junk, 10.0.0.2"]), "10.0.0.2");
        let long = ["10.0.0.9"; 40].join(",");
        assert_eq!(client_of("10.0.0.1", X, &["198.51.100.7", &long]), "10.0.0.9");
    }

    #[test]
    fn forwarded_is_read_by_its_own_rules() {
        use AddressHeader::Forwarded as F;
        assert_eq!(client_of("10.0.0.1", F, &["for=198.51.100.7;proto=https;by=10.0.0.1"]), "198.51.100.7");
        assert_eq!(client_of("10.0.0.1", F, &["For=\"[2001:db8::1]:4711\""]), "2001:db8::1");
        assert_eq!(client_of("10.0.0.1", F, &["for=1.1.1.1, for=\"198.51.100.7:80\" , for=10.0.0.2"]), "198.51.100.7");
        for bad in
            ["for=unknown", "for=_hidden", "proto=https", "198.51.100.7", "for=1.1.1.1;for=2.2.2.2", "for=\"1.1.1.1"]
        {
            assert_eq!(client_of("10.0.0.1", F, &[bad]), "10.0.0.1", "{bad}");
        }
    }

    #[test]
    fn a_site_of_ipv6_is_one_client() {
        let of = |text: &str| site(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3::4"), of("2001:db8:1:2::"));
        assert_ne!(of("2001:db8:1:2::"), of("2001:db8:1:3::"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
