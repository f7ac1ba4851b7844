//! The front door of the public listener. It looks at what a new connection wants: an event stream over HTTP/1 is answered here,
//! with a writer of our own; all else goes to actix as it came, one request at a time.
//!
//! Why: actix' HTTP/1.1 dispatcher keeps buffers for each connection. Without them an idle stream costs 3.7 KiB instead of 15; CPU is
//! about the same (docs/benchmarks.md). The request still goes through the same app (routes, CORS, access log).

mod framing;
mod lent;
mod look;
mod paced;
mod socket;
mod writer;

use std::{io, net::SocketAddr, rc::Rc, time::Duration};

use actix_http::{
    HttpMessage, HttpServiceBuilder, KeepAlive, Protocol, Request, Response, Version, error::DispatchError,
};
use actix_service::{IntoServiceFactory, Service, ServiceFactory, fn_factory, fn_service};
use actix_web::body::MessageBody;
use futures_util::future::LocalBoxFuture;
use tokio_rustls::TlsAcceptor;

use self::{
    framing::MAX_HEAD_BYTES,
    lent::{Home, Lent},
    look::Wanted,
    paced::Paced,
    socket::Socket,
};
use super::{
    answers,
    sockets::{
        idle::{IdleSocket, IdleSockets},
        tcp::ClientTcp,
    },
};

/// The head of a request must have come within this time; over TLS with the handshake.
pub const HEAD: Duration = Duration::from_secs(10);

/// The service of a listener: HTTP/1.1 and HTTP/2, by prior knowledge or ALPN. `idle` bounds the
/// sockets without a request; `app` makes the app of this worker.
pub fn service<I, S, B>(
    idle: IdleSockets,
    tls: Option<TlsAcceptor>,
    app: impl Fn() -> I,
) -> impl ServiceFactory<ClientTcp, Config = (), Response = (), Error = DispatchError, InitError = ()>
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
            extensions.insert(lent.peer().clone());
        })
        .finish(app());
    let http = Rc::new(http);
    fn_factory(move || {
        let (streams, http, tls, idle) = (streams.clone(), http.clone(), tls.clone(), idle.clone());
        async move {
            let streams = Rc::new(streams.new_service(()).await.map_err(|error| tracing::error!(?error, "no app"))?);
            let http = Rc::new(http.new_service(()).await?);
            Ok(fn_service(move |tcp| {
                let wanted = soon(idle.enter(), open(tcp, tls.clone()));
                serve(idle.clone(), wanted, streams.clone(), http.clone())
            }))
        }
    })
}

async fn open(tcp: ClientTcp, tls: Option<TlsAcceptor>) -> io::Result<Wanted> {
    let socket = match tls {
        None => Socket::Clear(tcp),
        Some(tls) => Socket::Tls(Box::new(tls.accept(tcp).await?)),
    };
    look::wanted(Paced::new(socket)).await
}

/// Whoever opens a connection has to say soon what it wants. None: it did not.
async fn soon(mut idle: IdleSocket, wanted: impl Future<Output = io::Result<Wanted>>) -> Option<Wanted> {
    tokio::select! {
        wanted = tokio::time::timeout(HEAD, wanted) => wanted.ok()?.ok(),
        () = idle.evicted() => None,
    }
}

fn serve<S, H, B>(
    idle: IdleSockets,
    wanted: impl Future<Output = Option<Wanted>> + 'static,
    streams: Rc<S>,
    http: Rc<H>,
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
                Some(Wanted::Other(protocol, io)) => {
                    let (address, peer) = (io.socket().tcp().address(), io.socket().tcp().peer());
                    if protocol == Protocol::Http2 {
                        peer.set_multiplexed();
                    }
                    let home = Home::default();
                    let lent = Lent::new(io, peer, idle.clone(), home.clone());
                    http.call((lent, protocol, Some(address))).await?;
                    let Some(io) = home.take() else { return Ok(()) };
                    wanted = soon(idle.enter(), look::wanted(io)).await;
                }
            }
        };
        request.extensions_mut().insert(socket.tcp().peer());
        request.head_mut().peer_addr = Some(socket.tcp().address());
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
