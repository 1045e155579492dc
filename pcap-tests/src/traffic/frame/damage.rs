//! What may happen to a good frame: lengths that lie, bits that flip, an end that comes too early.

use super::{Builder, Random};

impl Builder {
    /// Mostly nothing, sometimes several things at once.
    pub(super) fn damage(&mut self, random: &mut Random) {
        if self.places.ip != 0 && random.one_in(16) {
            self.well_formed = false;
            self.lie(random);
        }
        if random.one_in(32) {
            self.well_formed = false;
            self.flip(random);
        }
        if random.one_in(32) {
            // The wire itself broke off.
            self.well_formed = false;
            let length = self.cut(random);
            self.bytes.truncate(length);
            self.wire_bytes = length as u32;
        }
        if random.one_in(32) && self.places.ip != 0 {
            self.lengthen(random);
        }
        if random.one_in(16) {
            self.well_formed = false;
            let length = self.cut(random);
            self.bytes.truncate(length);
        }
    }

    /// Where to cut: anywhere, or where it matters.
    fn cut(&mut self, random: &mut Random) -> usize {
        let length = self.bytes.len();
        let near = match random.below(6) {
            0 => self.places.ip,
            1 => self.places.tcp,
            2 => self.places.tcp + 20,
            3 => self.places.end,
            _ => return random.index(length + 1),
        };
        (near + random.index(3)).saturating_sub(1).min(length)
    }

    /// A payload that was on the wire and was not kept.
    fn lengthen(&mut self, random: &mut Random) {
        let at = self.places.ip + if self.is_ipv6() { 4 } else { 2 };
        if at + 2 > self.bytes.len() {
            return;
        }
        self.well_formed = false;
        let length = u32::from(self.word_at(at));
        let more = (random.pick(&[1, 1000, 8900, 65_535]) as u32).min(65_535 - length);
        // The IP packet is longer, or the padding only.
        if !random.one_in(4) {
            self.set_word(at, (length + more) as u16);
        }
        let slack = match random.below(16) {
            0 => 0,
            1 => u32::MAX / 2,
            _ => more,
        };
        self.wire_bytes += slack;
    }

    fn is_ipv6(&self) -> bool {
        self.bytes.get(self.places.ip).is_some_and(|first| first >> 4 == 6)
    }

    /// One field says what is not so.
    fn lie(&mut self, random: &mut Random) {
        let ip = self.places.ip;
        if random.one_in(8) {
            self.bytes[ip] = (random.byte() & 0xf0) | (self.bytes[ip] & 0xf);
            return;
        }
        if self.places.tcp != 0 && random.one_in(3) {
            let tcp = self.places.tcp;
            self.bytes[tcp + 12] = random.byte();
            return;
        }
        if self.is_ipv6() {
            if self.places.extensions > 0 && random.one_in(2) {
                let at = self.places.extension_lengths[random.index(self.places.extensions)];
                let units = self.bytes[at];
                self.bytes[at] =
                    random.pick(&[0, 1, units.wrapping_sub(1), units + 1, units + 2, 32, 255]);
                return;
            }
            let lie = self.false_length(random, ip + 40, self.word_at(ip + 4));
            self.set_word(ip + 4, lie);
        } else {
            if random.one_in(2) {
                self.bytes[ip] = 0x40 | random.byte() & 0xf;
            } else {
                let lie = self.false_length(random, ip, self.word_at(ip + 2));
                self.set_word(ip + 2, lie);
            }
            if random.one_in(2)
                && ip + usize::from(self.bytes[ip] & 0xf) * 4 <= self.bytes.len()
                && self.bytes[ip] & 0xf >= 5
            {
                self.ipv4_checksum(random);
            }
        }
    }

    /// A length, counted from `from`, that is not `right`, though it may be near.
    fn false_length(&mut self, random: &mut Random, from: usize, right: u16) -> u16 {
        let to = |place: usize| (place.saturating_sub(from)) as u16;
        let there = to(self.bytes.len());
        let tcp = to(self.places.tcp);
        let near = match random.below(10) {
            0 => 0,
            1 => right,
            2 | 3 => there,
            4 => tcp,
            5 => tcp + 20,
            6 => 20,
            7 => random.below(u64::from(there) + 1) as u16,
            8 => random.word(),
            _ => u16::MAX,
        };
        near.wrapping_add(random.below(3) as u16).wrapping_sub(1)
    }

    /// A few bits or bytes turn into others, early ones more often.
    fn flip(&mut self, random: &mut Random) {
        if self.bytes.is_empty() {
            return;
        }
        for _ in 0..1 + random.index(3) {
            let length = self.bytes.len();
            let at = if random.one_in(2) { random.index(length) } else { 12 + random.index(48) };
            let at = at.min(length - 1);
            if random.one_in(2) {
                self.bytes[at] ^= 1 << random.below(8);
            } else {
                self.bytes[at] = random.byte();
            }
        }
    }
}
