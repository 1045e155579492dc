//! The log of a run: a line of JSON for each request, as they end.

use std::io::{self, BufRead, Write};

use crate::lab::records::RequestRecord;

/// Writes one request.
///
/// # Errors
///
/// The output's.
pub fn write(mut output: impl Write, record: &RequestRecord) -> io::Result<()> {
    serde_json::to_writer(&mut output, record)?;
    output.write_all(b"\n")
}

/// Reads a log back, in the order of the requests' numbers.
///
/// # Errors
///
/// The input's, and a line that is no request, with its number.
pub fn read(input: impl BufRead) -> io::Result<Vec<RequestRecord>> {
    let parse = |(line, text): (usize, io::Result<String>)| {
        serde_json::from_str(&text?).map_err(|error| {
            let what = format!("line {}: no request: {error}", line + 1);
            io::Error::new(io::ErrorKind::InvalidData, what)
        })
    };
    let mut records: Vec<RequestRecord> =
        input.lines().enumerate().map(parse).collect::<io::Result<_>>()?;
    records.sort_by_key(|record| record.number);
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::records::Bulk;

    fn record(number: u32) -> RequestRecord {
        RequestRecord {
            number,
            kind: "page".into(),
            bulk: Bulk::Download,
            packets: 20,
            bytes: 21_000,
            due_ns: 1,
            started_ns: 2,
            connected_ns: Some(3),
            finished_ns: None,
            port: Some(4),
            error: Some("cut \"off\"\n".into()),
        }
    }

    #[test]
    fn a_log_reads_back_by_number() {
        let mut log = Vec::new();
        for number in [2, 0, 1] {
            write(&mut log, &record(number)).expect("memory takes it");
        }
        assert_eq!(read(&log[..]).expect("it is a log"), [record(0), record(1), record(2)]);
    }

    #[test]
    fn a_line_that_is_no_request_is_named() {
        let mut log = Vec::new();
        write(&mut log, &record(0)).expect("memory takes it");
        log.extend_from_slice(b"{\"number\":1\n");
        let error = read(&log[..]).expect_err("cut off").to_string();
        assert!(error.starts_with("line 2: no request:"), "{error}");
    }
}
