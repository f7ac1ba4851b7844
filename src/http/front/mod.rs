//! The front of a listener: protocol detection, and the servers for HTTP/1 (`http1`) and
//! HTTP/2 (`http2`). Both call the same app (routes, CORS, access log).
//!
//! docs/adr/0002-own-http1-and-http2-fronts.md explains why actix's dispatchers are not used.

mod context;
mod detect;
mod http1;
mod http2;
mod prefixed;
mod read;
mod server_options;

use std::{
    convert::Infallible,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use actix_http::{Request, Response};
use actix_service::{IntoServiceFactory, Service, ServiceFactory, fn_factory, fn_service};
use actix_web::body::{BoxBody, MessageBody};
use futures_util::future::LocalBoxFuture;
use rustls::ServerConfig;
use tokio::time::Instant;

pub use self::context::FrontContext;
use self::{
    detect::{Protocol, detect},
    http2::{Connections, Http2Limits},
    prefixed::Prefixed,
    server_options::WithServerOptions,
};
use super::{
    request_id::WithRequestId,
    sockets::{tcp::ClientTcp, watch::SocketWatch},
};

/// Items that fuzz targets and benches need.
#[cfg(feature = "fuzzing")]
pub mod fuzzing {
    pub use super::{
        detect::{Protocol, protocol_of},
        http1::fuzzing as http1,
    };
}

/// The head of a request must arrive within this time; over TLS including the handshake.
pub const HEAD: Duration = Duration::from_secs(10);

/// Creates the service of a listener: HTTP/1.1 and HTTP/2, by prior knowledge or ALPN. `app`
/// creates the app of this worker.
pub fn service<I, S, B>(
    context: FrontContext,
    tls: Option<Arc<ServerConfig>>,
    app: impl Fn() -> I,
) -> impl ServiceFactory<ClientTcp, Config = (), Response = (), Error = Infallible, InitError = ()>
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
    let app = Rc::new(app().into_factory());
    fn_factory(move || {
        let (app, tls) = (app.clone(), tls.clone());
        let context = context.clone();
        let connections = Connections::default();
        let (lifecycle, all) = (context.lifecycle.clone(), connections.clone());
        actix_web::rt::spawn(async move {
            lifecycle.closed().await;
            all.close();
        });
        async move {
            let app = app.new_service(()).await;
            let app = app.map_err(|error| tracing::error!(?error, "could not create the app"))?;
            let app = Rc::new(WithRequestId::new(
                WithServerOptions(app),
                context.trusted_proxies.clone(),
            ));
            let context = Rc::new(context);
            let watch = SocketWatch::start();
            if let Err(error) = &watch {
                tracing::warn!(%error, "waiting streams use more memory");
            }
            let watch = watch.unwrap_or_default();
            let worker = Worker { context, connections, app, watch };
            Ok(fn_service(move |tcp| serve(worker.clone(), tcp, tls.clone())))
        }
    })
}

/// Detects the protocol of a connection, and returns the deadline of its first head. `None` if the
/// connection ended, took too long, or was evicted.
async fn open(
    tcp: ClientTcp,
    tls: Option<Arc<ServerConfig>>,
) -> Option<(Protocol, Prefixed, Instant)> {
    let deadline = Instant::now() + HEAD;
    let peer = tcp.peer();
    let opening = async {
        let socket = match tls {
            None => tcp,
            Some(tls) => tcp.accept_tls(tls).await?,
        };
        detect(socket).await
    };
    tokio::select! {
        opened = tokio::time::timeout_at(deadline, opening) => {
            opened.ok()?.ok().map(|(protocol, io)| (protocol, io, deadline))
        }
        () = peer.evicted() => None,
    }
}

/// What the connections of one worker share.
struct Worker<S> {
    context: Rc<FrontContext>,
    /// Those of HTTP/2.
    connections: Connections,
    app: Rc<S>,
    /// The streams of HTTP/1.1 that wait; empty if the system provides no watch.
    watch: Weak<SocketWatch>,
}

impl<S> Clone for Worker<S> {
    fn clone(&self) -> Self {
        Self {
            context: self.context.clone(),
            connections: self.connections.clone(),
            app: self.app.clone(),
            watch: self.watch.clone(),
        }
    }
}

fn serve<S, B>(
    worker: Worker<S>,
    tcp: ClientTcp,
    tls: Option<Arc<ServerConfig>>,
) -> LocalBoxFuture<'static, Result<(), Infallible>>
where
    S: Service<Request> + 'static,
    S::Response: Into<Response<B>>,
    S::Error: Into<Response<BoxBody>>,
    B: MessageBody + 'static,
{
    Box::pin(async move {
        // A connection without a request gets no response.
        let Some((protocol, io, deadline)) = open(tcp, tls).await else { return Ok(()) };
        let peer = io.socket.peer();
        peer.touch(false);
        let Worker { context, connections, app, watch } = worker;
        // Futures of more than 1 KiB cost time for every connection: they are copied.
        match protocol {
            Protocol::Http1 => {
                let serving = http1::serve(io, peer.clone(), app, context, watch, deadline);
                tokio::select! {
                    () = Box::pin(serving) => {}
                    () = peer.evicted() => {}
                }
            }
            Protocol::Http2 => {
                let worker = http2::Worker {
                    service: app,
                    limits: Http2Limits::of(&context.limits),
                    connections,
                };
                Box::pin(http2::serve(io, peer, worker)).await;
            }
        }
        Ok(())
    })
}
