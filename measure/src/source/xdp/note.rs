//! What the XDP program noted in front of a frame, and whose stamp the frame then has.
//!
//! The driver's answer alone is no evidence of a NIC's stamp: a veth answers with whatever the packet brought along,
//! a zero or the stamp of a NIC it came through earlier, by that one's clock. So three things must come together: the
//! NIC of this interface was told to stamp every packet, and its driver said so ([`Stamping`](crate::source::timestamping)),
//! the driver answered without an error, and the answer is not zero.
//!
//! **Clocks.** The NIC's stamp is in the time of its own clock (`/dev/ptpN`). The program's is CLOCK_TAI, the only clock
//! of the calendar that a program may read; it is UTC by [`tai_ahead_ns`] seconds, zero unless somebody has told the
//! kernel.
//!
//! Invariant: a stamp is called [`Stamp::Hardware`] only by [`stamp_of`], and never when it is zero.

use nix::time::{ClockId, clock_gettime};

use crate::source::Stamp;

/// Bytes of a note: `struct note` of `tap.bpf.c`.
pub(super) const NOTE_BYTES: usize = 32;
/// `MARK` there.
const MARK: u32 = 0x6c61_6e65;

/// What the program noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Note {
    /// What the driver says is the NIC's stamp, or its error number.
    pub nic: Result<u64, i32>,
    /// When the program ran, by CLOCK_TAI.
    pub program_ns: u64,
    /// Type and tag of VLAN that the NIC took off.
    pub vlan: Option<(u16, u16)>,
}

impl Note {
    /// `None` when the program could not write one.
    pub(super) fn read(bytes: &[u8; NOTE_BYTES]) -> Option<Note> {
        let word = |at: usize| bytes[at..at + 4].try_into().expect("four bytes");
        let long = |at: usize| bytes[at..at + 8].try_into().expect("eight bytes");
        let short = |at: usize| [bytes[at], bytes[at + 1]];
        if u32::from_ne_bytes(word(16)) != MARK {
            return None;
        }
        let nic = match i32::from_ne_bytes(word(20)) {
            0 => Ok(u64::from_ne_bytes(long(0))),
            error => Err(error.wrapping_neg()),
        };
        let vlan_type = u16::from_be_bytes(short(24));
        let vlan_tag = u16::from_ne_bytes(short(26));
        let vlan = (vlan_type != 0).then_some((vlan_type, vlan_tag));
        Some(Note { nic, program_ns: u64::from_ne_bytes(long(8)), vlan })
    }
}

/// Why a frame has no stamp of the NIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoNic {
    /// The driver's error number.
    Refused(i32),
    /// The driver answered with zero.
    Zero,
    /// The driver answered, but its NIC was not told to stamp: whose stamp that is nobody knows.
    Unknown,
}

/// Who stamped a frame, and when. `nic_stamps`: the NIC was told to; `tai_ahead_ns`: see there.
#[inline]
pub(super) fn stamp_of(
    note: &Note,
    nic_stamps: bool,
    tai_ahead_ns: u64,
) -> (u64, Stamp, Option<NoNic>) {
    let why = match note.nic {
        Ok(0) => NoNic::Zero,
        Ok(nic_ns) if nic_stamps => return (nic_ns, Stamp::Hardware, None),
        Ok(_) => NoNic::Unknown,
        Err(error) => NoNic::Refused(error),
    };
    (note.program_ns.saturating_sub(tai_ahead_ns), Stamp::Driver, Some(why))
}

/// CLOCK_TAI less CLOCK_REALTIME, in whole seconds as it always is.
pub(super) fn tai_ahead_ns() -> u64 {
    const SECOND: i128 = 1_000_000_000;
    let read = |clock| {
        let time = clock_gettime(clock).expect("every kernel has these clocks");
        i128::from(time.tv_sec()) * SECOND + i128::from(time.tv_nsec())
    };
    let ahead = read(ClockId::CLOCK_TAI) - read(ClockId::CLOCK_REALTIME);
    // Between the two readings some time has passed.
    u64::try_from((ahead + SECOND / 2).div_euclid(SECOND) * SECOND).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(nic_ns: u64, result: i32, mark: u32, vlan: ([u8; 2], u16)) -> [u8; NOTE_BYTES] {
        let mut bytes = [0; NOTE_BYTES];
        bytes[..8].copy_from_slice(&nic_ns.to_ne_bytes());
        bytes[8..16].copy_from_slice(&40_000_000_007_u64.to_ne_bytes());
        bytes[16..20].copy_from_slice(&mark.to_ne_bytes());
        bytes[20..24].copy_from_slice(&result.to_ne_bytes());
        bytes[24..26].copy_from_slice(&vlan.0);
        bytes[26..28].copy_from_slice(&vlan.1.to_ne_bytes());
        bytes
    }

    #[test]
    fn only_a_nic_that_was_told_to_stamp_stamps_and_never_with_zero_or_an_error() {
        const PROGRAM: u64 = 3_000_000_007;
        for (nic_ns, result, nic_stamps, expected) in [
            (9, 0, true, (9, Stamp::Hardware, None)),
            (0, 0, true, (PROGRAM, Stamp::Driver, Some(NoNic::Zero))),
            (
                9,
                -libc::ENODATA,
                true,
                (PROGRAM, Stamp::Driver, Some(NoNic::Refused(libc::ENODATA))),
            ),
            (9, 0, false, (PROGRAM, Stamp::Driver, Some(NoNic::Unknown))),
            (0, 0, false, (PROGRAM, Stamp::Driver, Some(NoNic::Zero))),
            (0, -95, false, (PROGRAM, Stamp::Driver, Some(NoNic::Refused(95)))),
            (9, 5, true, (PROGRAM, Stamp::Driver, Some(NoNic::Refused(-5)))),
        ] {
            let note = Note::read(&bytes(nic_ns, result, MARK, ([0; 2], 0))).unwrap();
            let stamp = stamp_of(&note, nic_stamps, 37_000_000_000);
            assert_eq!(stamp, expected, "{nic_ns} {result} {nic_stamps}");
        }
    }

    #[test]
    fn what_has_no_mark_is_no_note() {
        assert_eq!(Note::read(&bytes(9, 0, 0, ([0x81, 0], 5))), None);
        assert_eq!(Note::read(&[0xff; NOTE_BYTES]), None);
    }

    #[test]
    fn a_tag_that_was_taken_off_is_read_as_it_stood() {
        let note = Note::read(&bytes(9, 0, MARK, ([0x88, 0xa8], 0x2005))).unwrap();
        assert_eq!(note.vlan, Some((0x88a8, 0x2005)));
        assert_eq!(Note::read(&bytes(9, 0, MARK, ([0, 0], 5))).unwrap().vlan, None);
    }

    #[test]
    fn atomic_time_is_whole_seconds_ahead() {
        assert_eq!(tai_ahead_ns() % 1_000_000_000, 0);
    }
}
