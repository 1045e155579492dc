//! The laboratory's report: figures, a page, a table, and all numbers for scripts.
//!
//! ```text
//!   output/ --> Analysis --> figures/*.svg, report.html, summary.json, and a table for the terminal
//! ```
//!
//! It is made of whatever runs there are: what none of them could show is left out, or told as not measured.

mod chart;
mod figures;
mod page;
mod sentences;
#[cfg(test)]
mod tests;
mod text;

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::analysis::{self, Analysis};
use super::store::{Output, StoreError, write_json};
use figures::Drawing;

/// The page.
pub const REPORT: &str = "report.html";
/// The folder of figures.
pub const FIGURES: &str = "figures";
/// All numbers.
pub const SUMMARY: &str = "summary.json";

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The folder cannot be read, or what belongs into it cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A figure cannot be drawn.
    #[error("cannot draw {file}: {cause}")]
    Draw {
        /// The figure.
        file: &'static str,
        /// Why.
        cause: String,
    },
}

/// What was found, and where the report is. Shown, it is a table for the terminal.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// All numbers.
    #[serde(flatten)]
    pub analysis: Analysis,
    /// The page.
    pub report: PathBuf,
    /// The figures, by the names of their files.
    pub figures: Vec<String>,
}

/// A figure that was drawn.
struct Drawn {
    drawing: Drawing,
    svg: String,
}

/// Reads an output folder and writes its report, figures and summary into it.
///
/// # Errors
///
/// When the folder cannot be read or written. A run that cannot be read is told in the report.
pub fn write(output: &Path) -> Result<Summary, ReportError> {
    let analysis = analysis::of(&Output::open(output)?);
    let drawn = figures::all(&analysis).into_iter().map(|drawing| {
        let file = drawing.file;
        let svg = drawing.figure.svg().map_err(|cause| ReportError::Draw { file, cause })?;
        Ok(Drawn { drawing, svg })
    });
    let drawn: Vec<Drawn> = drawn.collect::<Result<_, ReportError>>()?;
    let folder = output.join(FIGURES);
    let failed = |path: &Path, cause: io::Error| StoreError::Write { path: path.to_owned(), cause };
    std::fs::create_dir_all(&folder).map_err(|cause| failed(&folder, cause))?;
    let put = |path: PathBuf, text: &str| {
        std::fs::write(&path, text).map_err(|cause| failed(&path, cause)).map(|()| path)
    };
    for Drawn { drawing, svg } in &drawn {
        put(folder.join(drawing.file), svg)?;
    }
    let report = put(output.join(REPORT), &page::page(&analysis, &drawn))?;
    let figures = drawn.iter().map(|drawn| drawn.drawing.file.to_owned()).collect();
    let summary = Summary { analysis, report, figures };
    write_json(&output.join(SUMMARY), &summary)?;
    Ok(summary)
}
