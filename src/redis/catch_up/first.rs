//! The first catch-up of a connection: where its stream begins.

use std::rc::Rc;

use super::{CatchUp, CatchUpDriver, Snapshot};
use crate::{
    core::{
        catch_up::Start,
        id::{Cursor, EventId, StreamPosition},
        part::Part,
        reasons::{CatchUpCause, GapReason},
    },
    redis::link::LinkDown,
    state::connection::Connection,
};

/// The first catch-up of a connection, which is subscribed but has no first frame yet.
pub struct FirstCatchUp {
    main: (CatchUp, Box<Snapshot>),
    /// The other part of a split stream. Without a snapshot, its server is unavailable, and it
    /// catches up later.
    broadcasts: Option<(CatchUp, Option<Box<Snapshot>>)>,
    beginning: Beginning,
    /// Whether the stream continues from the client's cursor.
    pub resumed: bool,
}

/// Where a stream begins.
#[derive(Clone, Copy)]
enum Beginning {
    /// At the client's cursor.
    Cursor,
    /// Here, because the client has no cursor: there is nothing to read but retained values.
    Now(StreamPosition),
    /// Here, because one of the client's cursors cannot be resumed from.
    Restart(StreamPosition),
}

impl FirstCatchUp {
    /// The cursor for the first frame; `None` if the stream cannot continue from the client's id.
    pub fn cursor(&self) -> Option<Cursor> {
        let is_incomplete = self.main.0.connection.needs_snapshot(Part::Whole);
        let user = self.main.0.from?;
        let broadcasts = self.broadcasts.as_ref().map_or(Some(user), |(part, _)| part.from)?;
        Some(Cursor { position: StreamPosition { user, broadcasts }, is_incomplete })
    }
}

impl CatchUp {
    /// Begins at a position of the server, if the client named a time of its current epoch: the
    /// replay cache has those, and a later epoch is a reset. Not if it names the time again as its
    /// last event id: the first stream may have begun before an epoch whose clock was set back.
    fn place_time(&mut self, Snapshot { clock, .. }: &Snapshot) {
        if let Some(time) = self.from.filter(|from| from.is_time()) {
            let position = clock.in_epoch(time);
            self.connection.start_part_at(self.part, position);
            self.from = Some(position);
        }
    }
}

impl CatchUpDriver {
    /// Subscribes to the channel of a connection's user, and decides where its stream begins. The
    /// stream gets nothing before [`CatchUpDriver::start_first`]. `is_resume`: the client named a
    /// last event id.
    ///
    /// # Errors
    /// A link that the stream needs now is down, or does not respond in time.
    pub async fn subscribe(
        &self,
        connection: &Rc<Connection>,
        is_resume: bool,
    ) -> Result<FirstCatchUp, LinkDown> {
        self.split_if_needed(connection);
        let begin = |part| CatchUp::begin(connection.clone(), part, CatchUpCause::Resume);
        let mut parts = connection.parts(Part::Whole).map(begin);
        let main = parts.next().ok_or(LinkDown)?;
        let broadcasts = parts.next();
        let (snapshot, other) = tokio::join!(self.attach(&main), async {
            match &broadcasts {
                Some(part) => Box::pin(self.attach(part)).await.ok(),
                None => None,
            }
        });
        let (mut main, mut broadcasts) = ((main, snapshot?), broadcasts.map(|part| (part, other)));
        if !is_resume {
            main.0.place_time(&main.1);
            if let Some((part, Some(snapshot))) = &mut broadcasts {
                part.place_time(snapshot);
            }
        }
        let starts = [Some(&main.0), broadcasts.as_ref().map(|(part, _)| part)];
        let clocks = [Some(&*main.1), broadcasts.as_ref().and_then(|(_, clock)| clock.as_deref())];
        let is_readable = |(part, snapshot): (Option<&CatchUp>, Option<&Snapshot>)| {
            let Some(part) = part else { return true };
            let start = snapshot.map(|Snapshot { clock, .. }| self.start(part, clock));
            part.from.is_some() && !matches!(start, Some(Start::Restart(_)))
        };
        let is_readable = starts.into_iter().zip(clocks).all(is_readable);
        let is_new = !connection.has_cursor();
        let beginning = if is_new {
            Beginning::Now(self.now(&main.1, broadcasts.as_ref()).ok_or(LinkDown)?)
        } else if !is_readable && broadcasts.is_some() {
            Beginning::Restart(self.now(&main.1, broadcasts.as_ref()).ok_or(LinkDown)?)
        } else {
            Beginning::Cursor
        };
        if let Beginning::Now(h) | Beginning::Restart(h) = beginning {
            if is_new {
                connection.start_at(h);
                main.0.from = Some(h.user);
            }
            self.find_values(&main.0, Some(&main.1), !is_new).await;
            if let Some((part, snapshot)) = &mut broadcasts {
                if is_new {
                    part.from = Some(h.broadcasts);
                }
                self.find_values(part, snapshot.as_deref(), !is_new).await;
            }
        }
        let resumed = is_resume && is_readable;
        Ok(FirstCatchUp { main, broadcasts, beginning, resumed })
    }

    /// The current position of both parts. If only the server of the broadcasts is unavailable, its
    /// last watermark: the part catches up from there. `None` if there was none.
    fn now(
        &self,
        main: &Snapshot,
        broadcasts: Option<&(CatchUp, Option<Box<Snapshot>>)>,
    ) -> Option<StreamPosition> {
        let user = main.clock.h;
        let broadcasts = match broadcasts {
            None => user,
            Some((_, Some(snapshot))) => snapshot.clock.h,
            Some((part, None)) => {
                self.hub.last_watermark(part.connection.server(Part::Broadcasts))?
            }
        };
        Some(StreamPosition { user, broadcasts })
    }

    /// Starts the first catch-up of a connection, which runs in the background. The first frame
    /// must have been queued before.
    pub fn start_first(self: &Rc<Self>, first: FirstCatchUp) {
        let FirstCatchUp { main: (mut main, snapshot), mut broadcasts, beginning, .. } = first;
        if let Beginning::Restart(h) = beginning {
            main.connection.restart(Part::Whole, GapReason::UnknownId, h);
            main.from = Some(h.user);
            broadcasts.iter_mut().for_each(|(part, _)| part.from = Some(h.broadcasts));
        }
        self.start_part(main, Some(snapshot), beginning);
        if let Some((part, snapshot)) = broadcasts {
            self.start_part(part, snapshot, beginning);
        }
    }

    fn start_part(
        self: &Rc<Self>,
        catch_up: CatchUp,
        snapshot: Option<Box<Snapshot>>,
        beginning: Beginning,
    ) {
        let CatchUp { connection, part, .. } = &catch_up;
        if snapshot.is_none() {
            connection.detach(*part, EventId::ZERO);
        }
        let Some(snapshot) = snapshot.filter(|_| catch_up.is_current()) else {
            // The link is down, or broke during the wait, before the hub could restart this part.
            return self.hub.catch_up_again(connection.clone(), *part, CatchUpCause::Link);
        };
        if matches!(beginning, Beginning::Cursor) || connection.needs_snapshot(*part) {
            let driver = self.clone();
            tokio::task::spawn_local(async move { driver.drive(catch_up, snapshot).await });
        } else if let Some((part, cause)) = connection.finish_catch_up(*part, snapshot.clock.h) {
            self.hub.catch_up_again(connection.clone(), part, cause);
        }
    }
}
