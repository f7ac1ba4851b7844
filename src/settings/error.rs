//! Configuration errors: where the value came from, which setting, the problem and the fix.

use std::path::PathBuf;

/// The source of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A line of the TOML file; `None` if the whole file is meant.
    File(PathBuf, Option<usize>),
    /// An environment variable.
    Variable(String),
    /// No source: the setting is missing, or two settings contradict each other.
    Unset,
}

impl Origin {
    /// The order in which errors are reported: the file by lines, variables, missing settings.
    pub(super) fn order(&self) -> (u8, usize) {
        match self {
            Self::File(_, line) => (0, line.unwrap_or(0)),
            Self::Variable(_) => (1, 0),
            Self::Unset => (2, 0),
        }
    }
}

/// One error of a configuration. Its text never contains a value that may be secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{message}", self.place(), self.key_part())]
pub struct ConfigError {
    /// The source of the invalid value.
    pub origin: Origin,
    /// The setting, `section.key`; empty if the whole file is meant.
    pub key: String,
    /// The problem and its fix, for example `must be a duration from 1s to 1h`.
    pub message: String,
}

impl ConfigError {
    pub(super) fn new(origin: Origin, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { origin, key: key.into(), message: message.into() }
    }

    fn place(&self) -> String {
        match &self.origin {
            Origin::File(path, Some(line)) => format!("{}:{line}: ", path.display()),
            Origin::File(path, None) => format!("{}: ", path.display()),
            Origin::Variable(name) => format!("{name}: "),
            Origin::Unset => String::new(),
        }
    }

    fn key_part(&self) -> String {
        if self.key.is_empty() { String::new() } else { format!("{}: ", self.key) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_place_key_and_problem() {
        let shown = |origin, key| ConfigError::new(origin, key, "must be 1").to_string();
        let file = |line| Origin::File("/etc/gateway.toml".into(), line);
        assert_eq!(shown(file(Some(7)), "a.b"), "/etc/gateway.toml:7: a.b: must be 1");
        assert_eq!(shown(file(None), ""), "/etc/gateway.toml: must be 1");
        assert_eq!(shown(Origin::Variable("A__B".into()), "a.b"), "A__B: a.b: must be 1");
        assert_eq!(shown(Origin::Unset, "a.b"), "a.b: must be 1");
    }
}
