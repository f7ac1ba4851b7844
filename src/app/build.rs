//! Builds an instance: binds its listeners, starts the link and the servers. Tests and `serve`
//! build the same.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_service::map_config;
use actix_web::{App, dev::AppConfig, middleware::from_fn, web};
use tokio_rustls::TlsAcceptor;

use super::{
    descriptors::{self, ADMIN_SOCKETS, Descriptors},
    link_thread::LinkThread,
    listener::Listener,
    reload::Reloader,
    tls::{self, Certificate},
};
use crate::{
    auth::{Auth, Refresher},
    http::{
        access, admin, cors, front, routes,
        sockets::{budget::SocketBudget, idle::IdleLimits},
        worker::Worker,
    },
    metrics::Metrics,
    redis::{commands::Commands, link::Link, link_state::LinkState},
    settings::{Loaded, Settings, Source},
    state::instance::Instance,
};

const BACKLOG: i32 = 4096;

/// Routes that a command adds to the public listener.
pub type Extra = Arc<dyn Fn(&mut web::ServiceConfig) + Send + Sync>;

/// A gateway that is bound and not yet running.
pub struct Gateway {
    pub(super) instance: Arc<Instance>,
    pub(super) link: LinkThread,
    pub(super) public: Listener,
    pub(super) admin: Listener,
    pub(super) refresher: Option<Refresher>,
    certificate: Option<Arc<Certificate>>,
    public_address: SocketAddr,
    admin_address: SocketAddr,
}

impl Gateway {
    /// Binds the listeners and starts the link to Redis; Redis itself may come later.
    ///
    /// # Errors
    /// A listener cannot be bound, a TLS file does not fit, or too few open files are allowed.
    pub fn build(settings: Settings, extra: Extra) -> io::Result<Self> {
        let public_listener = listen(settings.server.listen, "server.listen")?;
        let admin_listener = listen(settings.admin.listen, "admin.listen")?;
        let (public_address, admin_address) =
            (public_listener.local_addr()?, admin_listener.local_addr()?);
        let metrics = Metrics::new();
        let (auth, refresher) = Auth::new(&settings, &metrics)?;
        let instance = Instance::new(settings, metrics, auth);
        let server = &instance.settings.server;
        let certificate = match (&server.tls_certificate, &server.tls_key) {
            (Some(certificate), Some(key)) => Some(Certificate::new(certificate, key)?),
            _ => None,
        };
        let link = LinkThread::start(instance.clone())?;
        let tls = certificate.clone().map(tls::acceptor).transpose()?;
        let workers = worker_count(server.workers);
        let share = descriptor_share(&instance.settings, workers)?;
        let admin = start_admin(instance.clone(), link.state.clone(), &admin_listener)?;
        let parts = PublicParts {
            instance: instance.clone(),
            link: link.link.clone(),
            link_state: link.state.clone(),
            tls,
            extra,
        };
        let public = start_public(parts, &public_listener, workers, share)?;
        Ok(Self {
            instance,
            link,
            public,
            admin,
            refresher,
            certificate,
            public_address,
            admin_address,
        })
    }

    /// Takes its keys and its certificate over as they change; `loaded` is what it was built with.
    pub fn reloader(&self, source: Source, loaded: Loaded) -> Reloader {
        Reloader::new(source, loaded, self.instance.clone(), self.certificate.clone())
    }

    /// Waits until it is ready for the first time.
    pub fn ready(&self) -> impl Future<Output = ()> + 'static {
        let (instance, link_state) = (self.instance.clone(), self.link.state.clone());
        async move {
            while instance.unready(link_state.is_alive()).is_some() {
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
}

fn listen(address: Option<SocketAddr>, key: &str) -> io::Result<TcpListener> {
    let address = address.ok_or_else(|| io::Error::other(format!("{key} is missing")))?;
    let bind = || {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM,
            None,
        )?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    };
    bind().map_err(|e: io::Error| {
        io::Error::new(
            e.kind(),
            format!("{key}: cannot listen on {address} ({e}); is another process there?"),
        )
    })
}

fn worker_count(setting: usize) -> usize {
    match setting {
        0 => std::thread::available_parallelism().map_or(2, usize::from),
        count => count,
    }
}

fn descriptor_share(settings: &Settings, workers: usize) -> io::Result<Descriptors> {
    let limit = descriptors::raise_limit();
    let share = Descriptors::plan(limit, descriptors::open(), workers, settings);
    let share = share.map_err(io::Error::other)?;
    if let Some(warning) = share.warning(limit, settings) {
        tracing::warn!("{warning}");
    }
    Ok(share)
}

/// What the workers of the public listener are made of.
#[derive(Clone)]
struct PublicParts {
    instance: Arc<Instance>,
    link: Link,
    link_state: Arc<LinkState>,
    tls: Option<TlsAcceptor>,
    extra: Extra,
}

fn start_public(
    parts: PublicParts,
    socket: &TcpListener,
    workers: usize,
    share: Descriptors,
) -> io::Result<Listener> {
    let metrics = &parts.instance.metrics;
    let budget = SocketBudget::new("public", share.public, share.idle, metrics);
    // Called once on each worker's own thread.
    let service = move || {
        let PublicParts { instance, link, link_state, tls, extra } = parts.clone();
        let allowed = instance.settings.cors.clone();
        // The URL was checked when the settings were loaded; a worker without Redis could serve
        // nobody.
        let worker =
            Worker::start(instance.clone(), link, link_state).expect("the Redis URL was checked");
        let worker = web::Data::new(worker);
        let app = move || {
            let extra = extra.clone();
            let app = App::new()
                .app_data(worker.clone())
                .wrap(cors::cors(&allowed))
                .wrap(from_fn(cors::refusals))
                .wrap(from_fn(access::log))
                .configure(move |config| extra(config))
                .configure(routes::public);
            map_config(app, |()| AppConfig::default())
        };
        front::service(instance, tls, app)
    };
    Listener::start("public", socket, budget, workers, service)
}

/// The admin listener has few sockets, and all of them may be idle: a probe always gets one, since
/// the longest idle is closed for it.
fn start_admin(
    instance: Arc<Instance>,
    link_state: Arc<LinkState>,
    socket: &TcpListener,
) -> io::Result<Listener> {
    let idle = IdleLimits { crowded: ADMIN_SOCKETS, max: ADMIN_SOCKETS };
    let budget = SocketBudget::new("admin", ADMIN_SOCKETS, idle, &instance.metrics);
    let service = move || {
        let commands = Commands::new(&instance.settings.redis).expect("the Redis URL was checked");
        let admin =
            admin::Admin { instance: instance.clone(), link_state: link_state.clone(), commands };
        let admin = web::Data::new(admin);
        let app = move || {
            let app = App::new().app_data(admin.clone()).configure(admin::routes);
            map_config(app, |()| AppConfig::default())
        };
        front::service(instance.clone(), None, app)
    };
    Listener::start("admin", socket, budget, 1, service)
}
