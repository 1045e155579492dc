//! Ethernet II with 802.1Q and 802.1ad tags (IEEE 802.1Q-2018 section 9.6).

use arrayvec::ArrayVec;

use super::window::{Unparsed, Window, u16_at};

/// Bytes of an Ethernet header.
pub const HEADER_BYTES: usize = 14;
/// Bytes of one VLAN tag.
pub const TAG_BYTES: usize = 4;
/// Most tags that are walked.
pub const TAGS_MAX: usize = 2;

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;

/// The VLAN identifiers of a frame, outer first, packed: their number, then twelve bits each. Priority and
/// drop-eligible bits and the tag's protocol identifier are not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vlans(u32);

impl Vlans {
    const COUNT_SHIFT: u32 = 24;

    #[inline(always)]
    fn push(self, identifier: u16) -> Self {
        let count = self.0 >> Self::COUNT_SHIFT;
        let shift = 12 * count;
        Vlans((self.0 + (1 << Self::COUNT_SHIFT)) | (u32::from(identifier) << shift))
    }

    /// The packed form, below 2^26: different lists have different numbers.
    #[inline(always)]
    pub fn packed(self) -> u32 {
        self.0
    }

    /// From [`Vlans::packed`].
    pub fn from_packed(packed: u32) -> Self {
        Vlans(packed)
    }

    /// The packed form of up to [`TAGS_MAX`] identifiers, outer first.
    pub fn of(identifiers: &[u16]) -> Self {
        identifiers.iter().fold(Vlans::default(), |vlans, one| vlans.push(*one))
    }

    /// The identifiers, outer first.
    pub fn identifiers(self) -> ArrayVec<u16, TAGS_MAX> {
        let count = self.0 >> Self::COUNT_SHIFT;
        (0..count).map(|tag| (self.0 >> (12 * tag) & 0xfff) as u16).collect()
    }
}

/// What follows the Ethernet header and its tags.
#[derive(Debug, Clone, Copy)]
pub struct Payload {
    /// Its EtherType (or an 802.3 length, below 1536).
    pub ether_type: u16,
    /// Where it starts.
    pub offset: usize,
    /// The tags in front of it.
    pub vlans: Vlans,
}

/// Walks the header and up to two tags; a third makes the frame non-IP.
#[inline(always)]
pub fn walk(window: &Window) -> Result<Payload, Unparsed> {
    let header = window.header::<HEADER_BYTES>(0, window.end())?;
    let mut payload =
        Payload { ether_type: u16_at(header, 12), offset: HEADER_BYTES, vlans: Vlans::default() };
    for _ in 0..TAGS_MAX {
        if !is_tag(payload.ether_type) {
            return Ok(payload);
        }
        let tag = window.header::<TAG_BYTES>(payload.offset, window.end())?;
        payload.vlans = payload.vlans.push(u16_at(tag, 0) & 0xfff);
        payload.ether_type = u16_at(tag, 2);
        payload.offset += TAG_BYTES;
    }
    if is_tag(payload.ether_type) {
        return Err(Unparsed::NonIp);
    }
    Ok(payload)
}

/// 802.1Q, 802.1ad, and the identifier that stacked tags had before 802.1ad.
#[inline(always)]
fn is_tag(ether_type: u16) -> bool {
    matches!(ether_type, 0x8100 | 0x88a8 | 0x9100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_tag_and_tag_zero_differ() {
        assert_ne!(Vlans::default(), Vlans::default().push(0));
        assert_ne!(Vlans::default().push(0), Vlans::default().push(0).push(0));
    }

    #[test]
    fn identifiers_come_back_outer_first() {
        let vlans = Vlans::default().push(100).push(4095);
        assert_eq!(vlans.identifiers().as_slice(), [100, 4095]);
        assert_eq!(Vlans::from_packed(vlans.packed()), vlans);
        assert!(vlans.packed() < 1 << 26);
    }
}
