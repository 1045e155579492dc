//! Receive offloads of a tap's interface: off while it is read, as before afterwards.
//!
//! GRO and LRO merge packets of a flow before anybody sees them, so a tap with one of them on does not see what
//! was on the wire, nor when. A VLAN tag that the NIC takes off is out of an XDP program's sight.
//!
//! Invariant: what was on is on again when this is dropped; what was off is never touched.

use super::interface::{Interface, Switch};

/// What was switched off.
#[derive(Debug)]
pub struct Offloads {
    interface: Interface,
    off: Vec<Switch>,
    remain: Vec<Switch>,
}

impl Offloads {
    /// Switches off what is on of `switches`.
    pub fn switch_off(interface: Interface, switches: &[Switch]) -> Offloads {
        let mut offloads = Offloads { interface, off: Vec::new(), remain: Vec::new() };
        for &switch in switches {
            // A driver that does not have it does not do it.
            if !offloads.interface.switch(switch).unwrap_or(false) {
                continue;
            }
            match offloads.interface.set_switch(switch, false) {
                Ok(()) => offloads.off.push(switch),
                Err(_) => offloads.remain.push(switch),
            }
        }
        offloads
    }

    /// What was switched off.
    pub fn off(&self) -> &[Switch] {
        &self.off
    }

    /// What could not be switched off.
    pub fn remain(&self) -> &[Switch] {
        &self.remain
    }
}

impl Drop for Offloads {
    fn drop(&mut self) {
        for &switch in &self.off {
            let restored = self.interface.set_switch(switch, true);
            if let Err(error) = restored
                && self.interface.exists()
            {
                let (interface, switch) = (self.interface.name(), switch.name());
                eprintln!(
                    "lanesplit-measure: {switch} of {interface} could not be switched on again: {error}; use \
                     ethtool -K {interface} {switch} on"
                );
            }
        }
    }
}
