//! The sockets that have not yet said what they want. Somebody may open thousands and say nothing: above a bound the oldest gives way,
//! since whoever means it has said it long ago.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use tokio::sync::Notify;

/// So many may wait for one worker.
const MOST: usize = 4096;

/// Those that wait for one worker.
#[derive(Clone, Default)]
pub struct Waiting(Rc<RefCell<Queue>>);

#[derive(Default)]
struct Queue {
    next: u64,
    all: BTreeMap<u64, Rc<Notify>>,
}

/// A place among them; dropping it gives it back.
pub struct Place {
    waiting: Waiting,
    number: u64,
    gives_way: Rc<Notify>,
}

impl Waiting {
    /// Takes a place.
    pub fn enter(&self) -> Place {
        let mut queue = self.0.borrow_mut();
        if queue.all.len() >= MOST
            && let Some((_, oldest)) = queue.all.pop_first()
        {
            oldest.notify_one();
        }
        let (number, gives_way) = (queue.next, Rc::new(Notify::new()));
        queue.next += 1;
        queue.all.insert(number, gives_way.clone());
        Place { waiting: self.clone(), number, gives_way }
    }
}

impl Place {
    /// Resolves when this one has to give way.
    pub async fn lost(&self) {
        self.gives_way.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiting.0.borrow_mut().all.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn above_the_bound_the_oldest_gives_way() {
        let waiting = Waiting::default();
        let mut places: Vec<Place> = (0..MOST).map(|_| waiting.enter()).collect();
        let has_lost = |place: &Place| futures_util::FutureExt::now_or_never(place.lost()).is_some();
        drop(places.remove(1));
        places.push(waiting.enter());
        assert!(!has_lost(&places[0]), "a place was free");
        places.push(waiting.enter());
        assert!(has_lost(&places[0]) && !has_lost(&places[1]));
        assert_eq!(waiting.0.borrow().all.len(), MOST);
        places.clear();
        assert!(waiting.0.borrow().all.is_empty());
    }
}
