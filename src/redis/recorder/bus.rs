//! The links of the cluster bus that bring the messages of plain publishers to a server. The bus
//! can lose messages without any client being disconnected; then a link was replaced.

use std::collections::{HashMap, HashSet};

use redis::Value;

use crate::redis::commands::{CommandError, Commands};

/// Maximum number of links that are read from one answer.
const MAX_LINKS: usize = 2000;

/// When the links from the other nodes began, by the ids of the nodes.
type Began = HashMap<String, i64>;

/// The links as they were last seen.
#[derive(Debug, Default)]
pub struct BusLinks {
    links: Option<Began>,
    /// The masters at that time.
    masters: HashSet<String>,
}

impl BusLinks {
    /// Compares the links with those at the last call. Returns whether one from a master is new,
    /// was replaced or has ended. The first call only remembers them.
    ///
    /// The first link from a node that was no master before is no change: nobody can have published
    /// there earlier, because other servers learn over that link that it is a master.
    pub fn have_changed(&mut self, now: Began, masters: &[String]) -> bool {
        let known = std::mem::replace(&mut self.masters, masters.iter().cloned().collect());
        let before = self.links.replace(now);
        let (Some(before), Some(now)) = (before, &self.links) else { return false };
        let is_added = |master: &String| !known.contains(master) && !before.contains_key(master);
        let has_changed = |master: &String| before.get(master) != now.get(master);
        masters.iter().any(|master| has_changed(master) && !is_added(master))
    }
}

/// Reads the links to one server.
///
/// # Errors
/// The server does not reply, or does not permit `CLUSTER LINKS`.
pub async fn read(server: &Commands) -> Result<Began, CommandError> {
    let mut command = redis::cmd("CLUSTER");
    command.arg("LINKS");
    Ok(began(server.run::<Vec<HashMap<String, Value>>>(&command).await?))
}

fn began(links: Vec<HashMap<String, Value>>) -> Began {
    let text = |value: Option<&Value>| redis::from_redis_value(value?.clone()).ok();
    let mut found = Began::new();
    for link in links.iter().take(MAX_LINKS) {
        let direction: Option<String> = text(link.get("direction"));
        let node: Option<String> = text(link.get("node"));
        let time = link.get("create-time");
        let time = time.and_then(|t| redis::from_redis_value::<i64>(t.clone()).ok());
        let (Some("from"), Some(node), Some(time)) = (direction.as_deref(), node, time) else {
            continue;
        };
        // While a link is being replaced, there may be two: the later one counts.
        let began = found.entry(node).or_insert(time);
        *began = time.max(*began);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(direction: &str, node: &str, time: i64) -> HashMap<String, Value> {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        [
            ("direction".to_owned(), text(direction)),
            ("node".to_owned(), text(node)),
            ("create-time".to_owned(), Value::Int(time)),
        ]
        .into()
    }

    #[test]
    fn links_from_other_nodes_are_read() {
        let links = vec![
            link("to", "a", 9),
            link("from", "a", 1),
            link("from", "b", 3),
            link("from", "b", 2),
            HashMap::new(),
        ];
        assert_eq!(began(links), [("a".to_owned(), 1), ("b".to_owned(), 3)].into());
    }

    #[test]
    fn changed_link_from_a_master_is_noticed() {
        let masters = ["a".to_owned(), "own".to_owned()];
        let of = |links: &[(&str, i64)]| -> Began {
            links.iter().map(|(node, time)| ((*node).to_owned(), *time)).collect()
        };
        let mut links = BusLinks::default();
        let mut changed = |now| links.have_changed(of(now), &masters);
        assert!(!changed(&[("a", 1), ("replica", 1)]), "the first look");
        assert!(!changed(&[("a", 1), ("replica", 2)]), "a replica has no publishers");
        assert!(changed(&[("a", 2)]), "replaced");
        assert!(!changed(&[("a", 2)]));
        assert!(changed(&[]), "ended");
        assert!(changed(&[("a", 3)]), "new");
    }

    #[test]
    fn first_link_of_an_added_master_is_no_change() {
        let of = |links: &[(&str, i64)]| -> Began {
            links.iter().map(|(node, time)| ((*node).to_owned(), *time)).collect()
        };
        let both = ["a".to_owned(), "b".to_owned()];
        let mut links = BusLinks::default();
        assert!(!links.have_changed(of(&[("a", 1)]), &both[..1]), "the first look");
        assert!(!links.have_changed(of(&[("a", 1), ("b", 2)]), &both), "added");
        assert!(links.have_changed(of(&[("a", 1), ("b", 3)]), &both), "replaced");
        assert!(!links.have_changed(of(&[("a", 1), ("b", 3)]), &both[..1]));
        assert!(links.have_changed(of(&[("a", 1), ("b", 4)]), &both), "a replica was promoted");
    }
}
