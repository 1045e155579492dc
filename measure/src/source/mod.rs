//! Where packets come from: the seam between taps and the matcher.
//!
//! A tap hands over [`Batch`]es. A batch holds frames in the order of the tap and says until when it is
//! complete: the tap will give no frame stamped earlier. So the two taps can be merged by time however they
//! are read, and a tap that has nothing to say must still say so from time to time (an empty batch with a later
//! [`Batch::complete_until_ns`]), or the other one waits for it.
//!
//! ```text
//!   file   --> Batch --\
//!                       >-- Session::feed --> merged by time --> matcher
//!   socket --> Batch --/        (a bounded queue between, when the tap has a thread of its own)
//! ```
//!
//! Invariant: stamps are nanoseconds since 1970 as the tap gave them; nobody corrects them on the way.

pub mod file;
pub mod interface;
pub mod listener;
pub mod offloads;
pub mod packet_ring;
pub mod packet_socket;
pub mod timestamping;
pub mod xdp;

/// The two places a packet passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tap {
    /// Before the WAN.
    Ingress,
    /// Behind it.
    Egress,
}

impl Tap {
    /// Both, ingress first.
    pub const BOTH: [Tap; 2] = [Tap::Ingress, Tap::Egress];

    /// The other one.
    #[inline(always)]
    pub fn other(self) -> Tap {
        match self {
            Tap::Ingress => Tap::Egress,
            Tap::Egress => Tap::Ingress,
        }
    }

    /// Its place in an array of two.
    #[inline(always)]
    pub fn index(self) -> usize {
        self as usize
    }

    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            Tap::Ingress => "ingress",
            Tap::Egress => "egress",
        }
    }
}

/// Who stamped a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stamp {
    /// A capture file says so; who stamped the frame before is not known.
    #[default]
    File,
    /// The kernel's network stack.
    Software,
    /// The XDP program in the driver.
    Driver,
    /// The NIC.
    Hardware,
}

/// One frame of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Nanoseconds since 1970-01-01 00:00:00 UTC.
    pub time_ns: u64,
    /// Who says so.
    pub stamp: Stamp,
    /// Bytes on the wire, without the frame check sequence.
    pub wire_bytes: u32,
    /// The bytes captured, from the Ethernet header on.
    pub bytes: &'a [u8],
}

#[derive(Debug, Clone, Copy)]
struct Place {
    time_ns: u64,
    stamp: Stamp,
    wire_bytes: u32,
    start: u32,
    end: u32,
}

/// Frames of one tap, in its order. Used again and again: it keeps its memory.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    places: Vec<Place>,
    bytes: Vec<u8>,
    complete_until_ns: u64,
}

impl Batch {
    /// Most frames of a batch.
    pub const FRAMES_MAX: usize = dataplane::capture::CHUNK_RECORDS_MAX;

    /// An empty batch.
    pub fn new() -> Self {
        Batch::default()
    }

    /// Forgets its frames.
    pub fn clear(&mut self) {
        self.places.clear();
        self.bytes.clear();
    }

    /// Number of frames.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether it has no frame.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether it takes no more frames.
    pub fn is_full(&self) -> bool {
        self.places.len() >= Batch::FRAMES_MAX
    }

    /// Appends a frame; its bytes are copied.
    #[inline]
    pub fn push(&mut self, frame: Frame<'_>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(frame.bytes);
        self.places.push(Place {
            time_ns: frame.time_ns,
            stamp: frame.stamp,
            wire_bytes: frame.wire_bytes,
            start: start as u32,
            end: self.bytes.len() as u32,
        });
    }

    /// Appends a frame whose bytes lie in three pieces.
    pub fn push_parts(&mut self, time_ns: u64, stamp: Stamp, wire_bytes: u32, parts: [&[u8]; 3]) {
        let start = self.bytes.len();
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        let (start, end) = (start as u32, self.bytes.len() as u32);
        self.places.push(Place { time_ns, stamp, wire_bytes, start, end });
    }

    /// The frames.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = Frame<'_>> {
        self.places.iter().map(|place| Frame {
            time_ns: place.time_ns,
            stamp: place.stamp,
            wire_bytes: place.wire_bytes,
            bytes: &self.bytes[place.start as usize..place.end as usize],
        })
    }

    /// No frame stamped earlier than this will come any more.
    pub fn complete_until_ns(&self) -> u64 {
        self.complete_until_ns
    }

    /// Promises that no frame stamped earlier will come any more.
    pub fn set_complete_until_ns(&mut self, time_ns: u64) {
        self.complete_until_ns = time_ns;
    }
}
