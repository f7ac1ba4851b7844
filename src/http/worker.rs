//! What the handlers of one worker share.

use std::{rc::Rc, sync::Arc};

use crate::{
    redis::{
        catch_up::CatchUpDriver, commands::Commands, link::Link, link_state::LinkState, sessions,
    },
    state::{hub::Hub, instance::Instance},
};

/// One worker thread: its hub, its pool, its joins.
pub struct Worker {
    /// The instance.
    pub instance: Arc<Instance>,
    /// The connections of this worker.
    pub hub: Rc<Hub>,
    /// The subscriber's link.
    pub link: Link,
    /// The state of the link.
    pub link_state: Arc<LinkState>,
    /// The worker's pool.
    pub commands: Commands,
    /// Drives joins.
    pub catch_up: Rc<CatchUpDriver>,
}

impl Worker {
    /// Starts the hub of the current worker thread and its tasks.
    ///
    /// # Errors
    /// The URL of Redis is none.
    pub fn start(
        instance: Arc<Instance>,
        link: Link,
        link_state: Arc<LinkState>,
    ) -> Result<Self, redis::RedisError> {
        let commands = Commands::new(&instance.settings.redis)?;
        // Before the hub: from now on no news of the link is missed.
        let inbox = instance.mailboxes.open();
        let (hub, orders) = Hub::new(instance.clone(), &inbox, link_state.is_up());
        let catch_up = CatchUpDriver::new(instance.clone(), commands.clone(), link.clone());
        actix_rt::spawn(hub.clone().run(inbox));
        actix_rt::spawn(hub.clone().run_timers());
        actix_rt::spawn(catch_up.clone().run(orders.catch_ups));
        actix_rt::spawn(sessions::keep(
            hub.clone(),
            link_state.clone(),
            commands.clone(),
            orders.ended,
        ));
        Ok(Self { instance, hub, link, link_state, commands, catch_up })
    }
}
