//! pcapng: sections of blocks.
//!
//! ```text
//!   every block      type 4 | total length 4 | body | total length 4
//!   section header   byte-order magic 4 | version 2+2 | section length 8 | options
//!   interface        link type 2 | reserved 2 | snap length 4 | options
//!   enhanced packet  interface 4 | time 4+4 | captured 4 | original 4 | packet, padded | options
//!   packet           the same, but interface 2 | drops 2
//!   simple packet    original 4 | packet, padded
//!   option           code 2 | length 2 | value, padded
//! ```
//!
//! Of everything else only the framing is looked at. A section header may change the byte order and
//! begins a new list of interfaces. The section length is not needed and not believed; nor is the
//! snap length, except where a Simple Packet Block has nothing else to tell how much was captured.

use super::byte_order::ByteOrder;
use super::chunk::Record;
use super::pcap::check_lengths;
use super::reader::Interface as Described;
use super::reader::Item;
use super::source::Source;
use super::time::Clock;
use super::{BLOCK_BYTES_MAX, CaptureError, INTERFACES_MAX, LinkType};

/// The type of a section header, the same in both byte orders.
pub(super) const MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

/// Type and length in front, length behind.
const FRAMING_BYTES: usize = 12;
const BODY_AT: usize = 8;
const TRAILER_BYTES: usize = 4;

const OPTION_END: u16 = 0;
const OPTION_IF_NAME: u16 = 2;
const OPTION_IF_TSRESOL: u16 = 9;
const OPTION_IF_TSOFFSET: u16 = 14;

struct Interface {
    link_type: LinkType,
    /// Offset of the link type field, for errors.
    link_type_offset: u64,
    /// 0: unlimited.
    snap_bytes: u32,
    clock: Clock,
    name: Option<String>,
}

/// The current section, and the time for packets that carry none.
pub(super) struct Decoder {
    order: ByteOrder,
    sections: u32,
    interfaces: Vec<Interface>,
    time_ns: u64,
}

impl Default for Decoder {
    /// Before the first section header, which sets the byte order.
    fn default() -> Self {
        Decoder { order: ByteOrder::Little, sections: 0, interfaces: Vec::new(), time_ns: 0 }
    }
}

impl Decoder {
    pub(super) fn interfaces(&self) -> Vec<Described> {
        let described = |interface: &Interface| Described {
            name: interface.name.clone(),
            link_type: interface.link_type,
            resolution_ns: interface.clock.resolution_ns(),
        };
        self.interfaces.iter().map(described).collect()
    }

    pub(super) fn next_item(&mut self, source: &mut Source) -> Result<Option<Item>, CaptureError> {
        let present_bytes = source.fill(FRAMING_BYTES)?;
        if present_bytes == 0 {
            return Ok(None);
        }
        if present_bytes < FRAMING_BYTES {
            return Err(truncated(source, FRAMING_BYTES, present_bytes));
        }
        if source.window().starts_with(&MAGIC) {
            self.order = byte_order_of_section(source)?;
        }
        let length = self.order.u32(source.window(), 4);
        check_block_length(source, length)?;

        let bytes = length as usize;
        let present_bytes = source.fill(bytes)?;
        if present_bytes < bytes {
            return Err(truncated(source, bytes, present_bytes));
        }
        let block = &source.window()[..bytes];
        let trailing_bytes = self.order.u32(block, bytes - TRAILER_BYTES);
        if trailing_bytes != length {
            let at = source.place(0);
            return Err(CaptureError::BlockLengthMismatch {
                at,
                leading_bytes: length,
                trailing_bytes,
            });
        }
        let record = self.block(source, block)?;
        Ok(Some(Item { bytes, record }))
    }

    fn block(&mut self, source: &Source, block: &[u8]) -> Result<Option<Record>, CaptureError> {
        match self.order.u32(block, 0) {
            SECTION_HEADER => self.section_header(source, block)?,
            INTERFACE_DESCRIPTION => self.interface_description(source, block)?,
            ENHANCED_PACKET | PACKET => return self.packet(source, block).map(Some),
            SIMPLE_PACKET => return self.simple_packet(source, block).map(Some),
            _ => {}
        }
        Ok(None)
    }

    fn section_header(&mut self, source: &Source, block: &[u8]) -> Result<(), CaptureError> {
        check_body(source, block, 16, "a Section Header Block too short for its fields")?;
        let major = self.order.u16(block, 12);
        let minor = self.order.u16(block, 14);
        // 1.2 is 1.0 under another number.
        if major != 1 || !matches!(minor, 0 | 2) {
            let at = source.place(12);
            return Err(CaptureError::Version { at, format: "pcapng", major, minor });
        }
        self.sections = self.sections.saturating_add(1);
        self.interfaces.clear();
        Ok(())
    }

    fn interface_description(&mut self, source: &Source, block: &[u8]) -> Result<(), CaptureError> {
        check_body(source, block, 8, "an Interface Description Block too short for its fields")?;
        if self.interfaces.len() == INTERFACES_MAX {
            return Err(malformed(source, "more than 65536 interfaces in one section"));
        }
        let options = &block[BODY_AT + 8..block.len() - TRAILER_BYTES];
        let (clock, name) = self.options(options).map_err(|what| malformed(source, what))?;
        self.interfaces.push(Interface {
            link_type: LinkType(self.order.u16(block, 8)),
            link_type_offset: source.offset() + 8,
            snap_bytes: self.order.u32(block, 12),
            clock,
            name,
        });
        Ok(())
    }

    /// The two options that decide what a time stamp means, and the name.
    fn options(&self, mut options: &[u8]) -> Result<(Clock, Option<String>), &'static str> {
        let mut clock = Clock::MICROSECONDS;
        let mut name = None;
        while options.len() >= 4 {
            let (code, length) = (self.order.u16(options, 0), self.order.u16(options, 2));
            if code == OPTION_END {
                break;
            }
            let value = options
                .get(4..4 + usize::from(length))
                .ok_or("an option that is longer than its Interface Description Block")?;
            match (code, value) {
                (OPTION_IF_TSRESOL, &[resolution]) => clock = clock.with_resolution(resolution),
                (OPTION_IF_TSRESOL, _) => return Err("an if_tsresol option that is not 1 byte"),
                (OPTION_IF_TSOFFSET, value) if value.len() == 8 => {
                    clock = clock.with_offset_seconds(self.order.i64(value, 0));
                }
                (OPTION_IF_TSOFFSET, _) => return Err("an if_tsoffset option that is not 8 bytes"),
                (OPTION_IF_NAME, value) => {
                    let text = String::from_utf8_lossy(value);
                    name = Some(text.trim_end_matches('\0').to_owned());
                }
                _ => {}
            }
            let padded = 4 + usize::from(length).next_multiple_of(4);
            options = options.get(padded..).unwrap_or_default();
        }
        Ok((clock, name))
    }

    /// An Enhanced Packet Block, or the Packet Block it replaced: they differ in the interface
    /// field.
    fn packet(&mut self, source: &Source, block: &[u8]) -> Result<Record, CaptureError> {
        check_body(source, block, 20, "a packet block too short for its fields")?;
        let field = |at| self.order.u32(block, at);
        let interface = match field(0) {
            PACKET => u32::from(self.order.u16(block, 8)),
            _ => field(8),
        };
        let clock = self.ethernet_interface(source, interface)?.clock;
        let units = u64::from(field(12)) << 32 | u64::from(field(16));
        let (captured_bytes, original_bytes) = (field(20), field(24));
        check_lengths(source, 20, captured_bytes, original_bytes)?;
        let packet = packet_place(source, block, 28, captured_bytes)?;
        let Some(time_ns) = clock.nanoseconds(units) else {
            return Err(CaptureError::TimeOutOfRange { at: source.place(0) });
        };
        self.time_ns = time_ns;
        Ok(Record { time_ns, original_bytes, interface, section: self.section(), packet })
    }

    /// A Simple Packet Block belongs to interface 0, whose snap length says how much of it was
    /// captured.
    fn simple_packet(&self, source: &Source, block: &[u8]) -> Result<Record, CaptureError> {
        check_body(source, block, 4, "a Simple Packet Block too short for its field")?;
        let original_bytes = self.order.u32(block, 8);
        let captured_bytes = match self.ethernet_interface(source, 0)?.snap_bytes {
            0 => original_bytes,
            snap_bytes => original_bytes.min(snap_bytes),
        };
        check_lengths(source, 8, captured_bytes, original_bytes)?;
        let packet = packet_place(source, block, 12, captured_bytes)?;
        let (time_ns, section) = (self.time_ns, self.section());
        Ok(Record { time_ns, original_bytes, interface: 0, section, packet })
    }

    fn ethernet_interface(
        &self,
        source: &Source,
        interface: u32,
    ) -> Result<&Interface, CaptureError> {
        let Some(found) = self.interfaces.get(interface as usize) else {
            return Err(CaptureError::UndeclaredInterface {
                at: source.place(0),
                interface,
                declared: self.interfaces.len(),
            });
        };
        if found.link_type != LinkType::ETHERNET {
            return Err(CaptureError::NotEthernet {
                at: source.place_at(found.link_type_offset),
                link_type: found.link_type,
                interface,
            });
        }
        Ok(found)
    }

    fn section(&self) -> u32 {
        self.sections.saturating_sub(1)
    }
}

fn byte_order_of_section(source: &Source) -> Result<ByteOrder, CaptureError> {
    match source.window()[8..12] {
        [0x1a, 0x2b, 0x3c, 0x4d] => Ok(ByteOrder::Big),
        [0x4d, 0x3c, 0x2b, 0x1a] => Ok(ByteOrder::Little),
        _ => Err(malformed(source, "a Section Header Block without the byte-order magic 1a2b3c4d")),
    }
}

fn check_block_length(source: &Source, length: u32) -> Result<(), CaptureError> {
    if length > BLOCK_BYTES_MAX {
        return Err(CaptureError::TooLong {
            at: source.place(4),
            what: "block",
            bytes: length,
            limit_bytes: BLOCK_BYTES_MAX,
        });
    }
    if (length as usize) < FRAMING_BYTES || !length.is_multiple_of(4) {
        return Err(malformed(source, "a block length below 12 or not a multiple of 4"));
    }
    Ok(())
}

fn check_body(
    source: &Source,
    block: &[u8],
    needed_bytes: usize,
    what: &'static str,
) -> Result<(), CaptureError> {
    if block.len() < FRAMING_BYTES + needed_bytes {
        return Err(malformed(source, what));
    }
    Ok(())
}

/// The packet within a block that begins with it at `start`; its padding has to fit, too.
fn packet_place(
    source: &Source,
    block: &[u8],
    start: usize,
    captured_bytes: u32,
) -> Result<std::ops::Range<usize>, CaptureError> {
    let captured_bytes = captured_bytes as usize;
    if start + captured_bytes.next_multiple_of(4) + TRAILER_BYTES > block.len() {
        return Err(malformed(source, "a packet that is longer than its block"));
    }
    Ok(start..start + captured_bytes)
}

fn truncated(source: &Source, needed_bytes: usize, present_bytes: usize) -> CaptureError {
    CaptureError::Truncated { at: source.place(0), what: "block", needed_bytes, present_bytes }
}

fn malformed(source: &Source, what: &'static str) -> CaptureError {
    CaptureError::Malformed { at: source.place(0), what }
}
