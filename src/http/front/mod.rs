//! The front door of the public listener: TLS, the protocol of a new connection, and its server.
//! HTTP/1 is served here (`http1`), HTTP/2 by actix; both call the same app (routes, CORS, access
//! log).
//!
//! Why not actix's HTTP/1.1 dispatcher: it keeps buffers for each connection, so that an idle
//! stream cost 15 KiB and not 3.7 (docs/benchmarks.md); it decodes all that is pipelined at once;
//! and it sets no limit to a body that does not end. Bounding it from outside took a second parser
//! in front of it, and parsers in series that disagree are how request smuggling starts.

mod actix_http2;
mod detect;
mod http1;
mod prefixed;
mod read;
mod socket;
mod waiting;

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use actix_http::{HttpServiceBuilder, KeepAlive, Request, Response, error::DispatchError};
use actix_service::{IntoServiceFactory, Service, ServiceFactory, fn_factory, fn_service};
use actix_web::{
    body::{BoxBody, MessageBody},
    rt::net::TcpStream,
};
use futures_util::future::LocalBoxFuture;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use self::{
    actix_http2::Idle,
    detect::{Protocol, detect},
    http1::WorkerContext,
    prefixed::Prefixed,
    socket::Socket,
    waiting::Waiting,
};
use super::peer::Peer;
use crate::state::instance::Instance;

/// The head of a request must have come within this time; over TLS with the handshake.
pub const HEAD: Duration = Duration::from_secs(10);

/// The service of the public listener: HTTP/1.1 and HTTP/2, by prior knowledge or ALPN. Sent bytes
/// that nobody acknowledges for `user_timeout` end a connection. `app` makes the app of this
/// worker.
pub fn service<I, S, B>(
    instance: Arc<Instance>,
    user_timeout: Duration,
    tls: Option<TlsAcceptor>,
    app: impl Fn() -> I,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = DispatchError, InitError = ()>
where
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = ()> + 'static,
    S::Error: Into<Response<BoxBody>> + 'static,
    S::InitError: std::fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    S::Service: 'static,
    <S::Service as Service<Request>>::Future: 'static,
    B: MessageBody + 'static,
{
    let http1 = Rc::new(app().into_factory());
    let http2 = HttpServiceBuilder::default()
        .keep_alive(KeepAlive::default())
        .client_request_timeout(HEAD)
        .client_disconnect_timeout(Duration::from_secs(1))
        .on_connect_ext(|io: &Idle, extensions| {
            if let Some(peer) = io.peer() {
                extensions.insert(peer.clone());
            }
        })
        .finish(app());
    let http2 = Rc::new(http2);
    fn_factory(move || {
        let (http1, http2, tls) = (http1.clone(), http2.clone(), tls.clone());
        let context = WorkerContext { instance: instance.clone(), waiting: Waiting::default() };
        async move {
            let http1 = http1.new_service(()).await;
            let http1 = Rc::new(http1.map_err(|error| tracing::error!(?error, "no app"))?);
            let http2 = Rc::new(http2.new_service(()).await?);
            let context = Rc::new(context);
            Ok(fn_service(move |tcp| {
                let opened = open(tcp, tls.clone(), context.waiting.clone());
                serve(user_timeout, context.clone(), opened, http1.clone(), http2.clone())
            }))
        }
    })
}

/// A connection whose protocol is known, and by when its first head must have come. None: it is
/// over, took too long, or gave way to others.
async fn open(tcp: TcpStream, tls: Option<TlsAcceptor>, waiting: Waiting) -> Option<(Protocol, Prefixed, Instant)> {
    let deadline = Instant::now() + HEAD;
    let mut place = waiting.enter();
    let opening = async {
        let socket = match tls {
            None => Socket::Clear(tcp),
            Some(tls) => Socket::Tls(Box::new(tls.accept(tcp).await?)),
        };
        detect(socket).await
    };
    tokio::select! {
        opened = tokio::time::timeout_at(deadline, opening) => {
            opened.ok()?.ok().map(|(protocol, io)| (protocol, io, deadline))
        }
        () = place.lost() => None,
    }
}

fn serve<S, H, B>(
    user_timeout: Duration,
    context: Rc<WorkerContext>,
    opened: impl Future<Output = Option<(Protocol, Prefixed, Instant)>> + 'static,
    http1: Rc<S>,
    http2: Rc<H>,
) -> LocalBoxFuture<'static, Result<(), DispatchError>>
where
    S: Service<Request> + 'static,
    S::Response: Into<Response<B>>,
    S::Error: Into<Response<BoxBody>>,
    B: MessageBody + 'static,
    H: Service<(Idle, actix_http::Protocol, Option<SocketAddr>), Response = (), Error = DispatchError> + 'static,
{
    Box::pin(async move {
        // Nothing was asked: nothing is answered.
        let Some((protocol, io, deadline)) = opened.await else { return Ok(()) };
        let peer = Peer::of(io.socket.tcp(), user_timeout);
        match protocol {
            Protocol::Http2 => actix_http2::serve(io, peer, context.waiting.clone(), &*http2).await,
            Protocol::Http1 => {
                http1::serve(io, peer, http1, context, deadline).await;
                Ok(())
            }
        }
    })
}
