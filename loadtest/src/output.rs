//! Where the report goes. A file that cannot be written is told before the run; a reader that has gone wants no more, and changes no
//! exit status.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// What `--json` named.
pub enum JsonOutput {
    /// Nothing: the table only.
    None,
    /// `-`: standard output instead of the table.
    Stdout,
    /// A file, open already.
    File(PathBuf, File),
}

impl JsonOutput {
    /// Opens what is named, and empties it: no older report is taken for this run's.
    pub fn open(name: Option<&Path>) -> Result<Self, String> {
        match name {
            None => Ok(Self::None),
            Some(name) if name.as_os_str() == "-" => Ok(Self::Stdout),
            Some(name) => {
                let file = File::create(name)
                    .map_err(|error| format!("--json {}: {error}", name.display()))?;
                Ok(Self::File(name.to_owned(), file))
            }
        }
    }

    /// Writes both, each to where it belongs.
    pub fn write(self, table: &str, value: &impl serde::Serialize) -> Result<(), String> {
        let json = serde_json::to_string_pretty(value).map_err(|error| error.to_string())? + "\n";
        match self {
            Self::None => write_stdout(table),
            Self::Stdout => write_stdout(&json),
            Self::File(name, mut file) => {
                let written = file.write_all(json.as_bytes());
                write_stdout(table)?;
                written.map_err(|error| format!("--json {}: {error}", name.display()))
            }
        }
    }
}

/// To standard output.
pub fn write_stdout(text: &str) -> Result<(), String> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(format!("cannot write to standard output: {error}"))
        }
        _ => Ok(()),
    }
}

/// A line to standard error; nobody may be there to read it.
pub fn write_stderr(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
