//! `Forwarded` and `X-Forwarded-For`: a client cannot change the address that a trusted proxy
//! appends.
#![no_main]

use std::net::IpAddr;

use ipnet::IpNet;
use libfuzzer_sys::fuzz_target;
use sse_gateway::core::address::{AddressHeader, client};

fuzz_target!(|text: &str| {
    let proxy = IpAddr::from([10, 0, 0, 1]);
    let real = IpAddr::from([198, 51, 100, 7]);
    let trusted = [IpNet::from(IpAddr::from([10, 0, 0, 1]))];
    // A proxy quotes values that it copies from a client.
    let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
    for (header, element) in [
        (AddressHeader::XForwardedFor, real.to_string()),
        (AddressHeader::Forwarded, format!("for={real}")),
        (AddressHeader::Forwarded, format!("for={real};host=\"{quoted}\"")),
    ] {
        let found = |peer, lines: &[&str]| client(peer, &trusted, header, lines.iter().copied());
        assert_eq!(found(real, &[text, &element]), real, "an untrusted peer was believed");
        assert_eq!(found(proxy, &[text, &element]), real, "lines");
        assert_eq!(found(proxy, &[&format!("{text}, {element}")]), real, "one line");
        let _ = found(proxy, &[text]);
    }
});
