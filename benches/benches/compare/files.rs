//! The files a run leaves.

use std::error::Error;
use std::fs;
use std::path::Path;

use millstream_benches::report::{self, Record};
use millstream_benches::stand::unused;

/// Writes the record into the folder, and page and chart next to it.
pub(super) fn write(record: &Record, folder: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder).map_err(|error| about(folder, &error))?;
    let path = unused(folder, &format!("{}-{}", record.date, record.profile));
    put(&path, &format!("{}\n", serde_json::to_string(record)?))?;
    write_rendered(record, &path)
}

/// Makes page and chart from the record at `path`, next to it.
pub(super) fn render(path: &Path) -> Result<(), Box<dyn Error>> {
    let text = fs::read_to_string(path).map_err(|error| about(path, &error))?;
    let record = serde_json::from_str(&text)
        .map_err(|error| format!("{} is no record: {error}", path.display()))?;
    write_rendered(&record, path)
}

fn write_rendered(record: &Record, path: &Path) -> Result<(), Box<dyn Error>> {
    put(&path.with_extension("html"), &report::page(record)?)?;
    put(&path.with_extension("svg"), &report::overview(record)?)
}

fn put(path: &Path, text: &str) -> Result<(), Box<dyn Error>> {
    fs::write(path, text).map_err(|error| about(path, &error))?;
    println!("{}", path.display());
    Ok(())
}

fn about(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}
