//! `OPTIONS *`, which concerns the server and not a resource, so that the app has no route for it
//! (RFC 9110 section 9.3.7).

use std::{
    future::{Ready, ready},
    task::{Context, Poll},
};

use actix_http::{Request, Response, body::BoxBody};
use actix_service::Service;
use futures_util::{
    TryFutureExt,
    future::{Either, MapErr},
};

use crate::http::responses;

/// An app, and the response to `OPTIONS *`.
pub struct WithServerOptions<S>(pub S);

/// The result of the app, or the response of the server.
type Served<S> = Either<
    MapErr<
        <S as Service<Request>>::Future,
        fn(<S as Service<Request>>::Error) -> Response<BoxBody>,
    >,
    Ready<Result<<S as Service<Request>>::Response, Response<BoxBody>>>,
>;

impl<S> Service<Request> for WithServerOptions<S>
where
    S: Service<Request>,
    S::Error: Into<Response<BoxBody>>,
{
    type Response = S::Response;
    type Error = Response<BoxBody>;
    type Future = Served<S>;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&self, request: Request) -> Self::Future {
        if request.uri().path() == "*" {
            return Either::Right(ready(Err(responses::server_options().into())));
        }
        Either::Left(self.0.call(request).map_err(Into::into))
    }
}
