//! The front door of the cleartext listener. It looks at what a new connection wants without taking it from the socket: an event
//! stream over HTTP/1.1 is answered here, with a writer of our own; all else goes to actix as it came.
//!
//! Why: actix' HTTP/1.1 dispatcher keeps buffers for each connection. Without them an idle stream costs 3.4 KiB instead of 15; CPU is
//! about the same (docs/benchmarks.md). The request still goes through the same app (routes, CORS, access log).

mod look;
mod waiting;
mod writer;

use std::{rc::Rc, time::Duration};

use actix_http::{HttpMessage, HttpServiceBuilder, KeepAlive, Protocol, Request, Response, error::DispatchError};
use actix_service::{IntoServiceFactory, Service, ServiceFactory, fn_factory, fn_service};
use actix_web::{body::MessageBody, rt::net::TcpStream};
use futures_util::future::LocalBoxFuture;

use self::{
    look::Wanted,
    waiting::{Place, Waiting},
};
use super::peer::{self, Peer};

/// The head of a request must have come within this time.
pub const HEAD: Duration = Duration::from_secs(10);

/// How connections are treated.
#[derive(Clone, Copy, Debug)]
pub struct Connections {
    /// Sent bytes that nobody acknowledges for so long end a connection.
    pub user_timeout: Duration,
}

impl Connections {
    /// actix' part of it.
    pub fn http<T, S>(self) -> HttpServiceBuilder<T, S>
    where
        T: 'static,
        S: ServiceFactory<Request, Config = ()>,
        S::Error: Into<Response<actix_http::body::BoxBody>> + 'static,
        S::InitError: std::fmt::Debug,
        <S::Service as Service<Request>>::Future: 'static,
    {
        HttpServiceBuilder::default()
            .keep_alive(KeepAlive::default())
            .client_request_timeout(HEAD)
            .client_disconnect_timeout(Duration::from_secs(1))
            .h1_allow_half_closed(false)
            .tcp_nodelay(true)
            .on_connect_ext(move |io, extensions| peer::on_connect(io, extensions, self.user_timeout))
    }
}

/// The service of the cleartext listener: HTTP/1.1, and HTTP/2 by prior knowledge. `app` makes the app of this worker.
pub fn service<I, S, B>(
    connections: Connections,
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
    let http = Rc::new(connections.http().finish(app()));
    fn_factory(move || {
        let (streams, http, waiting) = (streams.clone(), http.clone(), Waiting::default());
        async move {
            let streams = Rc::new(streams.new_service(()).await.map_err(|error| tracing::error!(?error, "no app"))?);
            let http = Rc::new(http.new_service(()).await?);
            Ok(fn_service(move |io| enter(connections, io, waiting.enter(), streams.clone(), http.clone())))
        }
    })
}

fn enter<S, H, B>(
    connections: Connections,
    io: TcpStream,
    place: Place,
    streams: Rc<S>,
    http: Rc<H>,
) -> LocalBoxFuture<'static, Result<(), DispatchError>>
where
    S: Service<Request> + 'static,
    S::Response: Into<Response<B>>,
    S::Error: Into<Response<actix_http::body::BoxBody>>,
    B: MessageBody + 'static,
    H: Service<(TcpStream, Protocol, Option<std::net::SocketAddr>), Response = (), Error = DispatchError> + 'static,
{
    Box::pin(async move {
        let wanted = tokio::select! {
            wanted = tokio::time::timeout(HEAD, look::wanted(&io)) => wanted,
            () = place.lost() => return Ok(()),
        };
        drop(place);
        // Nothing was asked: nothing is answered.
        let Ok(Ok(wanted)) = wanted else { return Ok(()) };
        let address = io.peer_addr().ok();
        let mut request = match wanted {
            Wanted::Stream(request) => *request,
            Wanted::Other(protocol) => return http.call((io, protocol, address)).await,
        };
        if let Some(peer) = Peer::of(&io, connections.user_timeout) {
            request.extensions_mut().insert(peer);
        }
        request.head_mut().peer_addr = address;
        // A task of its own, so that what stood here is freed.
        actix_web::rt::spawn(async move {
            match streams.call(request).await {
                Ok(answer) => writer::write::<B>(io, answer.into()).await,
                Err(error) => writer::write(io, error.into()).await,
            }
        });
        Ok(())
    })
}
