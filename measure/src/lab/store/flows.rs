//! `flows.parquet`: what was seen of flows between the taps, as [`crate::export::parquet`] writes it.

use std::path::Path;

use parquet::data_type::{BoolType, DoubleType};

use super::columns::{ColumnError, Columns};
use super::requests::next;
use crate::flow::Direction;
use crate::flow_line::FlowLine;

/// Reads flows.
///
/// # Errors
///
/// When the file is not there, damaged, or of something else.
pub fn read_flows(path: &Path) -> Result<Vec<FlowLine>, ColumnError> {
    let columns = Columns::open(path)?;
    let flows = columns.numbers::<u32>("flow")?;
    let mut src = columns.texts("src")?.into_iter();
    let mut src_port = columns.numbers::<u16>("src_port")?.into_iter();
    let mut dst = columns.texts("dst")?.into_iter();
    let mut dst_port = columns.numbers::<u16>("dst_port")?.into_iter();
    let mut protocol = columns.texts("protocol")?.into_iter();
    let mut direction = columns.optional_texts("direction")?.into_iter();
    let counts = |name| columns.numbers::<u64>(name).map(Vec::into_iter);
    let mut packets = [counts("packets_ingress")?, counts("packets_egress")?];
    let (mut lost, mut unmatched) = (counts("lost")?, counts("unmatched")?);
    let (mut ambiguous, mut duplicate) = (counts("ambiguous")?, counts("duplicate")?);
    let mut bytes = counts("bytes")?;
    let times = |name| columns.optional_numbers::<u64>(name).map(Vec::into_iter);
    let mut ingress = [times("first_ingress_ns")?, times("last_ingress_ns")?];
    let mut egress = [times("first_egress_ns")?, times("last_egress_ns")?];
    let mut fct = times("fct_ns")?;
    let mut complete = columns.column::<BoolType>("complete")?.into_iter();
    let mut lanes = columns.texts("lanes")?.into_iter();
    let mut delay = columns.optional::<DoubleType>("delay_mean_ns")?.into_iter();
    let mut jitter = columns.optional::<DoubleType>("jitter_ns")?.into_iter();
    let mut handshake = times("handshake_rtt_ns")?;
    let mut bound = times("error_bound_ns")?;
    let mut reordered = counts("reordered")?;
    let row = |(row, flow)| {
        let direction: Option<String> = next(&mut direction);
        Ok(FlowLine {
            flow,
            src: next(&mut src),
            src_port: next(&mut src_port),
            dst: next(&mut dst),
            dst_port: next(&mut dst_port),
            protocol: next(&mut protocol),
            direction: match direction.as_deref() {
                None => None,
                Some("forward") => Some(Direction::Forward),
                Some("reverse") => Some(Direction::Reverse),
                Some(other) => return Err(columns.wrong("direction", row, other)),
            },
            packets_ingress: next(&mut packets[0]),
            packets_egress: next(&mut packets[1]),
            lost: next(&mut lost),
            unmatched: next(&mut unmatched),
            ambiguous: next(&mut ambiguous),
            duplicate: next(&mut duplicate),
            reordered: next(&mut reordered),
            bytes: next(&mut bytes),
            first_ingress_ns: next(&mut ingress[0]),
            last_ingress_ns: next(&mut ingress[1]),
            first_egress_ns: next(&mut egress[0]),
            last_egress_ns: next(&mut egress[1]),
            fct_ns: next(&mut fct),
            complete: next(&mut complete),
            lanes: names(&next(&mut lanes)),
            delay_mean_ns: next(&mut delay),
            jitter_ns: next(&mut jitter),
            handshake_rtt_ns: next(&mut handshake),
            error_bound_ns: next(&mut bound),
        })
    };
    flows.into_iter().enumerate().map(row).collect()
}

/// Lanes are one text there.
fn names(lanes: &str) -> Vec<String> {
    lanes.split(", ").filter(|lane| !lane.is_empty()).map(str::to_owned).collect()
}
