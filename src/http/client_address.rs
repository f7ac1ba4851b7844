//! The address of a request's client.

use std::net::IpAddr;

use actix_web::HttpRequest;

use crate::{core::address, settings::Server};

/// The address of a request's client; `None` if it has already disconnected. Headers of trusted
/// proxies are evaluated.
pub fn client_address(request: &HttpRequest, settings: &Server) -> Option<IpAddr> {
    let peer = request.peer_addr()?.ip().to_canonical();
    if !address::is_trusted(peer, &settings.trusted_proxies) {
        return Some(peer);
    }
    let header = settings.client_address_header;
    let lines = request.headers().get_all(header.name());
    let lines: Vec<&str> = lines.filter_map(|line| line.to_str().ok()).collect();
    Some(address::client(peer, &settings.trusted_proxies, header, lines.into_iter()))
}
