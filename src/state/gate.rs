//! The bounds on connections: how many at once on this instance, and how many of one user.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use crate::core::system::BusyReason;

#[derive(Default)]
struct Counts {
    all: usize,
    by_user: HashMap<Arc<str>, usize>,
}

/// Counts connections.
pub struct Gate {
    counts: Mutex<Counts>,
    max: usize,
    max_per_user: usize,
}

/// A place behind the gate; dropping it gives it back.
pub struct Pass {
    gate: Arc<Gate>,
    user: Arc<str>,
}

impl Gate {
    /// A gate with these bounds.
    pub fn new(max: usize, max_per_user: usize) -> Arc<Self> {
        Arc::new(Self { counts: Mutex::default(), max, max_per_user })
    }

    /// Takes a place for a user.
    ///
    /// # Errors
    /// Which bound is reached.
    pub fn enter(self: &Arc<Self>, user: &Arc<str>) -> Result<Pass, BusyReason> {
        let mut counts = self.lock();
        if counts.all >= self.max {
            return Err(BusyReason::Full);
        }
        let of_user = counts.by_user.entry(user.clone()).or_default();
        if *of_user >= self.max_per_user {
            return Err(BusyReason::UserFull);
        }
        *of_user += 1;
        counts.all += 1;
        Ok(Pass { gate: self.clone(), user: user.clone() })
    }

    /// Whether no place is left.
    pub fn is_full(&self) -> bool {
        self.lock().all >= self.max
    }

    /// Places taken.
    pub fn taken(&self) -> usize {
        self.lock().all
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut counts = self.gate.lock();
        counts.all -= 1;
        if let Some(n) = counts.by_user.get_mut(&self.user) {
            *n -= 1;
            if *n == 0 {
                counts.by_user.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_hold_and_places_come_back() {
        let gate = Gate::new(3, 2);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let first = gate.enter(&a).ok().unwrap();
        let _second = gate.enter(&a).ok().unwrap();
        assert_eq!(gate.enter(&a).err(), Some(BusyReason::UserFull));
        let _third = gate.enter(&b).ok().unwrap();
        assert_eq!(gate.enter(&b).err(), Some(BusyReason::Full));
        drop(first);
        assert!(!gate.is_full() && gate.enter(&a).is_ok());
    }
}
