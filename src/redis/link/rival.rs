//! What a link does about another primary at its address (ARCHITECTURE.md#rivals).

use tokio::{sync::mpsc, task::JoinSet};

use super::{LinkError, Supervisor};
use crate::redis::{
    rivals::{self, Answer, Rival, Watch},
    watermark::{self, AdoptOptions, WatermarkError},
    wire::Connection,
};

/// The rivals that a link's server meets; ends with the link.
pub(super) struct Rivals {
    found: mpsc::Receiver<Rival>,
    _watch: JoinSet<()>,
}

impl Rivals {
    /// Waits for the next rival; forever, if nobody looks for rivals.
    pub(super) async fn next(&mut self) -> Rival {
        match self.found.recv().await {
            Some(rival) => rival,
            None => std::future::pending().await,
        }
    }
}

impl Supervisor {
    /// Looks for rivals, unless Sentinel or the cluster decide which server is the primary.
    pub(super) fn watch_rivals(&self) -> Rivals {
        let (sender, found) = mpsc::channel(1);
        let mut watch = JoinSet::new();
        if let (Some(run_id), false) =
            (self.context.state.server.run_id(), self.context.locator.has_judge())
        {
            let (context, commands) = (self.context.clone(), self.commands.clone());
            watch.spawn(Watch::new(context, commands, run_id, sender).run());
        }
        Rivals { found, _watch: watch }
    }

    /// A server that no gateway uses must not be adopted beside one that is in use.
    pub(super) async fn refuse_outsider(
        &self,
        connection: &mut Connection,
    ) -> Result<(), LinkError> {
        let context = &self.context;
        let Some(run_id) = context.state.server.run_id() else { return Ok(()) };
        let is_refused = !context.locator.has_judge()
            && rivals::is_outsider(connection, &run_id, &self.commands, context).await;
        if is_refused { Err(LinkError::OtherServer) } else { Ok(()) }
    }

    /// Behind a link to a server that is not in use: an additional connection, or none. A balancer
    /// of two servers would lead each link to the same one, if each attempt made an even number of
    /// connections.
    pub(super) async fn skip_connection(&self) {
        if fastrand::bool() {
            let _ = self.probe().await;
        }
    }

    /// Of two primaries, one must yield. If that has accepted events, they are lost: a new epoch
    /// notifies all streams.
    pub(super) async fn resolve(
        &mut self,
        connection: &mut Connection,
        rival: Rival,
    ) -> Result<(), LinkError> {
        self.report(&rival);
        let seen = self.context.state.highest_id();
        match rival {
            Rival::Yielded { lost: None } => Ok(()),
            Rival::Yielded { lost } if lost == self.lost => Ok(()),
            Rival::Yielded { lost } => {
                let options = AdoptOptions { lost, ..AdoptOptions::default() };
                // If this fails, for example with NOREPLICAS, the rival will be met again.
                let adopted = watermark::adopt(connection, &self.commands, seen, options).await;
                if let Ok(adopted) = adopted {
                    self.inbound.watermark(adopted.clock.h);
                    self.lost = lost;
                }
                Ok(())
            }
            Rival::Preferred { connection: mut other, epoch } => {
                let own = rivals::ask_to_yield(connection, &self.commands, epoch, false).await?;
                match own {
                    // It began another epoch meanwhile.
                    Answer::InUse(_) => return Ok(()),
                    Answer::Yielded(lost @ Some(_)) => {
                        let options = AdoptOptions { lost, ..AdoptOptions::default() };
                        watermark::adopt(&mut other, &self.commands, seen, options).await?;
                    }
                    Answer::Yielded(None) | Answer::Replica => {}
                }
                Err(LinkError::OtherServer)
            }
            Rival::Alone => {
                let epoch = self.context.state.epoch().ok_or(WatermarkError::Reply)?;
                rivals::ask_to_yield(connection, &self.commands, epoch, true).await?;
                Err(LinkError::OtherServer)
            }
        }
    }

    fn report(&self, rival: &Rival) {
        let context = &self.context;
        context.metrics.rivals.inc();
        let Some(suppressed) = self.rival_log.allow(context.clock.now_ms()) else { return };
        let (used, address) = match rival {
            Rival::Yielded { .. } => ("the one of the link", self.commands.address()),
            Rival::Preferred { .. } | Rival::Alone => ("the other one", self.commands.address()),
        };
        let lost = match rival {
            Rival::Yielded { lost } => lost.map(|position| position.to_string()),
            _ => None,
        };
        tracing::error!(
            %address,
            used,
            lost,
            suppressed,
            "two Redis servers with different data answer at this address: one of them refuses \
             events now, and clients get sse.gap (reset) if it had accepted some; let redis.url \
             lead to one primary only"
        );
    }
}
