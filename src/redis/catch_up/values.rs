//! The retained values that a catch-up delivers before the events.

use super::{CatchUp, CatchUpDriver, Interrupted, Snapshot};
use crate::{
    core::{channel::Channel, event::Event, part::Part, retained::Retained},
    redis::{commands::CommandError, retained},
    state::{client::MAX_GAP_CHANNELS, connection::Connection},
};

impl CatchUpDriver {
    /// The values at H of the channels of a part.
    async fn values(
        &self,
        c: &Connection,
        part: Part,
        Snapshot { route, clock }: &Snapshot,
    ) -> Result<Retained, CommandError> {
        let mut found = Retained::default();
        if let Some(user) = c.client.user().filter(|_| part.includes(Part::User)) {
            let user = Channel::User(user.clone());
            found = retained::of_user(&route.commands, user).await?;
        }
        let topics = &c.client.topics;
        if part.includes(Part::Broadcasts) && !topics.is_empty() {
            let cache = &self.delivery.retained_cache;
            found = found.with(retained::of_topics(&route.commands, cache, topics).await?);
        }
        Ok(found.upto(clock.h))
    }

    /// Before the first frame of a stream that begins now, or with a gap: finds out whether its
    /// part has values. If that is not possible, it may have some. Without a snapshot, the server
    /// is unavailable.
    pub(super) async fn find_values(
        &self,
        catch_up: &CatchUp,
        snapshot: Option<&Snapshot>,
        has_gap: bool,
    ) {
        let (c, part) = (&catch_up.connection, catch_up.part);
        let Some(snapshot) = snapshot else { return c.require_snapshot(part) };
        if !snapshot.clock.may_have_values {
            return;
        }
        // Boxed, because a larger future costs time for every client.
        match Box::pin(self.values(c, part, snapshot)).await {
            Ok(values) if !(values.is_used && has_gap) && values.is_empty() => {}
            Ok(values) => {
                c.require_snapshot(part);
                catch_up.values.set(Some(Box::new(values)));
            }
            Err(_) => c.require_snapshot(part),
        }
    }

    /// After a gap: the client needs the values of the part, if there are or were some. After a
    /// `reset`, Redis may not know of those that the client has.
    pub(super) async fn require_values(
        &self,
        catch_up: &CatchUp,
        snapshot: &Snapshot,
        is_reset: bool,
    ) -> Result<(), Interrupted> {
        let (c, part) = (&*catch_up.connection, catch_up.part);
        if !snapshot.clock.may_have_values {
            return Ok(());
        }
        let values = self.values(c, part, snapshot).await?;
        catch_up.check_current()?;
        // On a cluster nobody knows whether there ever were values, and most gaps would be followed
        // by an empty snapshot.
        let may_be_wiped = is_reset && !snapshot.route.commands.is_node();
        if values.is_used || may_be_wiped {
            c.require_snapshot(part);
            catch_up.values.set(Some(Box::new(values)));
        }
        Ok(())
    }

    /// The values at H of a part, if its client needs them.
    pub(super) async fn needed_values(
        &self,
        catch_up: &CatchUp,
        snapshot: &Snapshot,
    ) -> Result<Option<Retained>, Interrupted> {
        let (c, part) = (&catch_up.connection, catch_up.part);
        if !c.needs_snapshot(part) {
            return Ok(None);
        }
        let values = match catch_up.values.take() {
            Some(values) => *values,
            None => self.values(c, part, snapshot).await?,
        };
        catch_up.check_current()?;
        Ok(Some(values))
    }
}

/// Queues `sse.snapshot` and the values of a part, if its client needs them.
pub(super) async fn send_values(
    catch_up: &CatchUp,
    values: &Option<Retained>,
) -> Result<(), Interrupted> {
    let Some(values) = values else { return Ok(()) };
    let (c, part) = (&*catch_up.connection, catch_up.part);
    if values.too_many || !values.left_out.is_empty() {
        let topics = c.client.topics.patterns().filter(|_| values.too_many);
        let topics = topics.map(|topic| format!("broadcast:{topic}"));
        let left_out = values.left_out.iter().map(ToString::to_string);
        c.queue_own_gap(part, left_out.chain(topics).take(MAX_GAP_CHANNELS).collect());
    }
    let sees = |event: &Event| c.sees(event);
    c.queue_snapshot(part, values.keys(c.client.channels(part).collect(), sees));
    for value in values.in_order(sees) {
        c.queue_value(part, &value.event);
        c.room().await;
        catch_up.check_current()?;
    }
    Ok(())
}
