//! Delays as an HDR histogram log, version 1.3, for HdrHistogram's own tools: one interval, a histogram of
//! nanoseconds for each direction, tagged `forward` and `reverse`.

use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::flow::Direction;
use crate::results::delay_series;
use crate::session::Found;

/// Writes the log.
///
/// # Errors
///
/// When the output cannot be written.
pub fn log(output: &mut impl Write, found: &Found) -> io::Result<()> {
    let stamps = found.taps.iter().flat_map(|tap| [tap.first_ns, tap.last_ns]).flatten();
    let (first_ns, last_ns) =
        stamps.fold((u64::MAX, 0), |(first, last), ns| (ns.min(first), ns.max(last)));
    let start = Duration::from_nanos(if first_ns == u64::MAX { 0 } else { first_ns });
    let length = Duration::from_nanos(last_ns.saturating_sub(first_ns));
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("lanesplit-measure: one-way delay in nanoseconds")
        .with_start_time(UNIX_EPOCH + start)
        .with_max_value_divisor(1.0)
        .begin_log_with(output, &mut serializer)?;
    for direction in Direction::BOTH {
        let name = match direction {
            Direction::Forward => "forward",
            Direction::Reverse => "reverse",
        };
        let histogram = delay_series(found, direction).histogram();
        log.write_histogram(&histogram, start, length, Tag::new(name))
            .map_err(|error| io::Error::other(format!("{error:?}")))?;
    }
    Ok(())
}
