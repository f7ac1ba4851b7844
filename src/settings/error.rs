//! Configuration errors: where the value came from, which setting, the problem and the fix.

use std::{error::Error, fmt, io, path::PathBuf};

use super::Algorithm;

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

/// Why a value is invalid: the problem and its fix. The text never contains a value that may be
/// secret.
#[derive(Debug, thiserror::Error)]
pub enum ValueError {
    /// The value is not of the expected form, or contradicts another one.
    #[error("{0}")]
    Invalid(String),
    /// Several parts of the value are invalid; each is reported as an error of its own.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<ValueError>),
    /// The value is a string that should contain JSON.
    #[error("must be valid JSON")]
    Json(#[source] serde_json::Error),
    /// The configuration itself cannot be read.
    #[error("the file cannot be read; use a readable UTF-8 file")]
    UnreadableConfig(#[source] io::Error),
    /// The value names a file that cannot be read.
    #[error("{} cannot be read; use a readable file", .0.display())]
    UnreadableFile(PathBuf, #[source] io::Error),
    /// The value names a file without what it should contain.
    #[error("{} must contain {expected} in PEM; use such a file", .path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should contain.
        expected: &'static str,
        /// The reason.
        source: rustls::pki_types::pem::Error,
    },
    /// The value is no key of its algorithm.
    #[error("the key{} cannot be used; use a {algorithm:?} public key in PEM", in_file(.file))]
    Key {
        /// The file that contains the key, if any.
        file: Option<PathBuf>,
        /// The algorithm that is set for the key.
        algorithm: Algorithm,
        /// The reason.
        source: jsonwebtoken::errors::Error,
    },
}

fn in_file(file: &Option<PathBuf>) -> String {
    file.as_ref().map(|path| format!(" in {}", path.display())).unwrap_or_default()
}

impl ValueError {
    /// Each problem on its own.
    pub(super) fn each(self) -> Vec<Self> {
        match self {
            Self::Several(problems) => problems,
            one => vec![one],
        }
    }
}

impl From<String> for ValueError {
    fn from(text: String) -> Self {
        Self::Invalid(text)
    }
}

impl From<&str> for ValueError {
    fn from(text: &str) -> Self {
        Self::Invalid(text.to_owned())
    }
}

/// A [`ValueError::Invalid`] with a formatted text.
macro_rules! invalid {
    ($($text:tt)*) => { $crate::settings::error::ValueError::Invalid(format!($($text)*)) };
}
pub(super) use invalid;

/// One error of a configuration. Its text never contains a value that may be secret.
#[derive(Debug)]
pub struct ConfigError {
    /// The source of the invalid value.
    pub origin: Origin,
    /// The setting, `section.key`; empty if the whole file is meant.
    pub key: String,
    /// The problem and its fix, for example `must be a duration from 1s to 1h`.
    pub problem: ValueError,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.place(), self.key_part(), self.problem)
    }
}

impl Error for ConfigError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // The text of the problem is part of this error's text.
        self.problem.source()
    }
}

impl ConfigError {
    pub(super) fn new(
        origin: Origin,
        key: impl Into<String>,
        problem: impl Into<ValueError>,
    ) -> Self {
        Self { origin, key: key.into(), problem: problem.into() }
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

    #[test]
    fn cause_of_a_problem_is_the_source() {
        let cause = io::Error::other("the cause");
        let problem = ValueError::UnreadableFile("/a".into(), cause);
        let error = ConfigError::new(Origin::Unset, "a.b", problem);
        assert_eq!(error.to_string(), "a.b: /a cannot be read; use a readable file");
        assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("the cause"));
    }
}
