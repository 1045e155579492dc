//! Who stamps the packets of a live tap.
//!
//! Where the driver offers it, the NIC is told to stamp every received packet, and is told to do as before when
//! the tap is closed ([`Stamping`] is dropped: at the end, after a signal, after a panic; not after `kill -9`).
//! What was switched on is no evidence: of each packet the kernel says whose stamp it has ([`stamp_of`]).
//!
//! Invariant: a stamp is called [`Stamp::Hardware`] only when the kernel says of that very packet that it is the
//! NIC's own, and it is not zero.

use std::io;

use super::Stamp;
use super::interface::{HardwareStamping, Interface, StampingOffer};

/// `HWTSTAMP_FILTER_ALL`: every received packet.
const ALL_PACKETS: i32 = libc::HWTSTAMP_FILTER_ALL.cast_signed();

/// What the NIC must be able to do.
const HARDWARE: u32 = libc::SOF_TIMESTAMPING_RX_HARDWARE | libc::SOF_TIMESTAMPING_RAW_HARDWARE;

/// Whose stamps are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wanted {
    /// The NIC's, and where it has none the kernel's.
    #[default]
    Best,
    /// The NIC's, or nothing is measured.
    Hardware,
    /// The kernel's.
    Software,
}

/// What can be asked of a NIC, and told to it.
pub trait Device {
    /// See [`Interface::stamping_offer`].
    fn offer(&self) -> io::Result<StampingOffer>;
    /// See [`Interface::hardware_stamping`].
    fn setting(&self) -> io::Result<HardwareStamping>;
    /// See [`Interface::set_hardware_stamping`].
    fn set(&self, setting: HardwareStamping) -> io::Result<HardwareStamping>;
}

impl Device for Interface {
    fn offer(&self) -> io::Result<StampingOffer> {
        self.stamping_offer()
    }

    fn setting(&self) -> io::Result<HardwareStamping> {
        self.hardware_stamping()
    }

    fn set(&self, setting: HardwareStamping) -> io::Result<HardwareStamping> {
        self.set_hardware_stamping(setting)
    }
}

/// How a tap's packets are stamped, until this is dropped.
#[derive(Debug)]
pub struct Stamping<D: Device> {
    device: D,
    hardware: Result<Option<u32>, String>,
    former: Option<HardwareStamping>,
}

impl<D: Device> Stamping<D> {
    /// Switches on what is wanted and can be had.
    ///
    /// # Errors
    ///
    /// When hardware stamps are wanted and cannot be had: why.
    pub fn begin(device: D, wanted: Wanted) -> Result<Stamping<D>, String> {
        let mut stamping = Stamping { device, hardware: Ok(None), former: None };
        stamping.hardware = match wanted {
            Wanted::Software => Err("software stamps were asked for".to_owned()),
            Wanted::Best | Wanted::Hardware => stamping.switch_on(),
        };
        match (&stamping.hardware, wanted) {
            (Err(reason), Wanted::Hardware) => Err(reason.clone()),
            _ => Ok(stamping),
        }
    }

    /// Whether the NIC was told to stamp, or why not.
    pub fn hardware(&self) -> Result<(), &str> {
        self.hardware.as_ref().map(|_| ()).map_err(String::as_str)
    }

    /// The number of the NIC's clock, when that stamps.
    pub fn clock(&self) -> Option<u32> {
        self.hardware.as_ref().ok().copied().flatten()
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    fn switch_on(&mut self) -> Result<Option<u32>, String> {
        let offer = self.device.offer();
        let offer =
            offer.map_err(|error| format!("the driver does not say what it offers: {error}"))?;
        if offer.flags & HARDWARE != HARDWARE {
            return Err("the NIC offers no hardware stamps of received packets".into());
        }
        if offer.receive & 1 << ALL_PACKETS == 0 {
            return Err("the NIC stamps some received packets only, such as PTP's".into());
        }
        // A driver that sets and does not tell was, as far as anybody can know, off.
        let former = match self.device.setting() {
            Ok(former) => former,
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Default::default(),
            Err(error) => return Err(format!("the driver does not tell its setting: {error}")),
        };
        if former.receive == ALL_PACKETS {
            return Ok(offer.clock);
        }
        let set = self.device.set(HardwareStamping { receive: ALL_PACKETS, ..former });
        let set = set.map_err(|error| format!("the driver refused to stamp: {error}"))?;
        self.former = Some(former);
        if set.receive != ALL_PACKETS {
            self.restore();
            return Err("the driver chose to stamp some received packets only".into());
        }
        Ok(offer.clock)
    }

    fn restore(&mut self) {
        if let Some(former) = self.former.take()
            && let Err(error) = self.device.set(former)
        {
            eprintln!(
                "lanesplit-measure: hardware stamps could not be switched back to {former:?}: {error}; see \
                 hwstamp_ctl(8)"
            );
        }
    }
}

impl<D: Device> Drop for Stamping<D> {
    fn drop(&mut self) {
        self.restore();
    }
}

/// What the kernel says of the stamp of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// A stamp by somebody.
    Stamped(Stamp),
    /// The kernel's, taken when it copied the packet for us and not when the packet came.
    Copied,
    /// None.
    Nothing,
}

/// Who stamped a packet, by its `tp_status` (linux/if_packet.h) and its time.
#[inline]
pub fn stamp_of(status: u32, seconds: u32, nanoseconds: u32) -> Said {
    if seconds == 0 && nanoseconds == 0 {
        return Said::Nothing;
    }
    // TP_STATUS_TS_SYS_HARDWARE is a software clock's guess of a hardware stamp; no kernel sets it any more.
    if status & libc::TP_STATUS_TS_RAW_HARDWARE != 0 {
        Said::Stamped(Stamp::Hardware)
    } else if status & libc::TP_STATUS_TS_SOFTWARE != 0 {
        Said::Stamped(Stamp::Software)
    } else {
        Said::Copied
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use libc::{
        TP_STATUS_CSUM_VALID, TP_STATUS_TS_RAW_HARDWARE, TP_STATUS_TS_SOFTWARE,
        TP_STATUS_TS_SYS_HARDWARE, TP_STATUS_USER, TP_STATUS_VLAN_VALID,
    };

    use super::*;

    #[test]
    fn only_raw_hardware_is_hardware_and_only_when_it_is_not_zero() {
        let rest = TP_STATUS_USER | TP_STATUS_VLAN_VALID | TP_STATUS_CSUM_VALID;
        let hardware = Said::Stamped(Stamp::Hardware);
        let software = Said::Stamped(Stamp::Software);
        for (status, time, expected) in [
            (TP_STATUS_TS_RAW_HARDWARE, (1, 0), hardware),
            (TP_STATUS_TS_RAW_HARDWARE | rest, (0, 1), hardware),
            (TP_STATUS_TS_RAW_HARDWARE, (0, 0), Said::Nothing),
            (TP_STATUS_TS_SOFTWARE | rest, (5, 5), software),
            (TP_STATUS_TS_SOFTWARE, (0, 0), Said::Nothing),
            (TP_STATUS_TS_SYS_HARDWARE, (5, 5), Said::Copied),
            (TP_STATUS_TS_SYS_HARDWARE | TP_STATUS_TS_SOFTWARE, (5, 5), software),
            (rest, (5, 5), Said::Copied),
            (0, (0, 0), Said::Nothing),
        ] {
            assert_eq!(stamp_of(status, time.0, time.1), expected, "{status:#x} {time:?}");
        }
    }

    /// A NIC as its driver shows it, with a list of what it was told.
    #[derive(Clone)]
    struct Nic {
        offer: StampingOffer,
        now: Rc<RefCell<HardwareStamping>>,
        told: Rc<RefCell<Vec<i32>>>,
        does: Result<i32, i32>,
        tells: bool,
    }

    impl Nic {
        fn new() -> Nic {
            Nic {
                offer: StampingOffer {
                    flags: HARDWARE | libc::SOF_TIMESTAMPING_SOFTWARE,
                    receive: 1 | 1 << ALL_PACKETS,
                    clock: Some(3),
                },
                now: Rc::new(RefCell::new(HardwareStamping { flags: 0, transmit: 1, receive: 0 })),
                told: Rc::default(),
                does: Ok(ALL_PACKETS),
                tells: true,
            }
        }
    }

    impl Device for Nic {
        fn offer(&self) -> io::Result<StampingOffer> {
            Ok(self.offer)
        }

        fn setting(&self) -> io::Result<HardwareStamping> {
            match self.tells {
                true => Ok(*self.now.borrow()),
                false => Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
            }
        }

        fn set(&self, setting: HardwareStamping) -> io::Result<HardwareStamping> {
            self.told.borrow_mut().push(setting.receive);
            let receive = match setting.receive {
                ALL_PACKETS => self.does.map_err(io::Error::from_raw_os_error)?,
                other => other,
            };
            *self.now.borrow_mut() = HardwareStamping { receive, ..setting };
            Ok(*self.now.borrow())
        }
    }

    #[test]
    fn the_former_setting_comes_back_when_the_tap_is_closed() {
        for former in [libc::HWTSTAMP_FILTER_NONE, libc::HWTSTAMP_FILTER_PTP_V2_L2_EVENT] {
            let nic = Nic::new();
            nic.now.borrow_mut().receive = former.cast_signed();
            let before = *nic.now.borrow();
            let stamping = Stamping::begin(nic.clone(), Wanted::Best).unwrap();
            assert_eq!((stamping.hardware(), stamping.clock()), (Ok(()), Some(3)));
            assert_eq!(nic.now.borrow().receive, ALL_PACKETS);
            assert_eq!(nic.now.borrow().transmit, 1, "sending is not our business");
            drop(stamping);
            assert_eq!(*nic.now.borrow(), before);
        }
    }

    #[test]
    fn the_former_setting_comes_back_after_a_panic() {
        let nic = Nic::new();
        let reader = std::panic::AssertUnwindSafe(|| {
            let _stamping = Stamping::begin(nic.clone(), Wanted::Hardware).unwrap();
            panic!("as a reader might");
        });
        let panic = std::panic::catch_unwind(reader);
        assert!(panic.is_err());
        assert_eq!(*nic.told.borrow(), [ALL_PACKETS, 0]);
    }

    #[test]
    fn a_nic_that_stamps_already_is_left_alone() {
        let nic = Nic::new();
        nic.now.borrow_mut().receive = ALL_PACKETS;
        drop(Stamping::begin(nic.clone(), Wanted::Best).unwrap());
        assert_eq!(*nic.told.borrow(), [0_i32; 0]);
        assert_eq!(nic.now.borrow().receive, ALL_PACKETS);
    }

    #[test]
    fn a_driver_that_does_not_tell_its_setting_is_switched_off_at_the_end() {
        let nic = Nic { tells: false, ..Nic::new() };
        drop(Stamping::begin(nic.clone(), Wanted::Best).unwrap());
        assert_eq!(*nic.told.borrow(), [ALL_PACKETS, 0]);
    }

    #[test]
    fn a_driver_that_chooses_fewer_packets_is_put_back_and_gives_software() {
        let some = libc::HWTSTAMP_FILTER_PTP_V2_L2_EVENT.cast_signed();
        let nic = Nic { does: Ok(some), ..Nic::new() };
        let stamping = Stamping::begin(nic.clone(), Wanted::Best).unwrap();
        assert!(stamping.hardware().unwrap_err().contains("some received packets only"));
        assert_eq!(*nic.told.borrow(), [ALL_PACKETS, 0]);
    }

    #[test]
    fn what_is_not_offered_is_not_tried_and_what_is_refused_is_said() {
        let cases: [(Nic, &str); 3] = [
            (Nic { offer: StampingOffer::default(), ..Nic::new() }, "no hardware stamps"),
            (
                Nic { offer: StampingOffer { receive: 1 << 12, ..Nic::new().offer }, ..Nic::new() },
                "such as PTP's",
            ),
            (Nic { does: Err(libc::ERANGE), ..Nic::new() }, "refused"),
        ];
        for (nic, reason) in cases {
            let stamping = Stamping::begin(nic.clone(), Wanted::Best).unwrap();
            assert!(stamping.hardware().unwrap_err().contains(reason));
            assert_eq!(stamping.clock(), None);
            let refused = Stamping::begin(nic.clone(), Wanted::Hardware).err();
            assert!(refused.unwrap().contains(reason));
            assert_eq!(nic.now.borrow().receive, 0);
        }
    }

    #[test]
    fn who_wants_software_changes_nothing() {
        let nic = Nic::new();
        let stamping = Stamping::begin(nic.clone(), Wanted::Software).unwrap();
        assert!(stamping.hardware().is_err());
        drop(stamping);
        assert_eq!(*nic.told.borrow(), [0_i32; 0]);
    }
}
