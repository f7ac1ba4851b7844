//! Which warnings about a server were logged already.

use std::collections::VecDeque;

use crate::redis::library::Warnings;

/// Maximum number of warnings that are remembered.
const MAX_REMEMBERED: usize = 64;

/// The warnings that were logged: the run id of the server process, and the text.
#[derive(Default)]
pub(super) struct Warned(VecDeque<(String, String)>);

impl Warned {
    /// The warnings that were not logged yet for this server process. They count as logged now.
    pub(super) fn only_new(&mut self, warnings: Warnings) -> Vec<String> {
        let Warnings { run_id, mut texts } = warnings;
        texts.retain(|text| !self.0.iter().any(|(id, known)| *id == run_id && known == text));
        self.0.extend(texts.iter().map(|text| (run_id.clone(), text.clone())));
        let excess = self.0.len().saturating_sub(MAX_REMEMBERED);
        self.0.drain(..excess);
        texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(run_id: &str, texts: &[&str]) -> Warnings {
        let texts = texts.iter().map(|text| (*text).to_owned()).collect();
        Warnings { run_id: run_id.to_owned(), texts }
    }

    #[test]
    fn each_warning_is_new_once_per_process() {
        let mut warned = Warned::default();
        assert_eq!(warned.only_new(warnings("a", &["x"])), ["x"]);
        assert_eq!(warned.only_new(warnings("a", &["x", "y"])), ["y"]);
        assert_eq!(warned.only_new(warnings("b", &["x"])), ["x"]);
        assert!(warned.only_new(warnings("a", &["x", "y"])).is_empty());
        (0..1000).for_each(|n| drop(warned.only_new(warnings(&n.to_string(), &["x"]))));
        assert_eq!(warned.0.len(), MAX_REMEMBERED);
    }
}
