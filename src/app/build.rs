//! Builds an instance: binds its listeners, and starts the link and the servers.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_service::map_config;
use actix_web::{App, dev::AppConfig, middleware::from_fn, web};
use rustls::ServerConfig;

use super::{
    build_error::BuildError,
    descriptors::{self, ADMIN_SOCKETS, Descriptors},
    link_thread::LinkThread,
    listener::Listener,
    reload::Reloader,
    source_thread::SourceThread,
    tls::{self, Certificate},
    worker::{self, WorkerParts},
};
use crate::{
    admission::readiness::Readiness,
    auth::{Auth, Refresher},
    http::{
        access, admin, cors,
        front::{self, FrontContext},
        malformed::Malformed,
        routes,
        sockets::{budget::SocketBudget, idle::IdleLimits},
    },
    metrics::Metrics,
    redis::{link_context::LinkContext, locate::Locator, recorder::presence::RecorderPresence},
    settings::{Loaded, PlainPublish, Settings, SettingsSource, Tickets},
    spans::exporter::{self, Exporter},
    state::{clock::Clock, lifecycle::Lifecycle, limits::Limits},
};

const BACKLOG: i32 = 4096;

/// Routes that a command adds to the public listener.
pub type Extra = Arc<dyn Fn(&mut web::ServiceConfig) + Send + Sync>;

/// A gateway whose listeners are bound, but which does not run yet.
pub struct Gateway {
    pub(super) context: LinkContext,
    pub(super) limits: Arc<Limits>,
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) link: LinkThread,
    pub(super) sources: Option<SourceThread>,
    pub(super) public: Listener,
    pub(super) admin: Listener,
    pub(super) refresher: Option<Refresher>,
    pub(super) exporter: Option<Exporter>,
    readiness: Arc<Readiness>,
    auth: Arc<Auth>,
    certificate: Option<Arc<Certificate>>,
    public_address: SocketAddr,
    admin_address: SocketAddr,
}

impl Gateway {
    /// Binds the listeners and starts the link to Redis. Redis need not be available yet.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn build(settings: Settings, extra: Extra) -> Result<Self, BuildError> {
        let (public_listener, public_address) = listen(settings.server.listen, "server.listen")?;
        let (admin_listener, admin_address) = listen(settings.admin.listen, "admin.listen")?;
        let metrics = metrics_for(&settings);
        let (auth, refresher) = Auth::new(&settings, &metrics)?;
        let locator = Locator::new(&settings.redis)?;
        let settings = Arc::new(settings);
        let certificate = match (&settings.server.tls_certificate, &settings.server.tls_key) {
            (Some(certificate), Some(key)) => Some(Certificate::new(certificate, key)?),
            _ => None,
        };
        let name: Arc<str> = uuid::Uuid::new_v4().to_string().into();
        let (tracer, exporter) = exporter::start(&settings.tracing, &name, &metrics)?.unzip();
        let limits = Arc::new(Limits::new(&settings.limits));
        let lifecycle = Arc::new(Lifecycle::default());
        let recorder = Arc::new(RecorderPresence::default());
        let context = LinkContext::new(settings.clone(), Arc::new(Clock::new()), metrics, locator);
        let context = LinkContext { tracer, ..context };
        let readiness = Arc::new(Readiness {
            lifecycle: lifecycle.clone(),
            servers: context.servers.clone(),
            recorder: records(&settings).then(|| recorder.clone()),
            auth: auth.clone(),
            connections: limits.connections.clone(),
        });
        let link = LinkThread::start(context.clone(), name.clone(), recorder)?;
        let sources = SourceThread::start(&context, &name)?;
        let tls = certificate.clone().map(tls::server_config).transpose();
        let tls = tls.map_err(BuildError::Tls)?;
        let workers = worker_count(settings.server.workers);
        let share = descriptor_share(&settings, workers)?;
        let front = FrontContext::new(
            &settings,
            context.clock.clone(),
            context.metrics.clone(),
            lifecycle.clone(),
        );
        let admin = AdminParts {
            name,
            context: context.clone(),
            limits: limits.clone(),
            readiness: readiness.clone(),
            auth: auth.clone(),
        };
        let admin = start_admin(admin, front.clone(), &admin_listener)?;
        let worker = WorkerParts {
            context: context.clone(),
            auth: auth.clone(),
            limits: limits.clone(),
            lifecycle: lifecycle.clone(),
        };
        let public = PublicParts { worker, front, tls, extra };
        let public = start_public(public, &public_listener, workers, share)?;
        Ok(Self {
            context,
            limits,
            lifecycle,
            link,
            sources,
            public,
            admin,
            refresher,
            exporter,
            readiness,
            auth,
            certificate,
            public_address,
            admin_address,
        })
    }

    /// Creates the task that reloads keys and certificate; `loaded` are the initial settings.
    pub fn reloader(&self, source: SettingsSource, loaded: Loaded) -> Reloader {
        let (auth, metrics) = (self.auth.clone(), self.context.metrics.clone());
        Reloader::new(source, loaded, auth, metrics, self.certificate.clone())
    }

    /// Waits until the instance is ready for the first time.
    pub fn ready(&self) -> impl Future<Output = ()> + 'static {
        let readiness = self.readiness.clone();
        async move {
            while readiness.unready().is_some() {
                actix_rt::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Address of the public listener.
    pub fn public_address(&self) -> SocketAddr {
        self.public_address
    }

    /// Address of the admin listener.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }
}

/// Binds a listener, and returns it with its address, which has a port even if the setting has 0.
fn listen(
    address: Option<SocketAddr>,
    setting: &'static str,
) -> Result<(TcpListener, SocketAddr), BuildError> {
    let address = address.ok_or(BuildError::NoAddress(setting))?;
    let bound = bind(address).and_then(|listener| {
        let bound_to = listener.local_addr()?;
        Ok((listener, bound_to))
    });
    bound.map_err(|source| BuildError::Listen { setting, address, source })
}

/// Binds an address. `[::]` also accepts IPv4; without IPv6 in the kernel it becomes `0.0.0.0`.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match bind_to(address) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && lacks_ipv6(&error) => {
            bind_to((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        bound => bound,
    }
}

fn bind_to(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        // The system's default may be different (net.ipv6.bindv6only).
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Whether the kernel has no IPv6, or no IPv6 address.
fn lacks_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

fn worker_count(setting: usize) -> usize {
    match setting {
        0 => std::thread::available_parallelism().map_or(2, usize::from),
        count => count,
    }
}

fn descriptor_share(settings: &Settings, workers: usize) -> Result<Descriptors, BuildError> {
    let limit = descriptors::raise_limit();
    let share = Descriptors::plan(limit, descriptors::open(), workers, settings)?;
    if let Some(warning) = share.warning(limit, settings) {
        tracing::warn!("{warning}");
    }
    Ok(share)
}

fn records(settings: &Settings) -> bool {
    settings.publishers.plain == PlainPublish::Record
}

/// The metrics of an instance, with its limits.
fn metrics_for(settings: &Settings) -> Arc<Metrics> {
    let metrics = Metrics::new();
    Malformed::init_metric(&metrics);
    metrics.max_connections.set(settings.limits.max_connections as i64);
    metrics.max_queued_bytes.set(settings.limits.queue_bytes_total as i64);
    if records(settings) {
        metrics.set_role("none");
    }
    Arc::new(metrics)
}

/// The parts from which the workers of the public listener are built.
#[derive(Clone)]
struct PublicParts {
    worker: WorkerParts,
    front: FrontContext,
    tls: Option<Arc<ServerConfig>>,
    extra: Extra,
}

fn start_public(
    parts: PublicParts,
    socket: &TcpListener,
    workers: usize,
    share: Descriptors,
) -> Result<Listener, BuildError> {
    let budget = SocketBudget::new("public", share.public, share.idle, &parts.front.metrics);
    // Called once on each worker's own thread.
    let service = move || {
        let PublicParts { worker, front, tls, extra } = parts.clone();
        let allowed = worker.context.settings.cors.clone();
        let worker = web::Data::new(worker::start(worker));
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
        front::service(front, tls, app)
    };
    Listener::start("public", socket, budget, workers, service)
        .map_err(|source| BuildError::Thread { name: "public", source })
}

/// The parts from which the admin listener is built.
#[derive(Clone)]
struct AdminParts {
    name: Arc<str>,
    context: LinkContext,
    limits: Arc<Limits>,
    readiness: Arc<Readiness>,
    auth: Arc<Auth>,
}

/// The longest life of a session, or of a ticket that could open one.
fn revocation(tickets: &Tickets) -> Duration {
    let ticket = tickets.max_ttl.max(tickets.cookie_max_ttl) + tickets.leeway;
    tickets.max_session.max(ticket)
}

/// Starts the admin listener. All of its few sockets may be idle: the one that has been idle
/// longest is closed for a new one, so that probes always get a socket.
fn start_admin(
    parts: AdminParts,
    front: FrontContext,
    socket: &TcpListener,
) -> Result<Listener, BuildError> {
    let idle = IdleLimits { crowded: ADMIN_SOCKETS, max: ADMIN_SOCKETS };
    let budget = SocketBudget::new("admin", ADMIN_SOCKETS, idle, &front.metrics);
    let service = move || {
        let AdminParts { name, context, limits, readiness, auth } = parts.clone();
        let commands = context.commands();
        let admin = web::Data::new(admin::Admin {
            name,
            readiness,
            limits,
            commands,
            auth,
            servers: context.servers,
            unknown_keys: admin::access::unknown_keys(),
            revocation: revocation(&context.settings.tickets),
            settings: context.settings,
            clock: context.clock,
            has_presence: context.presence.is_some(),
            metrics: context.metrics,
            delivery: context.delivery,
        });
        let app = move || {
            let app = App::new().app_data(admin.clone()).configure(admin::routes);
            map_config(app, |()| AppConfig::default())
        };
        front::service(front.clone(), None, app)
    };
    Listener::start("admin", socket, budget, 1, service)
        .map_err(|source| BuildError::Thread { name: "admin", source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_kernel_without_ipv6_falls_back_to_ipv4() {
        let of = |code| lacks_ipv6(&io::Error::from_raw_os_error(code));
        assert!(of(libc::EAFNOSUPPORT) && of(libc::EADDRNOTAVAIL));
        assert!(!of(libc::EADDRINUSE) && !of(libc::EACCES));
    }
}
