//! The status of an event: what a channel's log proves about an id. Each entry names its
//! predecessor, so the log can often prove that an event existed.

use serde::Serialize;

use super::id::EventId;

/// What a log proves about an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventStatus {
    /// The log contains the event.
    InLog,
    /// The event was trimmed; the log still contains its id.
    Trimmed,
    /// Events around the id were trimmed, and may include this one.
    MaybeTrimmed,
    /// The log starts after the id, which is older than the retention.
    MaybeExpired,
    /// The id was never an event of this channel.
    Never,
}

/// The neighbourhood of an id in a log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Neighbours {
    /// Whether the log contains the id.
    pub entry: bool,
    /// The first entry after the id, and its predecessor.
    pub next: Option<(EventId, EventId)>,
    /// If there is no later entry: the last id that the log ever had, zero if there is no log.
    pub last_ever: EventId,
}

/// What a log proves about `id`. `stale` means that the id is older than the retention.
pub fn status(id: EventId, stale: bool, log: &Neighbours) -> EventStatus {
    let (named, oldest) = match log.next {
        Some((_, predecessor)) => (predecessor, predecessor == EventId::ZERO),
        None => (log.last_ever, log.last_ever == EventId::ZERO),
    };
    match () {
        () if log.entry => EventStatus::InLog,
        () if named == id => EventStatus::Trimmed,
        () if named > id => EventStatus::MaybeTrimmed,
        () if oldest && stale => EventStatus::MaybeExpired,
        () => EventStatus::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> EventId {
        EventId { epoch: 0, ms, seq: 0 }
    }

    #[test]
    fn chain_of_predecessors_locates_an_id() {
        let of = |stale, next: Option<(u64, u64)>, last_ever| {
            let next = next.map(|(n, p)| (id(n), id(p)));
            status(id(5), stale, &Neighbours { entry: false, next, last_ever: id(last_ever) })
        };
        assert_eq!(
            status(id(5), true, &Neighbours { entry: true, ..Neighbours::default() }),
            EventStatus::InLog
        );
        assert_eq!(of(false, Some((7, 5)), 0), EventStatus::Trimmed);
        assert_eq!(of(false, Some((7, 6)), 0), EventStatus::MaybeTrimmed);
        assert_eq!(
            of(false, Some((7, 4)), 0),
            EventStatus::Never,
            "the entries before and after it follow each other"
        );
        assert_eq!(of(true, Some((7, 4)), 0), EventStatus::Never);
        assert_eq!(
            of(false, Some((7, 0)), 0),
            EventStatus::Never,
            "a recent id: an older log would not have expired yet"
        );
        assert_eq!(of(true, Some((7, 0)), 0), EventStatus::MaybeExpired);
        assert_eq!(of(false, None, 5), EventStatus::Trimmed);
        assert_eq!(of(false, None, 6), EventStatus::MaybeTrimmed);
        assert_eq!(of(true, None, 4), EventStatus::Never);
        assert_eq!(of(false, None, 0), EventStatus::Never);
        assert_eq!(of(true, None, 0), EventStatus::MaybeExpired);
    }
}
