//! Whether the instance can serve new clients: the response to `GET /readyz`.

use std::sync::Arc;

use crate::{
    auth::Auth,
    redis::{link_state::LinkState, recorder::presence::RecorderPresence},
    state::{lifecycle::Lifecycle, limits::connections::ConnectionLimit},
};

/// Decides whether the instance is ready.
pub struct Readiness {
    /// The phase of the instance.
    pub lifecycle: Arc<Lifecycle>,
    /// The state of the link to Redis.
    pub link_state: Arc<LinkState>,
    /// Whether plain publishes are recorded; `None` if this instance does not record them.
    pub recorder: Option<Arc<RecorderPresence>>,
    /// The keys of tickets.
    pub auth: Arc<Auth>,
    /// The number of connections.
    pub connections: Arc<ConnectionLimit>,
}

impl Readiness {
    /// Why the instance is not ready; `None` if it is.
    pub fn unready(&self) -> Option<&'static str> {
        if self.lifecycle.is_draining() {
            Some("draining")
        } else if !self.link_state.is_alive() {
            Some("redis-away")
        } else if self.recorder.as_ref().is_some_and(|recorder| !recorder.is_confirmed()) {
            Some("no-recorder")
        } else if self.auth.has_no_keys() {
            Some("keys-away")
        } else if self.connections.is_full() {
            Some("full")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        metrics::Metrics,
        state::{clock::Clock, testing::settings},
    };

    fn readiness(changes: &[(&str, &str)]) -> Readiness {
        let settings = settings(changes);
        let (auth, _) = Auth::new(&settings, &Metrics::new()).unwrap();
        Readiness {
            lifecycle: Arc::default(),
            link_state: Arc::new(LinkState::new(Arc::new(Clock::new()))),
            recorder: Some(Arc::default()),
            auth,
            connections: ConnectionLimit::new(1, 1),
        }
    }

    #[test]
    fn every_condition_is_reported_until_it_is_met() {
        let readiness = readiness(&[]);
        assert_eq!(readiness.unready(), Some("redis-away"));
        readiness.link_state.set_up(true);
        assert_eq!(readiness.unready(), Some("no-recorder"));
        readiness.recorder.as_ref().unwrap().confirm();
        assert_eq!(readiness.unready(), None);
        let permit = readiness.connections.enter(&"a".into(), "0a").ok();
        assert_eq!(readiness.unready(), Some("full"));
        drop(permit);
        assert_eq!(readiness.unready(), None);
        readiness.link_state.set_up(false);
        readiness.lifecycle.start_draining();
        assert_eq!(readiness.unready(), Some("draining"), "the drain comes first");
    }

    #[test]
    fn instance_that_does_not_record_needs_no_recorder() {
        let readiness = Readiness { recorder: None, ..readiness(&[]) };
        readiness.link_state.set_up(true);
        assert_eq!(readiness.unready(), None);
    }

    #[test]
    fn instance_without_any_key_is_not_ready() {
        let url = ("TICKETS__JWKS_URL", "http://127.0.0.1:1/jwks");
        let readiness = Readiness { recorder: None, ..readiness(&[("TICKETS__SECRET", ""), url]) };
        readiness.link_state.set_up(true);
        assert_eq!(readiness.unready(), Some("keys-away"));
    }
}
