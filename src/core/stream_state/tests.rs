use super::*;
use crate::core::channel::Channel;

fn id(ms: u64) -> EventId {
    EventId { epoch: u64::from(ms > 0), ms, seq: 0 }
}

fn event(ms: u64, predecessor: u64) -> Item {
    let channel = Channel::parse("broadcast:a").unwrap();
    Item::Event(Arc::new(Event::new(id(ms), id(predecessor), channel, None, "t", &ms.to_string())))
}

fn stream(cursor: u64) -> StreamState {
    StreamState::new(id(cursor), 1000, Rc::new(vec!["broadcast:*".to_owned()]))
}

fn live(cursor: u64) -> StreamState {
    let mut stream = stream(cursor);
    stream.begin_catch_up(Part::Whole);
    stream.finish_catch_up(Part::Whole, id(cursor));
    stream
}

/// The ids (or names of system events) that a writer takes.
fn taken(stream: &mut StreamState) -> Vec<String> {
    std::iter::from_fn(|| stream.take())
        .map(|(item, _)| {
            let text = String::from_utf8(item.content.frame().to_vec()).unwrap();
            let line =
                |name: &str| text.lines().find_map(|l| l.strip_prefix(name)).map(str::to_owned);
            match line("event: ").unwrap() {
                event if event == "t" => line("id: ").unwrap(),
                event => format!("{event} {}", line("id: ").unwrap_or_default()),
            }
        })
        .collect()
}

#[test]
fn live_events_are_queued_in_order_once() {
    let mut f = live(5);
    assert_eq!(f.offer(&event(5, 0)), Outcome::Ignored);
    assert_eq!(f.offer(&event(6, 5)), Outcome::Queued);
    assert_eq!(f.offer(&event(6, 5)), Outcome::Ignored);
    assert_eq!(f.offer(&event(8, 6)), Outcome::Queued);
    assert_eq!(taken(&mut f), ["6-0.1", "8-0.1"]);
    assert_eq!(f.cursor(), id(8).into());
}

#[test]
fn pending_events_after_h_follow_the_catch_up() {
    let mut f = stream(1);
    let (number, from) = f.begin_catch_up(Part::Whole);
    assert_eq!(from, id(1));
    f.offer(&event(4, 3));
    f.offer(&event(5, 4));
    let Item::Event(read) = event(3, 1) else { unreachable!() };
    f.replay(Part::Whole, &read);
    let Item::Event(read) = event(4, 3) else { unreachable!() };
    f.replay(Part::Whole, &read);
    assert!(f.is_catching_up(Part::Whole, number));
    assert_eq!(f.finish_catch_up(Part::Whole, id(4)), Outcome::Queued);
    assert_eq!(taken(&mut f), ["3-0.1", "4-0.1", "5-0.1"]);
}

#[test]
fn missing_predecessor_triggers_a_catch_up() {
    let mut f = live(5);
    assert_eq!(f.offer(&event(9, 7)), Outcome::CatchUp(Part::Whole, CatchUpCause::Predecessor));
    assert_eq!(f.begin_catch_up(Part::Whole).1, id(5));
}

#[test]
fn overflow_drops_queue_and_catches_up_from_cursor() {
    let mut f = live(5);
    f.offer(&event(6, 5));
    assert_eq!(f.take().unwrap().0.upto, Some(id(6)));
    let mut n = 7;
    while f.offer(&event(n, n - 1)) == Outcome::Queued {
        n += 1;
    }
    assert!(f.bytes() == 0 && n > 8);
    assert_eq!(f.begin_catch_up(Part::Whole).1, id(6));
}

#[test]
fn one_unlogged_event_may_exceed_the_limit() {
    let channel = Channel::parse("broadcast:a").unwrap();
    let mut large = Event::new(id(1), id(0), channel, None, "t", &"x".repeat(5000));
    large.id = None;
    let large = Item::Event(Arc::new(large));
    for catching_up in [false, true] {
        let mut f = live(5);
        if catching_up {
            f.begin_catch_up(Part::Whole);
        }
        f.offer(&event(6, 5));
        f.offer(&large);
        f.offer(&event(7, 6));
        assert!(f.bytes() > 5000);
        if catching_up {
            f.finish_catch_up(Part::Whole, id(5));
        }
        assert_eq!(
            std::iter::from_fn(|| f.take()).map(|(item, _)| item.upto).collect::<Vec<_>>(),
            [Some(id(6)), None, Some(id(7))]
        );
        assert_eq!(f.bytes(), 0);
        // Only one at a time.
        assert_eq!(f.offer(&large), Outcome::Queued);
        assert_eq!(f.offer(&large), Outcome::CatchUp(Part::Whole, CatchUpCause::Overflow));
        assert_eq!(f.bytes(), 0);
    }
}

#[test]
fn pending_items_are_bounded() {
    let mut f = stream(1);
    f.begin_catch_up(Part::Whole);
    for n in 2..100 {
        f.offer(&event(n, n - 1));
        assert!(f.bytes() <= 1000);
    }
    assert_eq!(
        f.finish_catch_up(Part::Whole, id(3)),
        Outcome::CatchUp(Part::Whole, CatchUpCause::Overflow)
    );
    assert_eq!(f.begin_catch_up(Part::Whole).1, id(3));
}

#[test]
fn catch_up_after_link_break_starts_at_watermark() {
    let mut f = live(5);
    f.offer(&event(6, 5));
    f.detach(Part::Whole, id(9));
    assert_eq!(f.offer(&event(12, 11)), Outcome::Ignored);
    assert_eq!(f.begin_catch_up(Part::Whole).1, id(9));
    f.finish_catch_up(Part::Whole, id(12));
    assert_eq!(taken(&mut f), ["6-0.1"]);
}

#[test]
fn link_break_cancels_a_running_catch_up() {
    let mut f = stream(5);
    let (number, _) = f.begin_catch_up(Part::Whole);
    f.detach(Part::Whole, id(9));
    assert!(!f.is_catching_up(Part::Whole, number));
    assert_eq!(
        f.begin_catch_up(Part::Whole).1,
        id(5),
        "a watermark proves nothing about a stream that was not live"
    );
}

#[test]
fn unrecorded_break_keeps_its_position_without_id() {
    let mut f = live(5);
    f.offer(&event(6, 5));
    f.offer(&Item::Unrecorded(id(7)));
    f.offer(&event(9, 0));
    assert_eq!(taken(&mut f), ["6-0.1", "sse.gap ", "9-0.1"]);
}

#[test]
fn event_of_another_epoch_makes_the_stream_catch_up() {
    let mut f = live(5);
    f.offer(&event(6, 5));
    let channel = Channel::parse("broadcast:a").unwrap();
    let later = EventId { epoch: 2, ms: 1, seq: 0 };
    let event = Arc::new(Event::new(later, EventId::ZERO, channel, None, "t", ""));
    assert_eq!(
        f.offer(&Item::Event(event.clone())),
        Outcome::CatchUp(Part::Whole, CatchUpCause::Epoch)
    );
    let (_, from) = f.begin_catch_up(Part::Whole);
    assert_eq!(from, id(6), "what is queued was received in the old epoch");
    f.heartbeat(later.into(), |id| crate::core::control_events::heartbeat(id, 0).frame);
    f.replay(Part::Whole, &event);
    f.finish_catch_up(Part::Whole, later);
    assert_eq!(taken(&mut f), ["6-0.1", "sse.heartbeat 6-0.1", "1-0.2"]);
    assert_eq!(f.cursor(), later.into());
}

#[test]
fn heartbeats_follow_queued_events_and_carry_the_watermark() {
    let mut f = live(5);
    f.offer(&event(6, 5));
    f.heartbeat(id(8).into(), |id| crate::core::control_events::heartbeat(id, 0).frame);
    assert_eq!(f.offer(&event(7, 6)), Outcome::Ignored, "the watermark proves that 7 had arrived");
    assert_eq!(taken(&mut f), ["6-0.1", "sse.heartbeat 8-0.1"]);
    let mut catching_up = stream(5);
    catching_up.begin_catch_up(Part::Whole);
    catching_up.heartbeat(id(8).into(), |id| crate::core::control_events::heartbeat(id, 0).frame);
    assert_eq!(taken(&mut catching_up), ["sse.heartbeat 5-0.1"]);
}

#[test]
fn restart_continues_from_h() {
    let mut f = stream(0);
    f.begin_catch_up(Part::Whole);
    f.offer(&event(8, 7));
    f.offer(&event(10, 8));
    f.restart(Part::Whole, GapReason::UnknownId, vec![], Some("garbage"), id(9).into());
    f.finish_catch_up(Part::Whole, id(9));
    assert_eq!(taken(&mut f), ["sse.gap 9-0.1", "10-0.1"]);
}

#[test]
fn first_frame_precedes_and_closing_frame_follows_events() {
    let mut f = live(5);
    f.offer(&event(6, 5));
    f.set_head(crate::core::control_events::heartbeat(StreamPosition::from(id(5)).into(), 0).frame);
    f.close(crate::core::control_events::closing(crate::core::reasons::CloseReason::MaxAge, 1));
    assert_eq!(f.offer(&event(7, 6)), Outcome::Ignored);
    assert_eq!(taken(&mut f), ["sse.heartbeat 5-0.1", "6-0.1", "sse.closing "]);
}

/// An event of the user's channel; those of `event` are broadcasts.
fn own(ms: u64, predecessor: u64) -> Item {
    of_user(id(ms), id(predecessor))
}

fn of_user(id: EventId, predecessor: EventId) -> Item {
    let channel = Channel::parse("user:1:events").unwrap();
    Item::Event(Arc::new(Event::new(id, predecessor, channel, None, "t", "")))
}

fn position(user: u64, broadcasts: u64) -> StreamPosition {
    StreamPosition { user: id(user), broadcasts: id(broadcasts) }
}

fn catch_up(stream: &mut StreamState, part: Part, h: u64) {
    stream.begin_catch_up(part);
    stream.finish_catch_up(part, id(h));
}

/// A split stream whose parts are live at these positions.
fn live_split(user: u64, broadcasts: u64) -> StreamState {
    let mut stream = stream(0);
    stream.split();
    stream.start_at(position(user, broadcasts));
    catch_up(&mut stream, Part::User, user);
    catch_up(&mut stream, Part::Broadcasts, broadcasts);
    stream
}

/// What a writer takes from a split stream: the ids of the parts after each frame.
fn cursors(stream: &mut StreamState) -> Vec<(u64, u64)> {
    let mut cursors = Vec::new();
    while stream.take().is_some() {
        let StreamPosition { user, broadcasts } = stream.cursor();
        cursors.push((user.ms, broadcasts.ms));
    }
    cursors
}

#[test]
fn parts_of_a_split_stream_are_ordered_independently() {
    let mut f = live_split(50, 5);
    assert_eq!(f.offer(&event(6, 5)), Outcome::Queued);
    assert_eq!(f.offer(&own(51, 50)), Outcome::Queued);
    assert_eq!(f.offer(&own(50, 0)), Outcome::Ignored);
    assert_eq!(f.offer(&event(7, 6)), Outcome::Queued, "lower than the user's position");
    assert_eq!(f.position(), position(51, 7));
    assert_eq!(f.cursor(), position(50, 5));
    assert_eq!(cursors(&mut f), [(50, 6), (51, 6), (51, 7)]);
    let missing = Outcome::CatchUp(Part::User, CatchUpCause::Predecessor);
    assert_eq!(f.offer(&own(60, 55)), missing);
    assert!(f.is_live(Part::Broadcasts) && f.is_detached(Part::User));
    assert!(!f.is_live(Part::Whole) && f.is_detached(Part::Whole));
    assert_eq!(f.offer(&event(8, 7)), Outcome::Queued);
    assert_eq!(f.offer(&own(61, 60)), Outcome::Ignored);
    assert_eq!(f.begin_catch_up(Part::User).1, id(51));
    f.offer(&own(62, 61));
    f.finish_catch_up(Part::User, id(61));
    assert_eq!(cursors(&mut f), [(51, 8), (62, 8)]);
}

#[test]
fn overflow_of_a_split_stream_resets_the_parts_with_frames() {
    let fill = |f: &mut StreamState, from: u64| {
        let mut outcomes = (from..).map(|ms| f.offer(&event(ms, ms - 1)));
        outcomes.find(|outcome| *outcome != Outcome::Queued).unwrap()
    };
    let mut f = live_split(50, 5);
    assert_eq!(fill(&mut f, 6), Outcome::CatchUp(Part::Broadcasts, CatchUpCause::Overflow));
    assert!(f.is_live(Part::User) && f.bytes() == 0);
    assert_eq!(f.begin_catch_up(Part::Broadcasts).1, id(5));
    f.finish_catch_up(Part::Broadcasts, id(5));
    f.offer(&own(51, 50));
    assert_eq!(fill(&mut f, 6), Outcome::CatchUp(Part::Whole, CatchUpCause::Overflow));
    let begin = |f: &mut StreamState, part| f.begin_catch_up(part).1;
    assert_eq!((begin(&mut f, Part::User), begin(&mut f, Part::Broadcasts)), (id(50), id(5)));
    // An item of one part for which the frames of the other one leave no room.
    let mut f = live_split(50, 5);
    (6..).find(|ms| f.offer(&event(*ms, ms - 1)) == Outcome::Queued && f.bytes() > 850).unwrap();
    let channel = Channel::parse("user:1:events").unwrap();
    let large = Event::new(id(51), id(50), channel, None, "t", &"x".repeat(500));
    let overflow = Outcome::CatchUp(Part::Whole, CatchUpCause::Overflow);
    assert_eq!(f.offer(&Item::Event(Arc::new(large))), overflow);
}

#[test]
fn pending_items_of_both_parts_share_the_limit() {
    let mut f = live_split(50, 5);
    for part in [Part::User, Part::Broadcasts] {
        f.begin_catch_up(part);
    }
    for ms in 1..100 {
        f.offer(&event(ms + 5, ms + 4));
        f.offer(&own(ms + 50, ms + 49));
        assert!(f.bytes() <= 1000);
    }
    let outcomes = [(Part::User, 50), (Part::Broadcasts, 5)]
        .map(|(part, h)| f.finish_catch_up(part, id(h)) == Outcome::Queued);
    assert!(outcomes.contains(&false), "nothing was dropped");
}

#[test]
fn whole_stream_is_split_where_it_is() {
    let mut f = live(5);
    f.offer(&event(6, 5));
    f.split();
    f.split();
    assert!(f.is_live(Part::User) && f.is_live(Part::Broadcasts));
    f.offer(&event(7, 6));
    f.detach(Part::User, EventId::ZERO);
    assert!(f.is_detached(Part::User) && f.is_live(Part::Broadcasts));
    assert_eq!(f.position(), position(6, 7));
    assert_eq!(cursors(&mut f), [(6, 6), (6, 7)], "6 was queued for both parts");
    // A catch-up of the whole says nothing about the parts.
    let mut f = stream(5);
    let (number, _) = f.begin_catch_up(Part::Whole);
    f.split();
    assert!(f.is_detached(Part::User) && f.is_detached(Part::Broadcasts));
    assert!(!f.is_catching_up(Part::User, number));
}

#[test]
fn restart_moves_both_cursors_with_the_frame_of_the_gap() {
    let mut f = live_split(0, 0);
    f.restart(Part::Whole, GapReason::UnknownId, vec![], None, position(9, 7));
    assert_eq!((f.cursor(), f.position()), (position(0, 0), position(9, 7)));
    assert_eq!(cursors(&mut f), [(9, 7)]);
    f.restart(Part::User, GapReason::UnknownId, vec![], None, id(12).into());
    assert_eq!(cursors(&mut f), [(12, 7)]);
}

#[test]
fn heartbeat_of_a_split_stream_carries_both_watermarks() {
    let mut f = live_split(50, 5);
    let encode = |id| crate::core::control_events::heartbeat(id, 0).frame;
    f.heartbeat(position(60, 8), encode);
    assert_eq!(cursors(&mut f), [(60, 8)]);
    f.detach(Part::Broadcasts, id(9));
    f.heartbeat(position(70, 20), encode);
    assert_eq!(cursors(&mut f), [(70, 9)], "only a live part has everything up to the watermark");
    // Behind events, it moves no cursor.
    f.offer(&own(71, 0));
    f.heartbeat(position(80, 20), encode);
    assert_eq!(cursors(&mut f), [(71, 9), (71, 9)]);
    assert_eq!(f.position(), position(80, 9));
}

#[test]
fn part_that_moved_continues_in_a_later_epoch() {
    let of = |epoch, ms| EventId { epoch, ms, seq: 0 };
    let next = id(5).epoch + 1;
    let mut f = live_split(50, 5);
    f.offer(&own(51, 50));
    f.detach(Part::User, id(60));
    let (_, from) = f.begin_catch_up(Part::User);
    assert_eq!(from, id(60));
    // The clock of the new server is behind.
    f.offer(&of_user(of(next, 54), id(51)));
    f.finish_catch_up(Part::User, of(next, 53));
    assert_eq!(f.position().user, of(next, 54));
    assert_eq!(f.offer(&own(70, 51)), Outcome::Ignored, "late, from the server before");
    // Back on the first server.
    let epoch = Outcome::CatchUp(Part::User, CatchUpCause::Epoch);
    assert_eq!(f.offer(&of_user(of(next + 1, 1), of(next, 54))), epoch);
    assert_eq!(f.position().broadcasts, id(5));
}
