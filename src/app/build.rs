//! Builds an instance: binds its listeners, starts the link and the servers. Tests and `serve` build the same.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_service::map_config;
use actix_web::{
    App, HttpServer,
    dev::{AppConfig, Server, ServerHandle},
    middleware::from_fn,
    web,
};
use tokio_rustls::TlsAcceptor;

use super::{
    link_thread::LinkThread,
    reload::Reloader,
    tls::{self, Certificate},
};
use crate::{
    http::{
        access, admin, front, routes,
        worker::{TicketKeys, Worker},
    },
    issuer::{self, Keeper},
    redis::commands::Commands,
    settings::{Loaded, Settings, Source},
    state::instance::Instance,
    tickets::Verifier,
};

const BACKLOG: i32 = 4096;
/// actix stops to accept above its own bound; ours is the gate, which answers.
const NO_BOUND: usize = 1 << 24;
/// The listener's name in actix' log.
const NAME: &str = "public";
/// The kernel's clock starts before ours, when the client's window closes: ours shall name the reason first.
const USER_TIMEOUT_STALLS: u32 = 2;
/// A server that ends waits so long for what is left.
const SHUTDOWN_S: u64 = 2;

/// Routes that a command adds to the public listener.
pub type Extra = Arc<dyn Fn(&mut web::ServiceConfig) + Send + Sync>;

/// A gateway that is bound and not yet running.
pub struct Gateway {
    pub(super) instance: Arc<Instance>,
    pub(super) link: LinkThread,
    pub(super) public: Server,
    pub(super) admin: Server,
    pub(super) keeper: Option<Keeper>,
    verifier: Arc<Verifier>,
    certificate: Option<Arc<Certificate>>,
    public_address: SocketAddr,
    admin_address: SocketAddr,
}

impl Gateway {
    /// Binds the listeners and starts the link to Redis; Redis itself may come later.
    ///
    /// # Errors
    /// A listener cannot be bound, or a TLS file does not fit.
    pub fn build(settings: Settings, extra: Extra) -> io::Result<Self> {
        let public_listener = listen(settings.server.listen, "server.listen")?;
        let admin_listener = listen(settings.admin.listen, "admin.listen")?;
        let (public_address, admin_address) = (public_listener.local_addr()?, admin_listener.local_addr()?);
        let verifier = Arc::new(Verifier::new(settings.tickets.clone()).map_err(io::Error::other)?);
        let instance = Instance::new(settings);
        let (issuer, keeper) = issuer::new(&instance, &verifier)?.unzip();
        let server = &instance.settings.server;
        let certificate = match (&server.tls_certificate, &server.tls_key) {
            (Some(certificate), Some(key)) => Some(Certificate::new(certificate, key)?),
            _ => None,
        };
        let link = LinkThread::start(instance.clone())?;
        let admin = admin_server(instance.clone(), admin_listener)?;
        let keys = TicketKeys { verifier: verifier.clone(), issuer };
        let tls = certificate.clone().map(tls::acceptor).transpose()?;
        let public = public_server(instance.clone(), &link, keys, tls, extra, public_listener)?;
        Ok(Self { instance, link, public, admin, keeper, verifier, certificate, public_address, admin_address })
    }

    /// Takes its keys and its certificate over as they change; `loaded` is what it was built with.
    pub fn reloader(&self, source: Source, loaded: Loaded) -> Reloader {
        Reloader::new(source, loaded, self.instance.clone(), self.verifier.clone(), self.certificate.clone())
    }

    /// Waits until it is ready for the first time.
    pub fn ready(&self) -> impl Future<Output = ()> + 'static {
        let instance = self.instance.clone();
        async move {
            while instance.unready().is_some() {
                actix_rt::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Where it listens for clients.
    pub fn public_address(&self) -> SocketAddr {
        self.public_address
    }

    /// Where it listens for operators.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    pub(super) fn handles(&self) -> [ServerHandle; 2] {
        [self.public.handle(), self.admin.handle()]
    }
}

fn listen(address: Option<SocketAddr>, key: &str) -> io::Result<TcpListener> {
    let address = address.ok_or_else(|| io::Error::other(format!("{key} is missing")))?;
    let bind = || {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    bind().map_err(|e: io::Error| {
        io::Error::new(e.kind(), format!("{key}: cannot listen on {address} ({e}); is another process there?"))
    })
}

fn public_server(
    instance: Arc<Instance>,
    link: &LinkThread,
    keys: TicketKeys,
    tls: Option<TlsAcceptor>,
    extra: Extra,
    listener: TcpListener,
) -> io::Result<Server> {
    let settings = instance.settings.clone();
    let (stall, link) = (settings.limits.stall, link.link.clone());
    let (server, cors) = (settings.server, settings.cors);
    let workers = match server.workers {
        0 => std::thread::available_parallelism().map_or(2, usize::from),
        n => n,
    };
    let http = Server::build()
        .workers(workers)
        .max_concurrent_connections(NO_BOUND)
        .disable_signals()
        .shutdown_timeout(SHUTDOWN_S);
    let front = instance.clone();
    // Called once on each worker's own thread.
    let app = move || {
        // The URL was checked when the settings were loaded; a worker without Redis could serve nobody.
        let worker = Worker::start(instance.clone(), link.clone(), keys.clone()).expect("the Redis URL was checked");
        let (worker, cors, extra) = (web::Data::new(worker), cors.clone(), extra.clone());
        move || {
            let app = App::new()
                .app_data(worker.clone())
                .wrap(routes::cors(&cors))
                .wrap(from_fn(access::log))
                .configure(|config| extra(config))
                .configure(routes::public);
            map_config(app, |()| AppConfig::default())
        }
    };
    let service = move || front::service(front.clone(), stall * USER_TIMEOUT_STALLS, tls.clone(), app());
    Ok(http.listen(NAME, listener, service)?.run())
}

fn admin_server(instance: Arc<Instance>, listener: TcpListener) -> io::Result<Server> {
    let app = move || {
        let commands = Commands::new(&instance.settings.redis).expect("the Redis URL was checked");
        let admin = admin::Admin { instance: instance.clone(), commands };
        App::new().app_data(web::Data::new(admin)).configure(admin::routes)
    };
    Ok(HttpServer::new(app).workers(1).disable_signals().shutdown_timeout(SHUTDOWN_S).listen(listener)?.run())
}
