//! A proxy as it is often put in front of replicated Redis: it connects to the first server that
//! says that it is a primary, whatever the sentinels say.

use super::server::connect;
use crate::balancer::Balancer;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Follows the servers at these addresses until dropped.
pub struct Follower(JoinHandle<()>);

impl Follower {
    /// Keeps target 0 of `entrance` on the first server that reports `role:master`.
    pub fn start(servers: Vec<String>, entrance: Arc<Balancer>) -> Follower {
        Follower(tokio::spawn(async move {
            let mut current = None;
            loop {
                let mut found = None;
                for address in &servers {
                    if found.is_none() && is_primary(address).await {
                        found = Some(address.clone());
                    }
                }
                if found != current {
                    entrance.set(0, found.as_ref().and_then(|address| address.parse().ok()));
                    entrance.cut();
                    current = found;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn is_primary(address: &str) -> bool {
    let probe = async {
        let mut connection = connect(address).await.ok()?;
        let info: String =
            redis::cmd("INFO").arg("replication").query_async(&mut connection).await.ok()?;
        Some(info.contains("role:master"))
    };
    probe.await.unwrap_or(false)
}
