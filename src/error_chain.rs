//! One line for an error and its causes.

use std::{error::Error, fmt};

/// Displays an error and its sources, outermost first, separated by colons. Errors of this crate
/// do not repeat their source; those of libraries may, and then the source is left out.
pub struct ErrorChain<'a>(pub &'a dyn Error);

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut outer = self.0.to_string();
        f.write_str(&outer)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            let text = error.to_string();
            if !outer.contains(&text) {
                write!(f, ": {text}")?;
                outer = text;
            }
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Layer {
        #[error("{0}")]
        Text(&'static str, #[source] Option<Box<Layer>>),
    }

    fn chain(texts: &[&'static str]) -> Option<Box<Layer>> {
        let (first, rest) = texts.split_first()?;
        Some(Box::new(Layer::Text(first, chain(rest))))
    }

    #[test]
    fn causes_follow_once_each() {
        let shown = |texts: &[&'static str]| ErrorChain(&*chain(texts).unwrap()).to_string();
        assert_eq!(shown(&["a"]), "a");
        assert_eq!(shown(&["a", "b", "c"]), "a: b: c");
        assert_eq!(shown(&["not sent (b)", "b", "c"]), "not sent (b): c");
    }
}
