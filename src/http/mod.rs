//! HTTP: the public and the admin listener. Only this module and those above it use actix-web.

pub mod access;
pub mod admin;
pub mod admission;
pub mod api_keys;
pub mod body;
pub mod client_address;
pub mod client_stream;
pub mod cookie;
pub mod cors;
pub mod credentials;
pub mod events;
pub mod front;
pub mod history;
pub mod malformed;
pub mod params;
pub mod poll;
pub mod publish;
pub mod request_body;
pub mod request_id;
pub mod responses;
pub mod routes;
pub mod since;
pub mod sockets;
pub mod stream_reset;
pub mod tickets;
pub mod worker;
