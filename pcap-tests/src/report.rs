//! What a run counted, for people.

use std::fmt;

use dataplane::counters::Counters;

/// Shows counters as a table.
#[derive(Debug)]
pub struct Table<'a>(pub &'a Counters);

impl fmt::Display for Table<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counters { received, forwarded, short, long, untouched, dropped, flows, bytes } =
            self.0;
        let mut row = |name: &str, packets: u64, bytes: Option<u64>| match bytes {
            Some(bytes) => writeln!(formatter, "{name:<26}{packets:>14}{bytes:>18}"),
            None => writeln!(formatter, "{name:<26}{packets:>14}"),
        };
        row("received", *received, Some(bytes.received))?;
        row("forwarded", *forwarded, Some(bytes.forwarded))?;
        row("  short lane", *short, Some(bytes.short))?;
        row("  long lane", *long, Some(bytes.long))?;
        row("  untouched", untouched.total(), None)?;
        row("    not TCP", untouched.non_tcp, None)?;
        row("    not IP", untouched.non_ip, None)?;
        row("    malformed", untouched.malformed, None)?;
        row("    fragment without first", untouched.fragment, None)?;
        row("    cut by the capture", untouched.truncated, None)?;
        row("    not classified", untouched.unclassified, None)?;
        row("dropped", dropped.total(), None)?;
        row("  exceeds MTU", dropped.exceeds_mtu, None)?;
        row("flows created", flows.created, None)?;
        row("  promoted to long", flows.promoted, None)?;
        row("  ended by silence", flows.expired, None)?;
        row("  ended by a SYN", flows.restarted, None)?;
        row("  active", flows.active, None)?;
        row("packets without state", flows.table_full, None)
    }
}

/// The heading of [`Table`]'s columns.
pub fn heading() -> String {
    format!("{:<26}{:>14}{:>18}", "", "packets", "bytes")
}
