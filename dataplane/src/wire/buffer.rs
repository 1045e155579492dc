//! A packet in memory that it does not fill: what encapsulation grows into.
//!
//! ```text
//!   storage  | packet ............ | room |
//!            0                  length
//! ```
//!
//! A packet always starts where its storage starts, because the start of a received packet cannot be moved in
//! packet memory that is shared with the kernel: what grows or shrinks at the front moves what is behind it.

use std::ops::{Deref, DerefMut};

/// A packet, and the room behind it. It dereferences to the packet's bytes.
#[derive(Debug)]
pub struct Buffer<'a> {
    storage: &'a mut [u8],
    length: usize,
}

impl<'a> Buffer<'a> {
    /// The first `length` bytes of `storage` are the packet.
    ///
    /// # Panics
    ///
    /// When there are fewer.
    pub fn new(storage: &'a mut [u8], length: usize) -> Self {
        assert!(length <= storage.len(), "a packet is no longer than its storage");
        Buffer { storage, length }
    }

    /// Most bytes the packet may have.
    pub fn capacity(&self) -> usize {
        self.storage.len()
    }

    /// Makes room for `count` bytes at `offset`, whose content is left over from what was there; false, and
    /// nothing done, when the packet would not fit its storage any more.
    #[inline(always)]
    #[must_use]
    pub fn insert(&mut self, offset: usize, count: usize) -> bool {
        if self.length + count > self.storage.len() {
            return false;
        }
        shift(self.storage, offset, offset + count, self.length - offset);
        self.length += count;
        true
    }

    /// Takes out `count` bytes at `offset`.
    #[inline(always)]
    pub fn remove(&mut self, offset: usize, count: usize) {
        shift(self.storage, offset + count, offset, self.length - offset - count);
        self.length -= count;
    }

    /// Cuts the packet to its first `length` bytes; nothing when it has no more.
    #[inline(always)]
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }
}

/// Moves `length` bytes of the storage. A short packet is moved without a call or a loop.
#[inline(always)]
fn shift(storage: &mut [u8], from: usize, to: usize, length: usize) {
    match length {
        32..=64 => shift_ends::<32>(storage, from, to, length),
        65..=128 => shift_ends::<64>(storage, from, to, length),
        _ => storage.copy_within(from..from + length, to),
    }
}

/// In two pieces, the first bytes and the last, which overlap when there are fewer than twice `N`.
#[inline(always)]
fn shift_ends<const N: usize>(storage: &mut [u8], from: usize, to: usize, length: usize) {
    let (source, whole) = (&storage[from..from + length], "the caller has seen the length");
    let first: [u8; N] = *source.first_chunk().expect(whole);
    let last: [u8; N] = *source.last_chunk().expect(whole);
    let destination = &mut storage[to..to + length];
    *destination.last_chunk_mut().expect(whole) = last;
    *destination.first_chunk_mut().expect(whole) = first;
}

impl Deref for Buffer<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        &self.storage[..self.length]
    }
}

impl DerefMut for Buffer<'_> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.storage[..self.length]
    }
}

impl<'a> From<&'a mut Vec<u8>> for Buffer<'a> {
    /// A packet without room.
    fn from(packet: &'a mut Vec<u8>) -> Self {
        Buffer::from(packet.as_mut_slice())
    }
}

impl<'a> From<&'a mut [u8]> for Buffer<'a> {
    /// A packet without room.
    fn from(packet: &'a mut [u8]) -> Self {
        let length = packet.len();
        Buffer { storage: packet, length }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_inserted_and_removed_again_leaves_the_packet_as_it_was() {
        let mut storage = *b"headpayload......";
        let mut buffer = Buffer::new(&mut storage, 11);
        assert!(buffer.insert(4, 6));
        assert_eq!(
            (&buffer[..4], &buffer[10..], buffer.len()),
            (&b"head"[..], &b"payload"[..], 17)
        );
        buffer.remove(4, 6);
        assert_eq!(&buffer[..], b"headpayload");
        buffer.truncate(4);
        assert_eq!(&buffer[..], b"head");
    }

    #[test]
    fn a_packet_of_any_length_is_moved_whole() {
        for length in 0..300 {
            let packet: Vec<u8> = (0..length).map(|n| (n * 151 % 251) as u8).collect();
            let mut storage = [&packet[..], &[0xee; 40]].concat();
            let mut buffer = Buffer::new(&mut storage, length);
            let offset = length.min(14);
            assert!(buffer.insert(offset, 28));
            assert_eq!(buffer[..offset], packet[..offset]);
            assert_eq!(buffer[offset + 28..], packet[offset..], "{length}");
            buffer.remove(offset, 28);
            assert_eq!(buffer[..], packet[..], "{length}");
            assert!(storage[length + 28..].iter().all(|&byte| byte == 0xee));
        }
    }

    #[test]
    fn a_packet_does_not_grow_past_its_storage() {
        let mut storage = *b"packet.";
        let mut buffer = Buffer::new(&mut storage, 6);
        assert!(!buffer.insert(0, 2));
        assert_eq!(&buffer[..], b"packet");
        assert!(buffer.insert(6, 1));
    }
}
