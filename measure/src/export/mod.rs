//! Results as files and as text.

pub mod hdr;
pub mod parquet;
pub mod table;

use std::io::{self, Write};

use serde::Serialize;

/// One value as indented JSON.
pub fn json(output: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *output, value)?;
    output.write_all(b"\n")
}

/// A line of JSON for each value.
pub fn json_lines<T: Serialize>(
    output: &mut impl Write,
    values: impl IntoIterator<Item = T>,
) -> io::Result<()> {
    for value in values {
        serde_json::to_writer(&mut *output, &value)?;
        output.write_all(b"\n")?;
    }
    Ok(())
}
