//! Output files of the benchmark: benchmarks.json and benchmarks.md.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::page;
use super::results::Results;

const JSON: &str = "benchmarks.json";
const PAGE: &str = "benchmarks.md";

/// Output files, opened before the benchmark runs for minutes.
pub(super) struct OutputFiles {
    json: (PathBuf, File),
    page: (PathBuf, File),
}

impl OutputFiles {
    /// Opens both files without changing them: a failed benchmark keeps the previous page.
    pub(super) fn open(out: &Path) -> Result<Self, String> {
        fs::create_dir_all(out).map_err(|error| format!("--out {}: {error}", out.display()))?;
        Ok(Self { json: open(out.join(JSON))?, page: open(out.join(PAGE))? })
    }

    /// Writes both files. Returns the results as read from the JSON: the page contains the same
    /// figures as one rendered from the file later.
    pub(super) fn write(self, results: &Results) -> Result<Results, String> {
        let json = serde_json::to_string_pretty(results).map_err(|error| error.to_string())? + "\n";
        let results = serde_json::from_str(&json).map_err(|error| error.to_string())?;
        write(self.json, &json)?;
        write(self.page, &page::page(&results))?;
        Ok(results)
    }
}

/// Writes the page from the JSON in the same directory, without measuring.
pub(super) fn render(out: &Path) -> Result<(), String> {
    let path = out.join(JSON);
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let json = fs::read_to_string(&path).map_err(|error| failed(&error))?;
    let results: Results = serde_json::from_str(&json).map_err(|error| failed(&error))?;
    write(open(out.join(PAGE))?, &page::page(&results))
}

fn open(path: PathBuf) -> Result<(PathBuf, File), String> {
    match File::options().create(true).append(true).open(&path) {
        Ok(file) => Ok((path, file)),
        Err(error) => Err(format!("--out {}: {error}", path.display())),
    }
}

fn write((path, mut file): (PathBuf, File), text: &str) -> Result<(), String> {
    let written = file.set_len(0).and_then(|()| file.write_all(text.as_bytes()));
    written.map_err(|error| format!("--out {}: {error}", path.display()))
}
