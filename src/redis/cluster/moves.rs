//! Slots that moved from a living master to another one. Nothing is lost then, so the new master
//! may continue the epochs of the old one for these slots.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;

use super::slots::SlotRanges;

/// Maximum number of epochs that one slot continues.
const MAX_EPOCHS: usize = 8;

/// What this instance has seen of moved slots.
#[derive(Debug, Default)]
pub struct Moves(Mutex<HashMap<u16, Vec<u64>>>);

impl Moves {
    /// Records that slots left a server. `epochs` are that of the server and those that it
    /// continues, newest first, if it was alive all the time and gave the slots away itself; empty
    /// if events may have been lost.
    pub fn record(&self, slots: impl Iterator<Item = u16>, epochs: &[u64]) {
        let mut moves = self.0.lock();
        for slot in slots {
            if epochs.is_empty() {
                moves.remove(&slot);
                continue;
            }
            let before = moves.entry(slot).or_default();
            let mut all = epochs.to_vec();
            all.extend(before.iter().filter(|epoch| !epochs.contains(epoch)));
            all.sort_unstable_by(|a, b| b.cmp(a));
            all.truncate(MAX_EPOCHS);
            *before = all;
        }
    }

    /// The slots among these that moved here without a loss, with the epochs that they continue,
    /// newest first.
    pub fn vouchers(&self, slots: &SlotRanges) -> Vec<(SlotRanges, Vec<u64>)> {
        let moves = self.0.lock();
        let mut by_epochs: BTreeMap<&Vec<u64>, Vec<u16>> = BTreeMap::new();
        for slot in slots.iter() {
            if let Some(epochs) = moves.get(&slot) {
                by_epochs.entry(epochs).or_default().push(slot);
            }
        }
        by_epochs
            .into_iter()
            .map(|(epochs, slots)| (slots.into_iter().collect(), epochs.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(moves: &Moves, slots: impl IntoIterator<Item = u16>) -> Vec<(String, Vec<u64>)> {
        let vouchers = moves.vouchers(&slots.into_iter().collect());
        vouchers.into_iter().map(|(slots, epochs)| (slots.to_string(), epochs)).collect()
    }

    #[test]
    fn only_proved_moves_are_vouched_for() {
        let moves = Moves::default();
        moves.record(0..10, &[7]);
        moves.record(5..6, &[]);
        assert_eq!(shown(&moves, 0..3), [("0-2".into(), vec![7])]);
        assert_eq!(shown(&moves, 0..20), [("0-4,6-9".into(), vec![7])]);
        assert_eq!(shown(&moves, 5..6), []);
    }

    #[test]
    fn slot_continues_all_epochs_of_a_chain_of_moves() {
        let moves = Moves::default();
        for epochs in [&[2, 1][..], &[5], &[6, 2]] {
            moves.record(4..5, epochs);
        }
        assert_eq!(shown(&moves, 4..5), [("4".into(), vec![6, 5, 2, 1])]);
        (10..30).for_each(|epoch| moves.record(4..5, &[epoch]));
        assert_eq!(shown(&moves, 4..5)[0].1.len(), MAX_EPOCHS);
    }
}
