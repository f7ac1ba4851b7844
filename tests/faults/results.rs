//! The outcomes of a run, with those of earlier ones, and their page.

use crate::deployment::Kind;
use crate::inject::Fault;
use crate::page::{self, Run};
use crate::round::{self, Outcome};
use crate::world::World;
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

/// The outcomes so far.
pub struct Results {
    pub outcomes: Vec<Outcome>,
    run: Run,
    started: Instant,
    /// The load average after each round.
    loads: Vec<f64>,
    /// Rows of the runs and of the outcomes of earlier pages.
    earlier: (Vec<String>, Vec<String>),
}

impl Results {
    /// None yet, apart from those of the pages that `FAULTS_EARLIER` lists, separated by commas.
    pub fn new(seed: u64) -> Results {
        let mut earlier = (Vec::new(), Vec::new());
        let paths = std::env::var("FAULTS_EARLIER").unwrap_or_default();
        for path in paths.split(',').filter(|path| !path.is_empty()) {
            let page = std::fs::read_to_string(path).expect("the page of an earlier run");
            let (runs, rows) = page::rows(&page);
            earlier.0.extend(runs);
            earlier.1.extend(rows);
        }
        let (outcomes, loads) = (Vec::new(), Vec::new());
        Results { outcomes, run: Run::new(seed), started: Instant::now(), loads, earlier }
    }

    /// The page of all outcomes.
    pub fn page(&self) -> String {
        let (mut runs, mut rows) = self.earlier.clone();
        if !self.outcomes.is_empty() {
            runs.push(self.run.row(&self.loads, self.started.elapsed()));
        }
        rows.extend(self.outcomes.iter().map(|outcome| self.run.outcome(outcome)));
        page::page(&runs, &rows)
    }

    /// Writes the page to the file that `FAULTS_PAGE` names.
    pub fn write(&self) {
        if let Some(path) = std::env::var_os("FAULTS_PAGE") {
            std::fs::write(path, self.page()).expect("a page");
        }
    }

    /// Runs a round in `world`, or in a new one, and writes the page. A round that panics counts
    /// as failed, and the next one gets a new world.
    pub async fn round(
        &mut self,
        world: &mut Option<World>,
        kind: Kind,
        plain: bool,
        rng: &mut fastrand::Rng,
        faults: &[Fault],
    ) {
        let work = async {
            if world.is_none() {
                *world = Some(World::start(kind, plain, rng.fork()).await);
            }
            round::run(world.as_mut().expect("a world"), faults).await
        };
        let outcome = AssertUnwindSafe(work).catch_unwind().await;
        self.outcomes.push(outcome.unwrap_or_else(|panic| {
            if let Some(world) = world.take() {
                world.keep_logs();
            }
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.unwrap_or_else(|| "it panicked".to_owned());
            Outcome::failed(kind, plain, faults, text)
        }));
        self.loads.push(page::load());
        self.write();
    }
}

#[test]
fn page_contains_the_rows_of_earlier_pages() {
    let (runs, rows) = (vec!["| 1 | a |".to_owned()], vec!["| 1 | b |".to_owned()]);
    let page = page::page(&runs, &rows);
    assert_eq!(page::rows(&page), (runs, rows));
}
