//! `requests.parquet`: what the load driver asked and got, a row for each request.

use std::io;
use std::path::Path;

use parquet::data_type::{ByteArrayType, Int64Type};
use parquet::errors::ParquetError;

use super::columns::{ColumnError, Columns};
use crate::export::parquet::{GROUP_ROWS, Group, column, open, optional, text, to_io};
use crate::lab::records::{Bulk, RequestRecord};

const REQUESTS: &str = "message requests {
    required int64 number;
    required binary kind (STRING);
    required binary bulk (STRING);
    required int64 packets;
    required int64 bytes;
    required int64 due_ns;
    required int64 started_ns;
    optional int64 connected_ns;
    optional int64 finished_ns;
    optional int64 port;
    optional binary error (STRING);
}";

const DOWNLOAD: &str = "download";
const UPLOAD: &str = "upload";

/// Writes requests.
///
/// # Errors
///
/// When the file cannot be written.
pub fn write_requests(path: &Path, requests: &[RequestRecord]) -> io::Result<()> {
    let mut file = open(path, REQUESTS)?;
    for requests in requests.chunks(GROUP_ROWS) {
        let mut group = file.next_row_group().map_err(to_io)?;
        write_group(&mut group, requests).map_err(to_io)?;
        group.close().map_err(to_io)?;
    }
    file.close().map_err(to_io)?;
    Ok(())
}

fn write_group(group: &mut Group<'_>, requests: &[RequestRecord]) -> Result<(), ParquetError> {
    let rows = || requests.iter();
    let bulk = |request: &RequestRecord| match request.bulk {
        Bulk::Download => text(DOWNLOAD),
        Bulk::Upload => text(UPLOAD),
    };
    let time = |time: Option<u64>| time.map(u64::cast_signed);
    column::<Int64Type>(group, rows().map(|request| i64::from(request.number)))?;
    column::<ByteArrayType>(group, rows().map(|request| text(&request.kind)))?;
    column::<ByteArrayType>(group, rows().map(bulk))?;
    column::<Int64Type>(group, rows().map(|request| i64::from(request.packets)))?;
    column::<Int64Type>(group, rows().map(|request| request.bytes.cast_signed()))?;
    column::<Int64Type>(group, rows().map(|request| request.due_ns.cast_signed()))?;
    column::<Int64Type>(group, rows().map(|request| request.started_ns.cast_signed()))?;
    optional::<Int64Type>(group, rows().map(|request| time(request.connected_ns)))?;
    optional::<Int64Type>(group, rows().map(|request| time(request.finished_ns)))?;
    optional::<Int64Type>(group, rows().map(|request| request.port.map(i64::from)))?;
    optional::<ByteArrayType>(group, rows().map(|request| request.error.as_deref().map(text)))
}

/// Reads requests.
///
/// # Errors
///
/// When the file is not there, damaged, or of something else.
pub fn read_requests(path: &Path) -> Result<Vec<RequestRecord>, ColumnError> {
    let columns = Columns::open(path)?;
    let numbers = columns.numbers::<u32>("number")?;
    let mut kinds = columns.texts("kind")?.into_iter();
    let mut bulks = columns.texts("bulk")?.into_iter();
    let mut packets = columns.numbers::<u32>("packets")?.into_iter();
    let mut bytes = columns.numbers::<u64>("bytes")?.into_iter();
    let mut due = columns.numbers::<u64>("due_ns")?.into_iter();
    let mut started = columns.numbers::<u64>("started_ns")?.into_iter();
    let mut connected = columns.optional_numbers::<u64>("connected_ns")?.into_iter();
    let mut finished = columns.optional_numbers::<u64>("finished_ns")?.into_iter();
    let mut ports = columns.optional_numbers::<u16>("port")?.into_iter();
    let mut errors = columns.optional_texts("error")?.into_iter();
    let row = |(row, number)| {
        let bulk: String = next(&mut bulks);
        Ok(RequestRecord {
            number,
            kind: next(&mut kinds),
            bulk: match bulk.as_str() {
                DOWNLOAD => Bulk::Download,
                UPLOAD => Bulk::Upload,
                other => return Err(columns.wrong("bulk", row, other)),
            },
            packets: next(&mut packets),
            bytes: next(&mut bytes),
            due_ns: next(&mut due),
            started_ns: next(&mut started),
            connected_ns: next(&mut connected),
            finished_ns: next(&mut finished),
            port: next(&mut ports),
            error: next(&mut errors),
        })
    };
    numbers.into_iter().enumerate().map(row).collect()
}

/// The next value of a column, of which there is one for every row.
pub(super) fn next<T>(column: &mut impl Iterator<Item = T>) -> T {
    column.next().expect("every column has a value for every row")
}
