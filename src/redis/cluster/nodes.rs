//! What the nodes of a cluster say about it (`CLUSTER NODES`), and what follows from several
//! answers. Pure.

use std::collections::HashMap;

use super::slots::{SLOTS, SlotRanges};

/// Maximum number of nodes that are read from one answer.
const MAX_NODES: usize = 1000;

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its id, which survives restarts.
    pub id: String,
    /// Host name or address.
    pub host: String,
    /// Port for clients.
    pub port: u16,
    /// Whether it is a master.
    pub is_master: bool,
    /// Whether the node that answered considers it as failed.
    pub has_failed: bool,
    /// The version of its claim to its slots: the highest wins.
    pub config_epoch: u64,
    /// The slots that it owns, including those that it is about to give away.
    pub slots: SlotRanges,
}

/// The answer of one node.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The id of the node that answered.
    pub own_id: String,
    /// All nodes that it knows.
    pub nodes: Vec<Node>,
    /// The number of its slots whose migration to another node has begun.
    pub migrating: usize,
}

impl View {
    /// Parses the reply to `CLUSTER NODES` of the node that was reached at `host` and `port`.
    /// Host names are preferred to addresses if the connection needs them (`by_name`: TLS checks
    /// the name). Lines that make no sense are skipped.
    pub fn parse(reply: &str, host: &str, port: u16, by_name: bool) -> Self {
        let mut view = Self::default();
        for line in reply.lines().take(MAX_NODES) {
            let words: Vec<&str> = line.split(' ').collect();
            let [id, address, flags, _, _, _, config_epoch, _, slots @ ..] = &words[..] else {
                continue;
            };
            let is_own = flags.split(',').any(|flag| flag == "myself");
            let Some((mut own_host, own_port)) = endpoint(address, by_name) else { continue };
            if own_host.is_empty() {
                // A node that has not met others does not know its address.
                own_host = if is_own { host.to_owned() } else { continue };
            }
            if is_own {
                view.own_id = (*id).to_owned();
                view.migrating = slots.iter().filter(|word| word.contains("->-")).count();
            }
            let has = |wanted: &str| flags.split(',').any(|flag| flag == wanted);
            view.nodes.push(Node {
                id: (*id).to_owned(),
                host: own_host,
                port: if own_port == 0 && is_own { port } else { own_port },
                is_master: has("master"),
                has_failed: has("fail") || has("noaddr") || has("handshake"),
                config_epoch: config_epoch.parse().unwrap_or(0),
                slots: ranges(slots),
            });
        }
        view
    }

    /// Whether this view shows the node as a working master with slots.
    fn confirms(&self, id: &str) -> bool {
        self.nodes.iter().any(|n| n.id == id && n.is_master && !n.has_failed && !n.slots.is_empty())
    }
}

/// `host:port@bus-port[,name[,…]]`.
fn endpoint(text: &str, by_name: bool) -> Option<(String, u16)> {
    let (address, name) = text.split_once(',').unwrap_or((text, ""));
    let name = name.split(',').next().filter(|name| !name.is_empty() && !name.contains('='));
    let (host, port) = address.split('@').next()?.rsplit_once(':')?;
    let host = name.filter(|_| by_name || host.is_empty()).unwrap_or(host);
    Some((host.to_owned(), port.parse().ok()?))
}

/// Slots like `0-5460` and `7000`; `[93-<-id]` and `[77->-id]` are migrations, which do not count.
fn ranges(words: &[&str]) -> SlotRanges {
    let mut found: Vec<(u16, u16)> = words
        .iter()
        .filter_map(|word| {
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            (first <= last && last < SLOTS).then_some((first, last))
        })
        .collect();
    found.sort_unstable();
    let mut ranges = SlotRanges::default();
    let mut next = 0;
    for (first, last) in found {
        if first >= next {
            ranges.push(first, last);
            next = last + 1;
        }
    }
    ranges
}

/// The masters of a cluster with the slots that each of them owns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masters(pub Vec<Node>);

impl Masters {
    /// Merges the views of several nodes: each slot belongs to the master whose claim to it has the
    /// highest config epoch, which is the rule by which the nodes themselves agree.
    pub fn merge<'a>(views: impl IntoIterator<Item = &'a View>) -> Self {
        let mut masters: HashMap<&str, &Node> = HashMap::new();
        let mut owners: Vec<Option<&Node>> = vec![None; usize::from(SLOTS)];
        for node in views.into_iter().flat_map(|view| &view.nodes) {
            if !node.is_master || node.slots.is_empty() {
                continue;
            }
            let known = masters.entry(&node.id).or_insert(node);
            if node.config_epoch > known.config_epoch {
                *known = node;
            }
            for slot in node.slots.iter() {
                let owner = &mut owners[usize::from(slot)];
                if owner.is_none_or(|other| other.config_epoch < node.config_epoch) {
                    *owner = Some(node);
                }
            }
        }
        let mut slots: HashMap<&str, Vec<u16>> = HashMap::new();
        for (slot, owner) in (0..SLOTS).zip(&owners) {
            if let Some(owner) = owner {
                slots.entry(&owner.id).or_default().push(slot);
            }
        }
        let mut found: Vec<Node> = slots
            .into_iter()
            .filter_map(|(id, slots)| {
                let node = (*masters.get(id)?).clone();
                Some(Node { slots: slots.into_iter().collect(), ..node })
            })
            .collect();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        Self(found)
    }

    /// Whether the cluster confirms that this node is a master: more than half of the masters say
    /// so in their own views.
    pub fn confirm<'a>(&self, id: &str, views: impl IntoIterator<Item = &'a View>) -> bool {
        let is_voter = |view: &&View| self.0.iter().any(|master| master.id == view.own_id);
        let votes = views.into_iter().filter(is_voter).filter(|view| view.confirms(id)).count();
        votes * 2 > self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: &str = "\
a1 10.0.0.1:7000@17000,one.example myself,master - 0 0 5 connected 0-5460 9000 [93-<-b2] [77->-b2]
b2 10.0.0.2:7000@17000,two.example master - 0 1 6 connected 5461-8999 9001-10922
c3 :0@0 master,noaddr - 0 1 1 disconnected
d4 10.0.0.4:7000@17000 slave a1 0 1 5 connected
";

    fn view(own: &str, nodes: &[(&str, u64, &str)]) -> View {
        let node = |(id, config_epoch, slots): &(&str, u64, &str)| Node {
            id: (*id).to_owned(),
            host: format!("{id}.example"),
            port: 6379,
            is_master: !slots.is_empty(),
            has_failed: false,
            config_epoch: *config_epoch,
            slots: ranges(&slots.split(',').collect::<Vec<_>>()),
        };
        View { own_id: own.to_owned(), nodes: nodes.iter().map(node).collect(), migrating: 0 }
    }

    fn shown(masters: &Masters) -> Vec<(&str, String)> {
        masters.0.iter().map(|n| (n.id.as_str(), n.slots.to_string())).collect()
    }

    #[test]
    fn view_contains_addresses_roles_and_slots() {
        let view = View::parse(REPLY, "seed", 1, false);
        assert_eq!((view.own_id.as_str(), view.nodes.len(), view.migrating), ("a1", 3, 1));
        let [a, b, d] = &view.nodes[..] else { panic!("{view:?}") };
        assert_eq!((a.host.as_str(), a.port, a.config_epoch), ("10.0.0.1", 7000, 5));
        assert_eq!(a.slots.to_string(), "0-5460,9000");
        assert_eq!(b.slots.to_string(), "5461-8999,9001-10922");
        assert!(a.is_master && !d.is_master && d.slots.is_empty());
        let by_name = View::parse(REPLY, "seed", 1, true);
        assert_eq!(by_name.nodes[0].host, "one.example");
    }

    #[test]
    fn node_without_an_address_is_where_it_was_reached() {
        let alone = "a1 :7000@17000 myself,master - 0 0 0 connected 0-16383\nnonsense\n";
        let view = View::parse(alone, "seed", 7000, false);
        assert_eq!(view.nodes[0].host, "seed");
        assert_eq!(view.nodes[0].slots.to_string(), "0-16383");
    }

    #[test]
    fn slots_that_make_no_sense_are_ignored() {
        let line = "a1 h:1@2 myself,master - 0 0 0 connected 5-3 16384 70000 2-4 3-9 x";
        assert_eq!(View::parse(line, "h", 1, false).nodes[0].slots.to_string(), "2-4");
    }

    #[test]
    fn claim_with_the_highest_config_epoch_wins() {
        // a, partitioned, does not know that b was promoted.
        let old = view("a", &[("a", 1, "0-99"), ("c", 2, "100-199"), ("b", 1, "")]);
        let new = view("c", &[("b", 3, "0-99"), ("c", 2, "100-199"), ("a", 1, "")]);
        for views in [[&old, &new], [&new, &old]] {
            let masters = Masters::merge(views);
            assert_eq!(shown(&masters), [("b", "0-99".into()), ("c", "100-199".into())]);
        }
    }

    #[test]
    fn most_masters_must_confirm_a_master() {
        let old = view("a", &[("a", 1, "0-99"), ("b", 1, "100-199"), ("c", 1, "200-299")]);
        let new = |own| view(own, &[("d", 4, "0-99"), ("b", 1, "100-199"), ("c", 1, "200-299")]);
        let (b, c, d) = (new("b"), new("c"), new("d"));
        let masters = Masters::merge([&old, &b, &c, &d]);
        assert_eq!(masters.0.len(), 3);
        assert!(masters.confirm("d", [&b, &c]) && masters.confirm("d", [&old, &b, &d]));
        assert!(!masters.confirm("a", [&old, &b, &c]));
        assert!(!masters.confirm("d", [&d]), "its own view alone is no majority");
        let alone = view("a", &[("a", 1, "0-16383")]);
        assert!(Masters::merge([&alone]).confirm("a", [&alone]));
    }

    #[test]
    fn failed_master_is_not_confirmed() {
        let mut seen = view("b", &[("a", 1, "0-99"), ("b", 1, "100-199")]);
        seen.nodes[0].has_failed = true;
        let masters = Masters::merge([&seen]);
        assert!(!masters.confirm("a", [&seen, &View { own_id: "a".into(), ..seen.clone() }]));
    }
}
