//! Whether the instance can serve new clients: the response to `GET /readyz`.

use std::sync::Arc;

use crate::{
    auth::Auth,
    redis::{recorder::presence::RecorderPresence, servers::Servers},
    state::{lifecycle::Lifecycle, limits::connections::ConnectionLimit},
};

/// Decides whether the instance is ready.
pub struct Readiness {
    /// The phase of the instance.
    pub lifecycle: Arc<Lifecycle>,
    /// The servers, and the states of their links.
    pub servers: Arc<Servers>,
    /// Whether plain publishes are recorded; `None` if this instance does not record them.
    pub recorder: Option<Arc<RecorderPresence>>,
    /// The keys of tickets.
    pub auth: Arc<Auth>,
    /// The number of connections.
    pub connections: Arc<ConnectionLimit>,
}

impl Readiness {
    /// Whether a plain publish might be lost because nobody records it. If the server of the
    /// broadcasts is lost, where the recorder is, the users of other servers are still served.
    fn is_recorder_missing(&self) -> bool {
        let is_unconfirmed = |recorder: &Arc<RecorderPresence>| !recorder.is_confirmed();
        self.recorder.as_ref().is_some_and(is_unconfirmed) && !self.servers.has_lost_broadcasts()
    }

    /// Why the instance is not ready; `None` if it is. The loss of one of several servers concerns
    /// only the users on it: if it made every instance unready, nobody would be served.
    pub fn unready(&self) -> Option<&'static str> {
        if self.lifecycle.is_draining() {
            Some("draining")
        } else if !self.servers.is_any_alive() {
            Some("redis-away")
        } else if self.is_recorder_missing() {
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
        redis::{
            cluster::slots::{SLOTS, slot_of},
            servers::testing::{cluster, master, single},
        },
        state::{limits::Limits, testing::settings},
    };

    fn set_up(readiness: &Readiness, up: bool) {
        readiness.servers.all().iter().for_each(|server| server.info.state.set_up(up));
    }

    fn readiness(changes: &[(&str, &str)]) -> Readiness {
        let settings = settings(&[&[("LIMITS__MAX_CONNECTIONS", "1")], changes].concat());
        let (auth, _) = Auth::new(&settings, &Metrics::new()).unwrap();
        Readiness {
            lifecycle: Arc::default(),
            servers: single(),
            recorder: Some(Arc::default()),
            auth,
            connections: Limits::new(&settings.limits).connections,
        }
    }

    #[test]
    fn every_condition_is_reported_until_it_is_met() {
        let readiness = readiness(&[]);
        assert_eq!(readiness.unready(), Some("redis-away"));
        set_up(&readiness, true);
        assert_eq!(readiness.unready(), Some("no-recorder"));
        readiness.recorder.as_ref().unwrap().confirm();
        assert_eq!(readiness.unready(), None);
        let permit = readiness.connections.enter(&"a".into(), None).ok();
        assert_eq!(readiness.unready(), Some("full"));
        drop(permit);
        assert_eq!(readiness.unready(), None);
        set_up(&readiness, false);
        readiness.lifecycle.start_draining();
        assert_eq!(readiness.unready(), Some("draining"), "the drain comes first");
    }

    #[test]
    fn instance_that_does_not_record_needs_no_recorder() {
        let readiness = Readiness { recorder: None, ..readiness(&[]) };
        set_up(&readiness, true);
        assert_eq!(readiness.unready(), None);
    }

    #[test]
    fn one_server_of_a_cluster_is_enough() {
        let broadcasts = slot_of(b"broadcast");
        let others = (0..SLOTS).filter(|slot| *slot != broadcasts);
        let servers = cluster(vec![master(0, "a", [broadcasts]), master(1, "b", others)]);
        let readiness = Readiness { servers, ..readiness(&[]) };
        assert_eq!(readiness.unready(), Some("redis-away"));
        let set_up = |n: usize, is_up| readiness.servers.all()[n].info.state.set_up(is_up);
        set_up(1, true);
        assert_eq!(readiness.unready(), None, "nobody can record now");
        set_up(0, true);
        assert_eq!(readiness.unready(), Some("no-recorder"));
        readiness.recorder.as_ref().unwrap().confirm();
        assert_eq!(readiness.unready(), None);
        set_up(1, false);
        assert_eq!(readiness.unready(), None);
        set_up(0, false);
        assert_eq!(readiness.unready(), Some("redis-away"));
    }

    #[test]
    fn instance_without_any_key_is_not_ready() {
        let url = ("TICKETS__JWKS_URL", "http://127.0.0.1:1/jwks");
        let readiness = Readiness { recorder: None, ..readiness(&[("TICKETS__SECRET", ""), url]) };
        set_up(&readiness, true);
        assert_eq!(readiness.unready(), Some("keys-away"));
    }
}
