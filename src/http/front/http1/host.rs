//! Validates `uri-host [ ":" port ]` of a Host header or a request target (RFC 9110 section 7.2,
//! RFC 3986 section 3.2). Pure.

/// Whether the text is a valid host with an optional port. An empty host is invalid for http and
/// https (RFC 9110 section 4.2).
pub fn is_valid(authority: &[u8]) -> bool {
    match authority.strip_prefix(b"[") {
        Some(rest) => match rest.iter().position(|byte| *byte == b']') {
            Some(end) => is_address(&rest[..end]) && is_port_part(&rest[end + 1..]),
            None => false,
        },
        None => {
            let end = authority.iter().position(|byte| *byte == b':').unwrap_or(authority.len());
            is_registered_name(&authority[..end]) && is_port_part(&authority[end..])
        }
    }
}

/// Whether the text between brackets is an IPv6 address or an address of a later version.
fn is_address(text: &[u8]) -> bool {
    match text.first() {
        Some(b'v' | b'V') => text.len() > 2 && text.iter().all(|b| is_plain(*b) || *b == b':'),
        _ => std::str::from_utf8(text).is_ok_and(|t| t.parse::<std::net::Ipv6Addr>().is_ok()),
    }
}

fn is_registered_name(mut name: &[u8]) -> bool {
    if name.is_empty() {
        return false;
    }
    while let Some((first, rest)) = name.split_first() {
        name = match first {
            b'%' => match rest {
                [a, b, rest @ ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => rest,
                _ => return false,
            },
            byte if is_plain(*byte) => rest,
            _ => return false,
        };
    }
    true
}

/// Whether the text is empty, or a colon and a port, which may be empty.
fn is_port_part(text: &[u8]) -> bool {
    match text.split_first() {
        None => true,
        Some((b':', [])) => true,
        Some((b':', digits)) if digits.iter().all(u8::is_ascii_digit) => {
            std::str::from_utf8(digits).is_ok_and(|port| port.parse::<u16>().is_ok())
        }
        Some(_) => false,
    }
}

/// Whether a byte is in `unreserved` or `sub-delims` of RFC 3986.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_valid_hosts_are_accepted() {
        for valid in [
            "x",
            "example.com",
            "example.com:8080",
            "example.com:",
            "127.0.0.1:80",
            "[::1]",
            "[::1]:80",
            "a_b",
            "x%2f",
            "[v1.a:b]",
        ] {
            assert!(is_valid(valid.as_bytes()), "{valid}");
        }
        for bad in [
            "", ":80", "a b", "a/b", "u@h", "a:b", "a:80:80", "a:65536", "a:+1", "[::1", "[::1]x",
            "[x]", "a%2", "a%zz", "a,b@c", "a?b", "a#b", "\u{17e}", "http://a",
        ] {
            assert!(!is_valid(bad.as_bytes()), "{bad}");
        }
    }
}
