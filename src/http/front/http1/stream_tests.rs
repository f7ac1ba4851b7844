//! Streams that wait without a task, over real sockets.

use std::{cell::RefCell, rc::Rc, time::Duration};

use actix_http::{Request, Response};
use actix_service::fn_service;
use actix_web::{
    Error,
    body::{BodyStream, BoxBody},
    http::StatusCode,
};
use bytes::Bytes;
use futures_util::stream;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, oneshot},
};

use super::tests::connect_to;
use crate::http::sockets::peer::Peer;

/// A test that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(30);

/// A stream whose head was read and which waits without a task.
struct Waiting {
    client: TcpStream,
    peer: Peer,
    /// What the body yields next.
    pieces: mpsc::UnboundedSender<Bytes>,
    /// Ready when the body was dropped.
    dropped: oneshot::Receiver<()>,
}

async fn waiting() -> Waiting {
    let (pieces, receiver) = mpsc::unbounded_channel::<Bytes>();
    let (guard, dropped) = oneshot::channel::<()>();
    let body = stream::unfold((receiver, guard), |(mut receiver, guard)| async {
        let piece = receiver.recv().await?;
        Some((Ok::<_, Error>(piece), (receiver, guard)))
    });
    let body = Rc::new(RefCell::new(Some(BoxBody::new(BodyStream::new(Box::pin(body))))));
    let respond = move |_: Request| {
        let body = body.take().expect("one request");
        async { Ok::<_, Error>(Response::with_body(StatusCode::OK, body)) }
    };
    let (mut client, peer, task) = connect_to(fn_service(respond)).await;
    peer.stream_began();
    peer.set_live();
    client.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    tokio::time::timeout(LIMIT, task).await.expect("the stream takes over");
    read_until(&mut client, b"\r\n\r\n").await;
    let watched = async {
        while !peer.is_watched() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, watched).await.expect("it waits");
    Waiting { client, peer, pieces, dropped }
}

async fn read_until(client: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut read = Vec::new();
    let reading = async {
        while !read.ends_with(end) {
            read.push(client.read_u8().await.unwrap());
        }
    };
    tokio::time::timeout(LIMIT, reading).await.expect("bytes");
    read
}

#[actix_web::test]
async fn waiting_stream_writes_at_once_and_ends_with_its_client() {
    let Waiting { mut client, peer, dropped, pieces: _pieces } = waiting().await;
    assert!(peer.write_now(b"1\r\na\r\n"));
    assert_eq!(read_until(&mut client, b"a\r\n").await, b"1\r\na\r\n");
    assert!(peer.is_watched() && peer.progress().is_some());
    drop(client);
    let ended = tokio::time::timeout(LIMIT, dropped).await.expect("the body is dropped");
    assert!(ended.is_err() && !peer.write_now(b"1\r\nb\r\n"));
}

#[actix_web::test]
async fn full_socket_gets_the_rest_before_what_follows() {
    let Waiting { mut client, peer, pieces, dropped: _dropped } = waiting().await;
    // The client reads nothing, so this exceeds the socket's buffers.
    let large = vec![b'x'; 16 << 20];
    assert!(peer.write_now(&large), "the start is written and the rest kept");
    assert!(!peer.write_now(b"1\r\na\r\n"), "a task writes the rest");
    pieces.send("b".into()).unwrap();
    let mut read = vec![0; large.len()];
    let reading = client.read_exact(&mut read);
    tokio::time::timeout(LIMIT, reading).await.expect("all bytes").unwrap();
    assert!(read == large);
    assert_eq!(read_until(&mut client, b"b\r\n").await, b"1\r\nb\r\n");
}

#[actix_web::test]
async fn resumed_stream_continues_with_its_body() {
    let Waiting { mut client, peer, pieces, dropped } = waiting().await;
    pieces.send("a".into()).unwrap();
    peer.resume();
    assert!(!peer.is_watched());
    assert_eq!(read_until(&mut client, b"a\r\n").await, b"1\r\na\r\n");
    drop(pieces);
    peer.resume();
    assert_eq!(read_until(&mut client, b"0\r\n\r\n").await, b"0\r\n\r\n");
    let ended = tokio::time::timeout(LIMIT, dropped).await.expect("the body is dropped");
    assert!(ended.is_err());
}

#[actix_web::test]
async fn waiting_stream_limits_what_its_client_sends() {
    let Waiting { mut client, dropped, peer: _peer, pieces: _pieces } = waiting().await;
    let sending = async {
        let mut sent_bytes = 0;
        while client.write_all(&[b'x'; 1024]).await.is_ok() {
            sent_bytes += 1024;
            assert!(sent_bytes < 64 << 20, "the stream accepts any amount");
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, sending).await.expect("it is disconnected");
    let ended = tokio::time::timeout(LIMIT, dropped).await.expect("the body is dropped");
    assert!(ended.is_err());
}
