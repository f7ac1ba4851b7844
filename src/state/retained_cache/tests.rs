use super::*;
use crate::state::testing::id;

fn kept(ms: u64, options: &str) -> Arc<Event> {
    let message = format!("{ms}-0.0 0-0.0 -{options}\n");
    let message = message.replacen(" t\n", " a t\n", 1);
    Arc::new(Event::from_live(None, message.as_bytes()).unwrap())
}

fn keep(ms: u64, key: &str) -> Arc<Event> {
    kept(ms, &format!("k t\n{key}\n{ms}"))
}

fn forget(ms: u64, key: &str) -> Arc<Event> {
    kept(ms, &format!("f t\n{key}\n{ms}"))
}

fn value(ms: u64, key: &str) -> RetainedValue {
    let event = Arc::new(keep(ms, key).without_id());
    RetainedValue { position: id(ms), key: key.into(), event }
}

fn shown(values: &CachedValues) -> Vec<String> {
    let CachedValues::Values(values) = values else { return vec!["too large".to_owned()] };
    values.iter().map(|v| format!("{}@{}", v.key, v.position.ms)).collect()
}

fn topic() -> Arc<str> {
    "a".into()
}

#[test]
fn changes_while_values_are_read_are_kept() {
    let cache = RetainedCache::new(100_000);
    cache.open(id(1));
    assert!(cache.values("a", 0).is_none());
    let loading = cache.begin_values(vec![topic()]);
    cache.update(&keep(7, "x"));
    cache.update(&forget(8, "y"));
    cache.update(&keep(4, "z"));
    let read = vec![value(5, "x"), value(6, "y"), value(9, "z")];
    assert_eq!(shown(&loading.set(&topic(), read, 0)), ["x@7", "z@9"]);
    drop(loading);
    cache.update(&forget(10, "x"));
    assert_eq!(shown(&cache.values("a", 0).unwrap()), ["z@9"]);
    assert!(cache.values("a", FRESH_MS).is_none(), "read again after a minute");
}

#[test]
fn what_was_read_before_the_link_broke_is_not_kept() {
    let cache = RetainedCache::new(100_000);
    cache.open(id(1));
    let (values, topics) = (cache.begin_values(vec![topic()]), cache.begin_topics());
    cache.close();
    cache.open(id(1));
    values.set(&topic(), vec![value(5, "x")], 0);
    topics.set(BTreeSet::new(), 0);
    assert!(cache.values("a", 0).is_none() && cache.topics(0).is_none());
}

#[test]
fn what_was_read_before_the_link_was_up_is_not_kept() {
    let cache = RetainedCache::new(100_000);
    let (values, topics) = (cache.begin_values(vec![topic()]), cache.begin_topics());
    cache.open(id(1));
    values.set(&topic(), vec![value(5, "x")], 0);
    topics.set(BTreeSet::new(), 0);
    assert!(cache.values("a", 0).is_none() && cache.topics(0).is_none());
}

#[test]
fn cache_is_bounded() {
    let cache = RetainedCache::new(2000);
    cache.open(id(1));
    cache.begin_values(vec![topic()]).set(&topic(), vec![value(1, "x")], 0);
    (2..40).for_each(|ms| cache.update(&keep(ms, &ms.to_string())));
    assert!(cache.values("a", 0).is_none());
    assert_eq!(cache.inner.lock().bytes, 0);
}

#[test]
fn values_are_read_again_if_an_event_was_lost() {
    let cache = RetainedCache::new(100_000);
    cache.open(id(1));
    let other = || Arc::new(Event::from_live(None, b"9-0.0 8-0.0 - a t\n").unwrap());
    let loading = cache.begin_values(vec![topic()]);
    cache.update(&other());
    loading.set(&topic(), vec![value(5, "x")], 0);
    assert!(cache.values("a", 0).is_none(), "while they were read");
    cache.begin_values(vec![topic()]).set(&topic(), vec![value(5, "x")], 0);
    cache.update(&Arc::new(Event::from_live(None, b"10-0.0 9-0.0 - a t\n").unwrap()));
    assert!(cache.values("a", 0).is_some());
    cache.update(&Arc::new(Event::from_live(None, b"12-0.0 11-0.0 - a t\n").unwrap()));
    assert!(cache.values("a", 0).is_none());
}

/// Values without what has changed while they were read would be outdated.
#[test]
fn values_with_too_many_changes_while_they_are_read_are_not_kept() {
    let cache = RetainedCache::new(2000);
    cache.open(id(1));
    let loading = cache.begin_values(vec![topic()]);
    (2..40).for_each(|ms| cache.update(&keep(ms, "x")));
    loading.set(&topic(), vec![value(1, "x")], 0);
    assert!(cache.values("a", 0).is_none());
}

#[test]
fn nothing_remains_of_what_could_not_be_read() {
    let cache = RetainedCache::new(100_000);
    cache.open(id(1));
    let loading = (cache.begin_values(vec![topic()]), cache.begin_topics());
    cache.update(&keep(1, "x"));
    drop(loading);
    cache.update(&keep(2, "x"));
    let inner = cache.inner.lock();
    assert!(inner.loading.is_empty() && inner.loading_list.is_none());
    assert_eq!(inner.bytes, 0);
}

#[test]
fn topics_without_values_are_forgotten() {
    let cache = RetainedCache::new(100_000);
    cache.open(id(1));
    cache.begin_values(vec![topic()]).set(&topic(), vec![value(1, "x")], 0);
    cache.update(&forget(2, "x"));
    cache.begin_topics().set(BTreeSet::new(), 0);
    let inner = cache.inner.lock();
    assert!(inner.topics.is_empty() && inner.bytes == 0);
}
