//! Packet memory without a kernel: frames that worker and simulated kernel reach both.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::rc::Rc;

use dataplane::xdp::{Descriptor, Memory};

pub(crate) const FRAME_BYTES: usize = 2048;

/// An entry of a simulated ring.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Entry {
    pub(crate) address: usize,
    pub(crate) packet_bytes: usize,
    pub(crate) options: u32,
}

impl Descriptor for Entry {
    fn address(&self) -> usize {
        self.address
    }

    fn packet_bytes(&self) -> usize {
        self.packet_bytes
    }

    fn options(&self) -> u32 {
        self.options
    }
}

/// Clones are the same memory.
#[derive(Clone)]
pub(crate) struct PlainMemory(Rc<[Cell<u8>]>);

impl PlainMemory {
    pub(crate) fn new(frames: usize) -> PlainMemory {
        PlainMemory(vec![Cell::new(0); frames * FRAME_BYTES].into())
    }

    /// A descriptor of every frame.
    pub(crate) fn free(&self) -> Vec<Entry> {
        let frame = |index| Entry { address: index * FRAME_BYTES, ..Entry::default() };
        (0..self.frames()).map(frame).collect()
    }

    pub(crate) fn write(&self, address: usize, bytes: &[u8]) {
        for (cell, byte) in self.0[address..][..bytes.len()].iter().zip(bytes) {
            cell.set(*byte);
        }
    }

    pub(crate) fn holds(&self, address: usize, bytes: &[u8]) -> bool {
        self.0[address..][..bytes.len()].iter().zip(bytes).all(|(cell, byte)| cell.get() == *byte)
    }

    pub(crate) fn read(&self, address: usize, length: usize) -> Vec<u8> {
        self.0[address..][..length].iter().map(Cell::get).collect()
    }
}

// SAFETY: the cells live as long as any clone, and frames lie side by side.
unsafe impl Memory for PlainMemory {
    type Descriptor = Entry;

    fn frame_bytes(&self) -> usize {
        FRAME_BYTES
    }

    fn frames(&self) -> usize {
        self.0.len() / FRAME_BYTES
    }

    unsafe fn storage(&self, entry: &mut Entry) -> *mut [u8] {
        let end = (entry.address / FRAME_BYTES + 1) * FRAME_BYTES;
        let cells = &self.0[entry.address..end];
        std::ptr::slice_from_raw_parts_mut(cells.as_ptr().cast::<u8>().cast_mut(), cells.len())
    }

    unsafe fn set_packet_bytes(&self, entry: &mut Entry, bytes: usize) {
        entry.packet_bytes = bytes;
    }
}
