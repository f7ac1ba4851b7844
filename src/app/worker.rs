//! Starts what one worker of the public listener consists of: its hub, and the tasks that serve the
//! hub.

use std::sync::Arc;

use crate::{
    admission::Admission,
    auth::Auth,
    http::{api_keys::ApiAccess, credentials::TicketCookie, worker::Worker},
    redis::{
        call_pipeline::CallPipeline, catch_up::CatchUpDriver, link_context::LinkContext,
        routes::Routes, sessions,
    },
    state::{
        hub::Hub,
        lifecycle::Lifecycle,
        limits::Limits,
        stream_context::{StreamContext, StreamSettings},
    },
};

/// The parts from which every worker is built.
#[derive(Clone)]
pub struct WorkerParts {
    /// Settings, clock, metrics, state of the link, and where it delivers.
    pub context: LinkContext,
    /// Tickets and API keys.
    pub auth: Arc<Auth>,
    /// The limits that all workers share.
    pub limits: Arc<Limits>,
    /// The phase of the instance.
    pub lifecycle: Arc<Lifecycle>,
}

/// Starts the hub of the current worker thread and its tasks.
pub fn start(parts: WorkerParts) -> Worker {
    let WorkerParts { context: shared, auth, limits, lifecycle } = parts;
    let commands = shared.commands();
    let tracer = shared.tracer.clone();
    let ticket_cookie = TicketCookie::new(&shared.settings);
    let context = Arc::new(StreamContext {
        settings: StreamSettings::new(&shared.settings),
        clock: shared.clock,
        metrics: shared.metrics,
        limits,
        sightings: shared.sightings,
        presence: shared.presence,
    });
    let (delivery, servers) = (shared.delivery, shared.servers);
    // Opened before the state of the link is read, so that no change of the link is missed.
    let inbox = delivery.mailboxes.open();
    let linked = servers.linked();
    let (hub, requests) = Hub::new(context.clone(), delivery.clone(), &inbox, &linked);
    let routes = Routes::new(servers.clone(), commands.clone(), context.clock.clone());
    let catch_up = CatchUpDriver::new(hub.clone(), delivery, routes.clone());
    actix_rt::spawn(hub.clone().run(inbox));
    actix_rt::spawn(hub.clone().run_timers());
    actix_rt::spawn(catch_up.clone().run(requests.catch_ups));
    let ended = requests.ended;
    let opener = CallPipeline::start(commands.clone());
    actix_rt::spawn(sessions::keep(hub.clone(), servers, commands.clone(), ended));
    let api = ApiAccess { auth: auth.clone(), context: context.clone() };
    let admission = Admission {
        context: context.clone(),
        auth,
        lifecycle,
        routes,
        sessions: opener,
        hub,
        catch_up,
    };
    Worker { admission, api, ticket_cookie, commands, context, tracer }
}
