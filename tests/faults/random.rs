//! The seed of a run.

use crate::harness::now_ms;

/// The variable that repeats a run.
const VARIABLE: &str = "FAULTS_SEED";

/// The random numbers of one test. Prints the seed, which [`VARIABLE`] sets.
pub fn seeded() -> (u64, fastrand::Rng) {
    let given = std::env::var(VARIABLE).ok().map(|text| text.parse().expect("a number"));
    let seed = given.unwrap_or_else(|| now_ms() % 1_000_000);
    println!("repeat this run with {VARIABLE}={seed}");
    (seed, fastrand::Rng::with_seed(seed))
}
