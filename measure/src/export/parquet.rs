//! Packets and flows as Parquet, compressed with Snappy, for whoever analyses them elsewhere.
//!
//! Packets are written while they are measured, a row group of [`GROUP_ROWS`] at a time, so memory stays small.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use crate::flow::{Direction, FlowId, Flows};
use crate::flow_line::FlowLine;
use crate::lane::Lanes;
use crate::matcher::{Class, Outcome};
use crate::measurement::Rows;

/// Rows of a group.
pub const GROUP_ROWS: usize = 1 << 18;

const PACKETS: &str = "message packets {
    optional int64 flow;
    optional int64 ingress_ns;
    optional int64 egress_ns;
    optional binary ingress_class (STRING);
    optional binary egress_class (STRING);
    optional int64 delay_ns;
    optional binary direction (STRING);
    required int64 bytes;
    required binary lane (STRING);
}";

const FLOWS: &str = "message flows {
    required int64 flow;
    required binary src (STRING);
    required int64 src_port;
    required binary dst (STRING);
    required int64 dst_port;
    required binary protocol (STRING);
    optional binary direction (STRING);
    required int64 packets_ingress;
    required int64 packets_egress;
    required int64 lost;
    required int64 unmatched;
    required int64 ambiguous;
    required int64 duplicate;
    required int64 bytes;
    optional int64 first_ingress_ns;
    optional int64 last_ingress_ns;
    optional int64 first_egress_ns;
    optional int64 last_egress_ns;
    optional int64 fct_ns;
    required boolean complete;
    required binary lanes (STRING);
    optional double delay_mean_ns;
    optional double jitter_ns;
    optional int64 handshake_rtt_ns;
    optional int64 error_bound_ns;
    required int64 reordered;
}";

/// Rows that are being written.
pub(crate) type Group<'a> = SerializedRowGroupWriter<'a, File>;

/// A new file whose rows are of this schema.
pub(crate) fn open(path: &Path, schema: &str) -> io::Result<SerializedFileWriter<File>> {
    let schema = parse_message_type(schema).expect("the schema is ours");
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    SerializedFileWriter::new(File::create(path)?, Arc::new(schema), Arc::new(properties))
        .map_err(to_io)
}

/// Writes the flows.
///
/// # Errors
///
/// When the file cannot be written.
pub fn flows(path: &Path, flows: &[FlowLine]) -> io::Result<()> {
    let mut file = open(path, FLOWS)?;
    for flows in flows.chunks(GROUP_ROWS) {
        let mut group = file.next_row_group().map_err(to_io)?;
        flow_group(&mut group, flows).map_err(to_io)?;
        group.close().map_err(to_io)?;
    }
    file.close().map_err(to_io)?;
    Ok(())
}

fn flow_group(group: &mut Group<'_>, flows: &[FlowLine]) -> Result<(), ParquetError> {
    let number = |number: u64| number.cast_signed();
    let time = |time: Option<u64>| time.map(u64::cast_signed);
    column::<Int64Type>(group, flows.iter().map(|flow| i64::from(flow.flow)))?;
    column::<ByteArrayType>(group, flows.iter().map(|flow| text(&flow.src)))?;
    column::<Int64Type>(group, flows.iter().map(|flow| i64::from(flow.src_port)))?;
    column::<ByteArrayType>(group, flows.iter().map(|flow| text(&flow.dst)))?;
    column::<Int64Type>(group, flows.iter().map(|flow| i64::from(flow.dst_port)))?;
    column::<ByteArrayType>(group, flows.iter().map(|flow| text(&flow.protocol)))?;
    optional::<ByteArrayType>(group, flows.iter().map(|flow| flow.direction.map(direction_text)))?;
    for field in [
        |flow: &FlowLine| flow.packets_ingress,
        |flow: &FlowLine| flow.packets_egress,
        |flow: &FlowLine| flow.lost,
        |flow: &FlowLine| flow.unmatched,
        |flow: &FlowLine| flow.ambiguous,
        |flow: &FlowLine| flow.duplicate,
        |flow: &FlowLine| flow.bytes,
    ] {
        column::<Int64Type>(group, flows.iter().map(|flow| number(field(flow))))?;
    }
    for field in [
        |flow: &FlowLine| flow.first_ingress_ns,
        |flow: &FlowLine| flow.last_ingress_ns,
        |flow: &FlowLine| flow.first_egress_ns,
        |flow: &FlowLine| flow.last_egress_ns,
        |flow: &FlowLine| flow.fct_ns,
    ] {
        optional::<Int64Type>(group, flows.iter().map(|flow| time(field(flow))))?;
    }
    column::<BoolType>(group, flows.iter().map(|flow| flow.complete))?;
    column::<ByteArrayType>(group, flows.iter().map(|flow| text(&flow.lanes.join(", "))))?;
    optional::<DoubleType>(group, flows.iter().map(|flow| flow.delay_mean_ns))?;
    optional::<DoubleType>(group, flows.iter().map(|flow| flow.jitter_ns))?;
    optional::<Int64Type>(group, flows.iter().map(|flow| time(flow.handshake_rtt_ns)))?;
    optional::<Int64Type>(group, flows.iter().map(|flow| time(flow.error_bound_ns)))?;
    column::<Int64Type>(group, flows.iter().map(|flow| number(flow.reordered)))
}

/// Writes packets as they come.
pub struct PacketFile {
    file: SerializedFileWriter<File>,
    rows: Vec<(Outcome, Option<Direction>)>,
    failure: Option<io::Error>,
}

impl PacketFile {
    /// Creates the file.
    ///
    /// # Errors
    ///
    /// When it cannot be created.
    pub fn create(path: &Path) -> io::Result<PacketFile> {
        Ok(PacketFile { file: open(path, PACKETS)?, rows: Vec::new(), failure: None })
    }

    fn flush(&mut self, lanes: &Lanes) {
        if self.failure.is_none() && !self.rows.is_empty() {
            let written = self.file.next_row_group().and_then(|mut group| {
                packet_group(&mut group, &self.rows, lanes)?;
                group.close().map(|_| ())
            });
            self.failure = written.err().map(to_io);
        }
        self.rows.clear();
    }
}

impl Rows for PacketFile {
    fn row(&mut self, outcome: &Outcome, direction: Option<Direction>, _: &Flows, lanes: &Lanes) {
        self.rows.push((*outcome, direction));
        if self.rows.len() == GROUP_ROWS {
            self.flush(lanes);
        }
    }

    fn finish(mut self: Box<Self>, lanes: &Lanes) -> io::Result<()> {
        self.flush(lanes);
        match self.failure {
            Some(failure) => Err(failure),
            None => self.file.close().map(|_| ()).map_err(to_io),
        }
    }
}

fn packet_group(
    group: &mut Group<'_>,
    rows: &[(Outcome, Option<Direction>)],
    lanes: &Lanes,
) -> Result<(), ParquetError> {
    let outcomes = || rows.iter().map(|(outcome, _)| outcome);
    let known = |outcome: &Outcome| outcome.flow != FlowId::UNKNOWN;
    let flow = |outcome: &Outcome| known(outcome).then_some(i64::from(outcome.flow.0));
    optional::<Int64Type>(group, outcomes().map(flow))?;
    for tap in 0..2 {
        let time = |outcome: &Outcome| {
            (outcome.class[tap] != Class::Absent).then(|| outcome.time_ns[tap].cast_signed())
        };
        optional::<Int64Type>(group, outcomes().map(time))?;
    }
    for tap in 0..2 {
        let class = |outcome: &Outcome| class_name(outcome.class[tap], tap).map(text);
        optional::<ByteArrayType>(group, outcomes().map(class))?;
    }
    let delay = |(outcome, direction): &(Outcome, Option<Direction>)| {
        let difference = outcome.time_ns[1].wrapping_sub(outcome.time_ns[0]).cast_signed();
        match direction {
            _ if outcome.clock[0] != outcome.clock[1] => None,
            Some(Direction::Forward) => Some(difference),
            Some(Direction::Reverse) => Some(-difference),
            None => None,
        }
    };
    optional::<Int64Type>(group, rows.iter().map(delay))?;
    optional::<ByteArrayType>(group, rows.iter().map(|(_, way)| way.map(direction_text)))?;
    column::<Int64Type>(group, outcomes().map(|outcome| i64::from(outcome.wire_bytes)))?;
    column::<ByteArrayType>(group, outcomes().map(|outcome| text(&lanes.name(outcome.lane))))
}

fn class_name(class: Class, tap: usize) -> Option<&'static str> {
    Some(match class {
        Class::Absent => return None,
        Class::Single if tap == 0 => "lost",
        Class::Single => "unmatched",
        Class::Matched => "matched",
        Class::Duplicate => "duplicate",
        Class::Ambiguous => "ambiguous",
        Class::OutOfWindow => "out_of_window",
    })
}

fn direction_text(direction: Direction) -> ByteArray {
    text(match direction {
        Direction::Forward => "forward",
        Direction::Reverse => "reverse",
    })
}

pub(crate) fn text(text: &str) -> ByteArray {
    ByteArray::from(text.as_bytes().to_vec())
}

/// The next column, in which every row has a value.
pub(crate) fn column<T: DataType>(
    group: &mut Group<'_>,
    values: impl Iterator<Item = T::T>,
) -> Result<(), ParquetError> {
    let values: Vec<T::T> = values.collect();
    write::<T>(group, &values, None)
}

/// The next column, in which rows may have none.
pub(crate) fn optional<T: DataType>(
    group: &mut Group<'_>,
    values: impl Iterator<Item = Option<T::T>>,
) -> Result<(), ParquetError> {
    let rows: Vec<Option<T::T>> = values.collect();
    let levels: Vec<i16> = rows.iter().map(|value| i16::from(value.is_some())).collect();
    let values: Vec<T::T> = rows.into_iter().flatten().collect();
    write::<T>(group, &values, Some(&levels))
}

fn write<T: DataType>(
    group: &mut Group<'_>,
    values: &[T::T],
    levels: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let mut column = group.next_column()?.expect("the schema has as many columns as are written");
    column.typed::<T>().write_batch(values, levels, None)?;
    column.close()
}

pub(crate) fn to_io(error: ParquetError) -> io::Error {
    io::Error::other(error)
}
