//! Where an event is: what a channel's log proves about an id. Each entry names its predecessor, so
//! much can be proved.

use serde::Serialize;

use super::id::EventId;

/// What a log says about an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// It is an entry of the log.
    InLog,
    /// It was one: the log still names it.
    Trimmed,
    /// Entries around the id are gone; it may have been one of them.
    MaybeTrimmed,
    /// The log does not reach back, and it is longer ago than a log lives.
    MaybeExpired,
    /// It never was an event of this channel.
    Never,
}

/// The neighbourhood of an id in a log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Neighbours {
    /// Whether the log has an entry of that id.
    pub entry: bool,
    /// The first entry past the id and the predecessor that it names.
    pub next: Option<(EventId, EventId)>,
    /// If there is no entry past it: the last id that the log ever had, zero if there is no log.
    pub last_ever: EventId,
}

/// What a log proves about `id`; `stale`: the id is older than the retention.
pub fn place(id: EventId, stale: bool, log: &Neighbours) -> Place {
    let (named, oldest) = match log.next {
        Some((_, predecessor)) => (predecessor, predecessor == EventId::ZERO),
        None => (log.last_ever, log.last_ever == EventId::ZERO),
    };
    match () {
        () if log.entry => Place::InLog,
        () if named == id => Place::Trimmed,
        () if named > id => Place::MaybeTrimmed,
        () if oldest && stale => Place::MaybeExpired,
        () => Place::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> EventId {
        EventId { ms, seq: 0 }
    }

    #[test]
    fn a_log_proves_what_its_chain_names() {
        let of = |stale, next: Option<(u64, u64)>, last_ever| {
            let next = next.map(|(n, p)| (id(n), id(p)));
            place(id(5), stale, &Neighbours { entry: false, next, last_ever: id(last_ever) })
        };
        assert_eq!(
            place(id(5), true, &Neighbours { entry: true, ..Neighbours::default() }),
            Place::InLog
        );
        assert_eq!(of(false, Some((7, 5)), 0), Place::Trimmed);
        assert_eq!(of(false, Some((7, 6)), 0), Place::MaybeTrimmed);
        assert_eq!(
            of(false, Some((7, 4)), 0),
            Place::Never,
            "the entries before and after it follow each other"
        );
        assert_eq!(of(true, Some((7, 4)), 0), Place::Never);
        assert_eq!(
            of(false, Some((7, 0)), 0),
            Place::Never,
            "a young id: an older log would still live"
        );
        assert_eq!(of(true, Some((7, 0)), 0), Place::MaybeExpired);
        assert_eq!(of(false, None, 5), Place::Trimmed);
        assert_eq!(of(false, None, 6), Place::MaybeTrimmed);
        assert_eq!(of(true, None, 4), Place::Never);
        assert_eq!(of(false, None, 0), Place::Never);
        assert_eq!(of(true, None, 0), Place::MaybeExpired);
    }
}
