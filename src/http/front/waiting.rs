//! The sockets that have no request under way: new ones, and those between two requests. Somebody may open thousands and say nothing:
//! above a bound the one that has been silent for longest gives way.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::sync::oneshot;

/// So many may wait at one worker.
const MOST: usize = 4096;

/// Those that wait at one worker.
#[derive(Clone, Default)]
pub struct Waiting(Rc<RefCell<Queue>>);

#[derive(Default)]
struct Queue {
    next: u64,
    all: BTreeMap<u64, oneshot::Sender<()>>,
}

/// A place among them; dropping it gives it back.
pub struct Place {
    waiting: Waiting,
    number: u64,
    /// Ends when the place is lost.
    held: oneshot::Receiver<()>,
}

impl Waiting {
    /// Takes a place.
    pub fn enter(&self) -> Place {
        let mut queue = self.0.borrow_mut();
        if queue.all.len() >= MOST {
            queue.all.pop_first();
        }
        let (sender, held) = oneshot::channel();
        let number = queue.next;
        queue.next += 1;
        queue.all.insert(number, sender);
        Place { waiting: self.clone(), number, held }
    }
}

impl Place {
    /// Ready when this one has to give way.
    pub fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.held).poll(cx).map(|_| ())
    }

    /// The same as a future.
    pub async fn lost(&mut self) {
        poll_fn(|cx| self.poll_lost(cx)).await;
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
        let has_lost = |place: &mut Place| futures_util::FutureExt::now_or_never(place.lost()).is_some();
        drop(places.remove(1));
        places.push(waiting.enter());
        assert!(!has_lost(&mut places[0]), "a place was free");
        places.push(waiting.enter());
        assert!(has_lost(&mut places[0]) && !has_lost(&mut places[1]));
        assert_eq!(waiting.0.borrow().all.len(), MOST);
        places.clear();
        assert!(waiting.0.borrow().all.is_empty());
    }
}
