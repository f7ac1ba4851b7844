//! The front door of the public listener. It looks at what a new connection wants: an event stream over HTTP/1 is answered here,
//! with a writer of our own; HTTP/2 is served by [`http2`]; all else goes to actix as it came, one request at a time.
//!
//! Why: actix' HTTP/1.1 dispatcher keeps buffers for each connection. Without them an idle stream costs 3.7 KiB instead of 15; CPU is
//! about the same (docs/benchmarks.md). The request still goes through the same app (routes, CORS, access log).

mod framing;
pub mod http2;
mod lent;
mod look;
mod paced;
mod prefixed;
mod socket;
mod waiting;
mod writer;

use std::{io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use actix_http::{
    HttpMessage, HttpServiceBuilder, KeepAlive, Protocol, Request, Response, Version, error::DispatchError,
};
use actix_service::{IntoServiceFactory, Service, ServiceFactory, fn_factory, fn_service};
use actix_web::{body::MessageBody, rt::net::TcpStream};
use futures_util::future::LocalBoxFuture;
use tokio_rustls::TlsAcceptor;

use self::{
    framing::MAX_HEAD_BYTES,
    http2::{Connections, Http2Limits},
    lent::{Home, Lent},
    look::Wanted,
    paced::Paced,
    socket::Socket,
    waiting::{Place, Waiting},
};
use super::{answers, peer::Peer};
use crate::state::instance::Instance;

/// The head of a request must have come within this time; over TLS with the handshake.
pub const HEAD: Duration = Duration::from_secs(10);

/// The service of the public listener: HTTP/1.1 and HTTP/2, by prior knowledge or ALPN. Sent bytes that nobody acknowledges for
/// `user_timeout` end a connection. `app` makes the app of this worker.
pub fn service<I, S, B>(
    instance: Arc<Instance>,
    user_timeout: Duration,
    tls: Option<TlsAcceptor>,
    app: impl Fn() -> I,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = DispatchError, InitError = ()>
where
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = ()> + 'static,
    S::Error: Into<Response<actix_http::body::BoxBody>> + 'static,
    S::InitError: std::fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    S::Service: 'static,
    <S::Service as Service<Request>>::Future: 'static,
    B: MessageBody + 'static,
{
    let streams = Rc::new(app().into_factory());
    let http = HttpServiceBuilder::default()
        .keep_alive(KeepAlive::default())
        .client_request_timeout(HEAD)
        .client_disconnect_timeout(Duration::from_secs(1))
        .h1_allow_half_closed(false)
        .on_connect_ext(|lent: &Lent, extensions| {
            if let Some(peer) = lent.peer() {
                extensions.insert(peer.clone());
            }
        })
        .finish(app());
    let http = Rc::new(http);
    fn_factory(move || {
        let (streams, http, tls, waiting) = (streams.clone(), http.clone(), tls.clone(), Waiting::default());
        let (instance, connections) = (instance.clone(), Connections::default());
        let (closing, all) = (instance.clone(), connections.clone());
        actix_web::rt::spawn(async move {
            closing.closed().await;
            all.close();
        });
        async move {
            let streams = Rc::new(streams.new_service(()).await.map_err(|error| tracing::error!(?error, "no app"))?);
            let http = Rc::new(http.new_service(()).await?);
            Ok(fn_service(move |tcp| {
                let waiting = waiting.clone();
                let wanted = soon(waiting.enter(), open(tcp, tls.clone()));
                let worker = http2::Worker {
                    service: streams.clone(),
                    limits: Http2Limits::of(&instance.settings.limits),
                    waiting: waiting.clone(),
                    connections: connections.clone(),
                };
                instance.count_request();
                serve(user_timeout, waiting, wanted, streams.clone(), http.clone(), worker)
            }))
        }
    })
}

async fn open(tcp: TcpStream, tls: Option<TlsAcceptor>) -> io::Result<Wanted> {
    let socket = match tls {
        None => Socket::Clear(tcp),
        Some(tls) => Socket::Tls(Box::new(tls.accept(tcp).await?)),
    };
    look::wanted(Paced::new(socket)).await
}

/// Whoever opens a connection has to say soon what it wants. None: it did not.
async fn soon(mut place: Place, wanted: impl Future<Output = io::Result<Wanted>>) -> Option<Wanted> {
    tokio::select! {
        wanted = tokio::time::timeout(HEAD, wanted) => wanted.ok()?.ok(),
        () = place.lost() => None,
    }
}

fn serve<S, H, B>(
    user_timeout: Duration,
    waiting: Waiting,
    wanted: impl Future<Output = Option<Wanted>> + 'static,
    streams: Rc<S>,
    http: Rc<H>,
    worker: http2::Worker<S>,
) -> LocalBoxFuture<'static, Result<(), DispatchError>>
where
    S: Service<Request> + 'static,
    S::Response: Into<Response<B>>,
    S::Error: Into<Response<actix_http::body::BoxBody>>,
    B: MessageBody + 'static,
    H: Service<(Lent, Protocol, Option<SocketAddr>), Response = (), Error = DispatchError> + 'static,
{
    Box::pin(async move {
        let mut wanted = wanted.await;
        let (mut request, socket) = loop {
            match wanted {
                // Nothing was asked: nothing is answered.
                None => return Ok(()),
                Some(Wanted::TooLong(socket)) => {
                    actix_web::rt::spawn(writer::write(
                        socket,
                        answers::head_too_long(MAX_HEAD_BYTES).into(),
                        Version::HTTP_11,
                    ));
                    return Ok(());
                }
                Some(Wanted::Stream(request, socket)) => break (*request, socket),
                Some(Wanted::Other(Protocol::Http2, io)) => {
                    let peer = Peer::of(io.socket().tcp(), user_timeout);
                    actix_web::rt::spawn(http2::serve::<S, B>(io.into_prefixed(), peer, worker));
                    return Ok(());
                }
                Some(Wanted::Other(protocol, io)) => {
                    let (tcp, home) = (io.socket().tcp(), Home::default());
                    let (address, peer) = (tcp.peer_addr().ok(), Peer::of(tcp, user_timeout));
                    http.call((Lent::new(io, peer, waiting.clone(), home.clone()), protocol, address)).await?;
                    let Some(io) = home.take() else { return Ok(()) };
                    wanted = soon(waiting.enter(), look::wanted(io)).await;
                }
            }
        };
        if let Some(peer) = Peer::of(socket.tcp(), user_timeout) {
            request.extensions_mut().insert(peer);
        }
        request.head_mut().peer_addr = socket.tcp().peer_addr().ok();
        let version = request.version();
        // A task of its own, so that what stood here is freed.
        actix_web::rt::spawn(async move {
            match streams.call(request).await {
                Ok(answer) => writer::write::<B>(socket, answer.into(), version).await,
                Err(error) => writer::write(socket, error.into(), version).await,
            }
        });
        Ok(())
    })
}
