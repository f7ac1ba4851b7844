//! Streams that wait without a task, over real sockets, without and with TLS.

use std::{cell::RefCell, io::Write, rc::Rc, time::Duration};

use actix_http::{Request, Response};
use actix_service::fn_service;
use actix_web::{
    Error,
    body::{BodyStream, BoxBody},
    http::StatusCode,
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use rustls::{
    SupportedProtocolVersion,
    pki_types::ServerName,
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{mpsc, oneshot},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::tests::{pair, serve_socket};
use crate::http::sockets::{peer::Peer, tcp::ClientTcp, tls::testing};

/// A test that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(30);

/// Without TLS, and with its versions.
const TLS: [Option<&SupportedProtocolVersion>; 3] = [None, Some(&TLS12), Some(&TLS13)];

trait ClientStream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> ClientStream for T {}

/// A stream whose head was read and which waits without a task.
struct Waiting<C> {
    client: C,
    peer: Peer,
    /// What the body yields next.
    pieces: mpsc::UnboundedSender<Bytes>,
    /// Ready when the body was dropped.
    dropped: oneshot::Receiver<()>,
}

type Client = Box<dyn ClientStream>;

async fn waiting(tls: Option<&'static SupportedProtocolVersion>) -> Waiting<Client> {
    let Some(version) = tls else {
        let (client, tcp) = pair().await;
        return served(Box::new(client) as Client, tcp).await;
    };
    let Waiting { client, peer, pieces, dropped } = waiting_over_tls(version).await;
    Waiting { client: Box::new(client), peer, pieces, dropped }
}

async fn waiting_over_tls(
    version: &'static SupportedProtocolVersion,
) -> Waiting<TlsStream<tokio::net::TcpStream>> {
    let (client, tcp) = connected(version).await;
    served(client, tcp).await
}

/// A client's socket and the gateway's end of it, after the handshake.
async fn connected(
    version: &'static SupportedProtocolVersion,
) -> (TlsStream<tokio::net::TcpStream>, ClientTcp) {
    let (client, tcp) = pair().await;
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(testing::client(version));
    let both =
        async { tokio::join!(connector.connect(name, client), tcp.accept_tls(testing::server())) };
    let (client, tcp) = tokio::time::timeout(LIMIT, both).await.expect("a handshake");
    (client.unwrap(), tcp.unwrap())
}

async fn served<C: ClientStream>(mut client: C, tcp: ClientTcp) -> Waiting<C> {
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
    let (peer, task) = serve_socket(tcp, fn_service(respond));
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

async fn read_until(client: &mut impl ClientStream, end: &[u8]) -> Vec<u8> {
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
    for tls in TLS {
        let Waiting { mut client, peer, dropped, pieces: _pieces } = waiting(tls).await;
        assert!(peer.write_now(b"1\r\na\r\n"));
        assert_eq!(read_until(&mut client, b"a\r\n").await, b"1\r\na\r\n");
        assert!(peer.is_watched() && peer.progress().is_some());
        drop(client);
        let ended = tokio::time::timeout(LIMIT, dropped).await.expect("the body is dropped");
        assert!(ended.is_err() && !peer.write_now(b"1\r\nb\r\n"));
    }
}

#[actix_web::test]
async fn full_socket_gets_the_rest_before_what_follows() {
    for tls in TLS {
        let Waiting { mut client, peer, pieces, dropped: _dropped } = waiting(tls).await;
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
}

#[actix_web::test]
async fn resumed_stream_continues_with_its_body() {
    for tls in TLS {
        let Waiting { mut client, peer, pieces, dropped } = waiting(tls).await;
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
}

#[actix_web::test]
async fn waiting_stream_limits_what_its_client_sends() {
    for tls in TLS {
        let Waiting { mut client, dropped, peer: _peer, pieces: _pieces } = waiting(tls).await;
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
}

#[actix_web::test]
async fn waiting_stream_ends_with_close_notify() {
    for version in [&TLS12, &TLS13] {
        let Waiting { mut client, peer: _peer, pieces: _pieces, dropped } =
            waiting_over_tls(version).await;
        // The socket stays open.
        client.get_mut().1.send_close_notify();
        client.flush().await.unwrap();
        let ended = tokio::time::timeout(LIMIT, dropped).await.expect("the body is dropped");
        assert!(ended.is_err());
    }
}

#[actix_web::test]
async fn waiting_stream_continues_after_key_updates() {
    let Waiting { mut client, peer, pieces, dropped: _dropped } = waiting_over_tls(&TLS13).await;
    for n in 0..3 {
        client.get_mut().1.refresh_traffic_keys().unwrap();
        client.flush().await.unwrap();
        // The gateway's own update is sent with what it writes next.
        assert!(peer.write_now(b"1\r\na\r\n"), "{n}");
        assert_eq!(read_until(&mut client, b"a\r\n").await, b"1\r\na\r\n");
    }
    pieces.send("b".into()).unwrap();
    peer.resume();
    assert_eq!(read_until(&mut client, b"b\r\n").await, b"1\r\nb\r\n");
}

#[actix_web::test]
async fn forged_record_ends_a_waiting_stream_with_an_alert() {
    let Waiting { mut client, peer: _peer, pieces: _pieces, dropped } =
        waiting_over_tls(&TLS13).await;
    let forged = [&[23, 3, 3, 0, 40][..], &[7; 40]].concat();
    client.get_mut().0.write_all(&forged).await.unwrap();
    let ended = tokio::time::timeout(LIMIT, dropped).await.expect("the body is dropped");
    assert!(ended.is_err());
    let error = client.read_u8().await.expect_err("an alert").to_string();
    assert!(error.contains("BadRecordMac"), "{error}");
}

#[actix_web::test]
async fn ended_stream_sends_close_notify() {
    for version in [&TLS12, &TLS13] {
        let Waiting { mut client, peer, pieces, dropped: _dropped } =
            waiting_over_tls(version).await;
        drop(pieces);
        peer.resume();
        let mut rest = Vec::new();
        // Without close_notify, this is an error.
        let reading = client.read_to_end(&mut rest);
        tokio::time::timeout(LIMIT, reading).await.expect("the end").unwrap();
        assert_eq!(rest, b"0\r\n\r\n");
    }
}

/// The client has sent its request and the end in one piece: nothing is left in the socket that
/// would wake the watch.
#[actix_web::test]
async fn request_with_close_notify_leaves_no_waiting_stream() {
    let (mut client, tcp) = connected(&TLS13).await;
    let (guard, dropped) = oneshot::channel::<()>();
    let guard = Rc::new(RefCell::new(Some(guard)));
    let respond = move |_: Request| {
        let guard = guard.take().expect("one request");
        let body = stream::pending::<Result<Bytes, Error>>().inspect(move |_| {
            let _ = &guard;
        });
        let body = BoxBody::new(BodyStream::new(Box::pin(body)));
        async { Ok::<_, Error>(Response::with_body(StatusCode::OK, body)) }
    };
    let (peer, task) = serve_socket(tcp, fn_service(respond));
    peer.stream_began();
    peer.set_live();
    let (tcp, tls) = client.get_mut();
    tls.writer().write_all(b"GET /other HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    tls.send_close_notify();
    let mut bytes = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut bytes).unwrap();
    }
    tcp.write_all(&bytes).await.unwrap();
    tokio::time::timeout(LIMIT, task).await.expect("the stream takes over");
    let ended = tokio::time::timeout(LIMIT, dropped).await.expect("the body is dropped");
    assert!(ended.is_err() && !peer.is_watched());
}
