//! The socket of a stream or poll, as the connection sees it.

use std::rc::Rc;

use actix_web::{HttpMessage, HttpRequest};

use super::{sockets::peer::Peer, stream_reset::StreamReset};
use crate::{
    admission::ClientStream,
    state::client_liveness::{ClientLiveness, Progress},
};

/// The socket of a request, and its stream of HTTP/2.
#[derive(Clone)]
pub struct StreamSocket {
    /// `None` if the client disconnected before its request was handled.
    peer: Option<Peer>,
    /// Resets only the request's stream; HTTP/2 only.
    reset: Option<Rc<StreamReset>>,
}

impl StreamSocket {
    /// The socket of a request, which the front has added to the request.
    pub fn of_request(request: &HttpRequest) -> Self {
        let extensions = request.extensions();
        Self { peer: extensions.get().cloned(), reset: extensions.get().cloned() }
    }

    /// Ends the connection after its last stream.
    pub fn retire(&self) {
        if let Some(peer) = &self.peer {
            peer.retire();
        }
    }
}

impl ClientLiveness for StreamSocket {
    fn progress(&self) -> Option<Progress> {
        self.peer.as_ref()?.progress()
    }

    fn write_now(&self, chunks: &[u8]) -> bool {
        self.reset.is_none() && self.peer.as_ref().is_some_and(|peer| peer.write_now(chunks))
    }

    fn set_live(&self) {
        self.peer.iter().for_each(Peer::set_live);
    }

    fn resume_writer(&self) {
        self.peer.iter().for_each(Peer::resume);
    }

    fn has_stall_timer(&self) -> bool {
        self.reset.is_some()
    }

    fn disconnect(&self) -> bool {
        match (&self.peer, &self.reset) {
            (None, _) => false,
            (Some(_), Some(reset)) => {
                reset.request();
                true
            }
            (Some(peer), None) => peer.abort(),
        }
    }
}

/// A stream of a socket; counted until it is dropped.
pub struct StreamOfPeer(StreamSocket);

impl StreamOfPeer {
    /// Counts a stream of this socket.
    pub fn new(socket: StreamSocket) -> Self {
        if let Some(peer) = &socket.peer {
            peer.stream_began();
        }
        Self(socket)
    }
}

impl ClientStream for StreamOfPeer {
    fn liveness(&self) -> Box<dyn ClientLiveness> {
        Box::new(self.0.clone())
    }

    fn has_stalled(&self) -> bool {
        self.0.reset.as_ref().is_some_and(|reset| reset.is_stalled())
    }

    fn retire(&self) {
        self.0.retire();
    }
}

impl Drop for StreamOfPeer {
    fn drop(&mut self) {
        if let Some(peer) = &self.0.peer {
            peer.stream_ended();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use futures_util::FutureExt;
    use tokio::{
        io::AsyncReadExt,
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::{
        http::sockets::{
            budget::{SocketBudget, WorkerLoad},
            idle::IdleLimits,
            tcp::ClientTcp,
        },
        metrics::Metrics,
    };

    fn stream_of(peer: &Peer) -> StreamOfPeer {
        StreamOfPeer::new(StreamSocket { peer: Some(peer.clone()), reset: None })
    }

    const IDLE: IdleLimits = IdleLimits { crowded: 8, max: 8 };

    #[tokio::test]
    async fn socket_is_evictable_only_without_streams() {
        let budget = SocketBudget::new("public", 8, IDLE, &Metrics::new());
        let slot = budget.try_slot(&WorkerLoad::of_workers(1).remove(0)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (tcp, address) = listener.accept().await.unwrap();
        let socket = ClientTcp::new(tcp.into_std().unwrap(), address, slot);
        let peer = socket.peer();
        let streams = [(); 2].map(|()| stream_of(&peer));
        assert!(peer.has_streams() && !budget.idle.evict_oldest());
        let mut evicted = Box::pin(peer.evicted());
        assert!(evicted.as_mut().now_or_never().is_none());
        let [first, last] = streams;
        drop(first);
        assert!(!budget.idle.evict_oldest());
        drop(last);
        // The task is woken, so that it waits for its eviction.
        let (waited, ()) = tokio::join!(evicted, async {
            tokio::task::yield_now().await;
            assert!(budget.idle.evict_oldest());
        });
        assert_eq!(waited, ());
        // A stream that is admitted at that moment has precedence.
        let _stream = stream_of(&peer);
        assert!(peer.evicted().now_or_never().is_none());
    }

    #[tokio::test]
    async fn closed_socket_is_left_alone_when_its_descriptor_is_reused() {
        let budget = SocketBudget::new("public", 8, IDLE, &Metrics::new());
        let load = WorkerLoad::of_workers(1).remove(0);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let accept = async || {
            let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (tcp, address) = listener.accept().await.unwrap();
            let (number, slot) = (tcp.as_raw_fd(), budget.try_slot(&load).unwrap());
            (client, ClientTcp::new(tcp.into_std().unwrap(), address, slot), number)
        };
        let (_client, first, first_number) = accept().await;
        let stream = stream_of(&first.peer());
        let socket = stream.liveness();
        assert!(socket.progress().is_some());
        drop(first);
        assert_eq!(budget.open(), 0, "a peer does not keep the slot");
        // The system assigns the lowest free number; another test of the process may get it.
        let mut others = Vec::new();
        while others.last().is_none_or(|(_, _, number)| *number != first_number) && others.len() < 8
        {
            others.push(accept().await);
        }
        assert!(!socket.disconnect() && socket.progress().is_none());
        for (mut client, other, _) in others {
            assert!(other.peer().progress().is_some());
            let mut byte = [0];
            let silent = client.read(&mut byte).now_or_never().is_none();
            assert!(silent, "the socket is still open");
        }
    }
}
