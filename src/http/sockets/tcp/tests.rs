//! Sockets, without TLS.

use std::net;

use tokio::io::AsyncReadExt;

use super::*;
use crate::{
    http::sockets::{
        budget::{SocketBudget, WorkerLoad},
        idle::IdleLimits,
    },
    metrics::Metrics,
};

#[test]
fn accepted_sockets_inherit_the_options_of_the_listener() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    set_inherited_options(&listener);
    let _client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let socket = SockRef::from(&accepted);
    assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT_BYTES);
    assert!(socket.tcp_nodelay().unwrap());
}

#[tokio::test]
async fn client_that_always_sends_is_left_to_the_runtime() {
    let budget = SocketBudget::new("public", 8, IdleLimits { crowded: 8, max: 8 }, &Metrics::new());
    let slot = budget.try_slot(&WorkerLoad::of_workers(1).remove(0)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (tcp, address) = listener.accept().unwrap();
    client.write_all(&[0; 64]).unwrap();
    assert_eq!(tcp.peek(&mut [0]).unwrap(), 1, "it has arrived");
    tcp.set_nonblocking(true).unwrap();
    let mut socket = ClientTcp::new(tcp, address, slot);
    for _ in 0..UNREGISTERED_CALLS {
        assert_eq!(socket.read(&mut [0]).await.unwrap(), 1);
        assert_eq!(socket.has_ended(), Some(false));
    }
    assert_eq!(socket.read(&mut [0]).await.unwrap(), 1);
    assert_eq!(socket.has_ended(), None);
}

/// ARCHITECTURE.md#what-a-stream-holds lists what else a stream holds.
#[test]
fn socket_takes_at_most_its_budget() {
    assert_eq!(size_of::<Inner>(), 152, "update the table");
}
