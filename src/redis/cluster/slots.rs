//! The 16,384 hash slots of a Redis Cluster. Pure.

use crc::{CRC_16_XMODEM, Crc};

/// Number of slots.
pub const SLOTS: u16 = 16_384;

const CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);

/// The slot of a key: that of its hash tag, if it has one.
pub fn slot_of(key: &[u8]) -> u16 {
    CRC.checksum(hash_tag(key).unwrap_or(key)) % SLOTS
}

/// What stands between the first brace and the next closing one, unless that is nothing.
fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let rest = &key[key.iter().position(|b| *b == b'{')? + 1..];
    let end = rest.iter().position(|b| *b == b'}')?;
    (end > 0).then(|| &rest[..end])
}

/// A set of slots as ascending ranges, both ends included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotRanges(Vec<(u16, u16)>);

impl SlotRanges {
    /// Adds a range that is after all others.
    pub(super) fn push(&mut self, first: u16, last: u16) {
        match self.0.last_mut() {
            Some(before) if before.1 + 1 == first => before.1 = last,
            _ => self.0.push((first, last)),
        }
    }

    /// Reads `0-5460 9000`, as the function library shows it. What is no slot is left out.
    pub fn parse(text: &str) -> Self {
        let range = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            Some((first.parse().ok()?, last.parse().ok().filter(|last| *last < SLOTS)?))
        };
        let mut ranges = Self::default();
        for (first, last) in text.split(' ').filter_map(range) {
            ranges.push(first, last);
        }
        ranges
    }

    /// Whether there is no slot.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of slots.
    pub fn count(&self) -> usize {
        self.0.iter().map(|(first, last)| usize::from(last - first) + 1).sum()
    }

    /// Whether the slot is in the set.
    pub fn contains(&self, slot: u16) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < slot);
        self.0.get(at).is_some_and(|(first, _)| *first <= slot)
    }

    /// Whether all slots of another set are in this one.
    pub fn includes(&self, other: &Self) -> bool {
        other.iter().all(|slot| self.contains(slot))
    }

    /// The slots in order.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        self.0.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// The hash tag of keys that belong to the server of these slots: `preferred` if its slot is
    /// one of them, else the lowest `n<number>` whose slot is one of them. `None`: no slots.
    pub fn tag(&self, preferred: &str) -> Option<String> {
        if self.contains(slot_of(preferred.as_bytes())) {
            return Some(preferred.to_owned());
        }
        if self.is_empty() {
            return None;
        }
        (0..MAX_TAGS).map(|n| format!("n{n}")).find(|tag| self.contains(slot_of(tag.as_bytes())))
    }
}

/// Tags that are tried: every slot has one of them (see the test).
const MAX_TAGS: u32 = 1 << 18;

impl FromIterator<u16> for SlotRanges {
    /// Collects slots that are in ascending order.
    fn from_iter<I: IntoIterator<Item = u16>>(slots: I) -> Self {
        let mut ranges = Self::default();
        slots.into_iter().for_each(|slot| ranges.push(slot, slot));
        ranges
    }
}

impl std::fmt::Display for SlotRanges {
    /// `0-5460,9000`, as the function library reads it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, (first, last)) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_redis_cluster_specification() {
        assert_eq!(CRC.checksum(b"123456789"), 0x31C3);
        assert_eq!(slot_of(b"foo"), 12_182);
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"user1000"));
        assert_eq!(slot_of(b"foo{}{bar}"), CRC.checksum(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
        assert_eq!(slot_of(b"sse:log:{user:42:events}"), slot_of(b"user:42:events"));
    }

    #[test]
    fn ranges_are_merged_shown_and_searched() {
        let ranges: SlotRanges = [0, 1, 2, 7, 9, 10].into_iter().collect();
        assert_eq!(ranges.to_string(), "0-2,7,9-10");
        assert!([0, 2, 7, 9, 10].iter().all(|slot| ranges.contains(*slot)));
        assert!([3, 6, 8, 11, SLOTS - 1].iter().all(|slot| !ranges.contains(*slot)));
        assert_eq!((ranges.iter().count(), ranges.count()), (6, 6));
        assert_eq!(SlotRanges::default().tag("broadcast"), None);
        assert_eq!(SlotRanges::parse("0-2 7 9-10"), ranges);
        assert_eq!(SlotRanges::parse(""), SlotRanges::default());
    }

    #[test]
    fn every_slot_has_a_tag() {
        let mut seen = vec![false; usize::from(SLOTS)];
        for n in 0..MAX_TAGS {
            seen[usize::from(slot_of(format!("n{n}").as_bytes()))] = true;
        }
        assert!(seen.iter().all(|found| *found));
        let broadcast = slot_of(b"broadcast");
        let own: SlotRanges = [broadcast].into_iter().collect();
        assert_eq!(own.tag("broadcast").as_deref(), Some("broadcast"));
        let other: SlotRanges = [(broadcast + 1) % SLOTS].into_iter().collect();
        let tag = other.tag("broadcast").unwrap();
        assert!(other.contains(slot_of(tag.as_bytes())), "{tag}");
    }
}
