//! The table of results, printed and written to docs/operations/reliability.md.

use crate::round::Outcome;
use std::time::Duration;

/// One line of the table.
pub fn row(outcome: &Outcome) -> String {
    let f = &outcome.findings;
    let mut recovery = f.recovery.clone();
    recovery.sort();
    let at = |part: usize| recovery.get(recovery.len().saturating_sub(1) * part / 100);
    let ms = |time: Option<&Duration>| time.map_or("-".to_owned(), |t| t.as_millis().to_string());
    let cells = [
        outcome.deployment.clone(),
        outcome.faults.clone(),
        outcome.durable.to_string(),
        outcome.plain.to_string(),
        f.due.to_string(),
        f.notified.to_string(),
        f.silent.len().to_string(),
        f.duplicated.len().to_string(),
        f.disordered.len().to_string(),
        f.unnecessary.len().to_string(),
        f.broken.len().to_string(),
        format!("{} / {}", ms(at(50)), ms(at(100))),
    ];
    format!("| {} |", cells.join(" | "))
}
