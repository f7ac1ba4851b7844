//! Destinations of the report. A file that cannot be written is an error before the run starts; a
//! closed pipe does not change the exit status.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Destination given by `--json`.
pub enum JsonOutput {
    /// No JSON: writes the table only.
    None,
    /// `-`: writes the JSON to standard output instead of the table.
    Stdout,
    /// Writes the JSON to this open file and the table to standard output.
    File(PathBuf, File),
}

impl JsonOutput {
    /// Opens and truncates the file, so that an older report cannot be mistaken for this one.
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

    /// Writes the table, the JSON, or both.
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

/// Writes to standard output and ignores a closed pipe.
pub fn write_stdout(text: &str) -> Result<(), String> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(format!("cannot write to standard output: {error}"))
        }
        _ => Ok(()),
    }
}

/// Writes a line to standard error and ignores errors: nobody may be reading.
pub fn write_stderr(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
