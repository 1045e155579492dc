//! Copies of one identity: which of them are the same packet.
//!
//! A *run* is the sightings of one identity from a moment when none of it is waiting until the next such moment,
//! and the copies that follow at the same tap within the duplicate window. Say it has k copies at one tap and
//! m <= k at the other. A copy is *further* when it comes within the duplicate window of the first of its cluster
//! at the same tap; it is *passed over* when, before the next copy came, a packet of the same flow that was sent
//! after it had arrived, or its own window had ended. Then, the first rule that fits:
//!
//! 1. k = m: they are k packets, matched in order.
//! 2. m = 0: the further ones are duplicates, the others were seen at one tap only.
//! 3. The further ones are exactly k - m: they are duplicates; the others are matched in order.
//! 4. Without those passed over there are m, or m and further ones: those passed over were seen at one tap only,
//!    the further ones are duplicates, the others are matched in order.
//! 5. Nothing tells them apart: all are ambiguous.
//!
//! So a retransmission that is the same byte for byte (IPv6 without TCP time stamps) or an identification that
//! came round again is not mistaken for a copy of the mirror, and a lost one does not shift the others.
//!
//! Until a run is settled, the nth copies at both taps share an entry of the ring. A run is settled at the
//! latest two windows after its first sighting; what still comes of an identity that was ambiguous by then is
//! ambiguous, too.

use super::ring::{Class, Entry, NO_RUN, Slot};
use super::{Matcher, Sighting, complete, new_entry, signed_delay};
use crate::flow::{FlowId, Flows};
use crate::lane::Lanes;
use crate::source::Tap;

/// Marks of an entry: a further copy, or one passed over, at the ingress tap; shifted by one for egress.
const FURTHER: u8 = 0b01;
const PASSED_OVER: u8 = 0b0100;
/// Whatever comes of this identity is ambiguous.
const HOPELESS: u8 = 0b1_0000;

#[derive(Debug, Default)]
pub(super) struct Runs {
    runs: Vec<Run>,
    free: Vec<u32>,
}

#[derive(Debug, Default, Clone)]
struct Run {
    /// Numbers of its entries; the nth holds the nth copies.
    entries: Vec<u64>,
    count: [usize; 2],
    /// Copies passed over.
    passed_over: [usize; 2],
    /// Copies before this one were looked at for their windows.
    looked_at: [usize; 2],
    last_ns: [u64; 2],
    cluster_ns: [u64; 2],
    last_order: u32,
}

/// A copy at one tap, while a run is settled.
#[derive(Debug, Clone, Copy)]
struct Copy {
    entry: u64,
    time_ns: u64,
    clock: u8,
    further: bool,
    passed_over: bool,
}

impl Matcher {
    /// A sighting of an identity whose latest entry is no simple partner.
    #[inline(never)]
    pub(super) fn copy(
        &mut self,
        slot: Slot,
        number: u64,
        sighting: &Sighting,
        tap: Tap,
        lanes: &Lanes,
        flows: &mut Flows,
    ) {
        let entry = *self.ring.entry(number);
        if entry.marks & HOPELESS != 0 {
            let mut entry = new_entry(sighting, tap, flows.of(sighting, tap));
            entry.class[tap.index()] = Class::Ambiguous;
            entry.marks = HOPELESS;
            self.ring.push(entry, Some(slot));
            return;
        }
        let run = match entry.run {
            NO_RUN if self.joins_single(&entry, sighting, tap) => self.begin_run(number),
            NO_RUN => {
                let entry = new_entry(sighting, tap, flows.of(sighting, tap));
                self.ring.push(entry, Some(slot));
                return;
            }
            run => run,
        };
        if !self.joins(run, sighting, tap) {
            self.settle(run, false);
            let entry = new_entry(sighting, tap, flows.of(sighting, tap));
            self.ring.push(entry, Some(slot));
            return;
        }
        self.join(run, slot, sighting, tap, lanes, flows);
    }

    fn joins_single(&self, entry: &Entry, sighting: &Sighting, tap: Tap) -> bool {
        let here = tap.index();
        if entry.class[here] == Class::Absent || entry.class[1 - here] == Class::Absent {
            return true;
        }
        // Further copies follow at once, at either tap.
        sighting.time_ns.abs_diff(entry.time_ns[here]) <= self.rules.duplicate_window_ns
    }

    /// Whether a sighting belongs to the run, or the run has ended and another begins.
    fn joins(&self, run: u32, sighting: &Sighting, tap: Tap) -> bool {
        let run = &self.runs.runs[run as usize];
        let (here, there) = (tap.index(), tap.other().index());
        let is_soon = run.count[here] > 0
            && sighting.time_ns.abs_diff(run.last_ns[here]) <= self.rules.duplicate_window_ns;
        if is_soon || run.count[there] > run.count[here] {
            return true;
        }
        let [ingress, egress] = [0, 1].map(|tap| run.count[tap] - run.passed_over[tap]);
        run.count[0] != run.count[1] && ingress != egress
    }

    fn begin_run(&mut self, number: u64) -> u32 {
        let at = self.runs.free.pop().unwrap_or_else(|| {
            self.runs.runs.push(Run::default());
            self.runs.runs.len() as u32 - 1
        });
        let entry = self.ring.entry_mut(number);
        entry.run = at;
        let run = &mut self.runs.runs[at as usize];
        run.entries.clear();
        let entries = std::mem::take(&mut run.entries);
        *run = Run { entries, last_order: entry.order, ..Run::default() };
        run.entries.push(number);
        for tap in 0..2 {
            if entry.class[tap] != Class::Absent {
                run.count[tap] = 1;
                run.last_ns[tap] = entry.time_ns[tap];
                run.cluster_ns[tap] = entry.time_ns[tap];
            }
        }
        at
    }

    fn join(
        &mut self,
        at: u32,
        slot: Slot,
        sighting: &Sighting,
        tap: Tap,
        lanes: &Lanes,
        flows: &mut Flows,
    ) {
        let (here, there) = (tap.index(), tap.other().index());
        self.pass_over(at, sighting, tap, flows);
        let run = &mut self.runs.runs[at as usize];
        let since_ns = sighting.time_ns.abs_diff(run.cluster_ns[here]);
        let further = run.count[here] > 0 && since_ns <= self.rules.duplicate_window_ns;
        if !further {
            run.cluster_ns[here] = sighting.time_ns;
        }
        let place = run.count[here];
        run.count[here] += 1;
        run.last_ns[here] = sighting.time_ns;
        let mark = if further { FURTHER << here } else { 0 };
        if let Some(&number) = run.entries.get(place) {
            let entry = self.ring.entry_mut(number);
            complete(entry, sighting, tap, lanes, self.rules.window_ns);
            entry.marks |= mark;
            flows.passed(FlowId(entry.flow), sighting, tap, number, signed_delay(entry), true);
            return;
        }
        let mut entry = new_entry(sighting, tap, flows.of(sighting, tap));
        (entry.run, entry.marks) = (at, mark);
        run.last_order = entry.order;
        let number = self.ring.push(entry, Some(slot));
        self.runs.runs[at as usize].entries.push(number);
        debug_assert!(self.ring.entry(number).class[there] == Class::Absent);
    }

    /// Marks the copies that a sighting shows to have been lost, or at least not to be meant by it.
    fn pass_over(&mut self, at: u32, sighting: &Sighting, tap: Tap, flows: &Flows) {
        let (here, there) = (tap.index(), tap.other().index());
        let run = &mut self.runs.runs[at as usize];
        // The next copy at this tap: was the one before overtaken?
        if run.count[here] > run.count[there] {
            let number = run.entries[run.count[here] - 1];
            let entry = self.ring.entry_mut(number);
            let is_further = entry.marks & FURTHER << here != 0;
            if !is_further && flows.frontier(FlowId(entry.flow)) > Some(number) {
                mark_passed_over(entry, &mut run.passed_over, here);
            }
        }
        // The other tap's copies whose window had ended when this one came.
        let mut place = run.looked_at[there].max(run.count[here]);
        while place < run.count[there] {
            let entry = self.ring.entry_mut(run.entries[place]);
            if entry.time_ns[there].saturating_add(self.rules.window_ns) >= sighting.time_ns {
                break;
            }
            mark_passed_over(entry, &mut run.passed_over, there);
            place += 1;
        }
        run.looked_at[there] = place;
    }

    /// Whether the oldest entry, which is in a run and older than the window, may leave; settles its run then.
    pub(super) fn may_leave(&mut self, number: u64, age: u32, window: u32, now_ns: u64) -> bool {
        let at = self.ring.entry(number).run;
        let run = &self.runs.runs[at as usize];
        let is_even = run.count[0] == run.count[1];
        let since_last = ((now_ns / super::ORDER_NS) as u32).wrapping_sub(run.last_order);
        let is_over = since_last > window;
        let is_forced = age > window.saturating_mul(2);
        if is_even || is_over || is_forced {
            self.settle(at, !is_even && !is_over);
            return true;
        }
        false
    }

    /// Settles the run of an entry, if it is in one.
    pub(super) fn settle_run_of(&mut self, number: u64) {
        let run = self.ring.entry(number).run;
        if run != NO_RUN {
            self.settle(run, false);
        }
    }

    /// Decides by the rules. `forced`: more of it will come, and nothing will tell it apart.
    fn settle(&mut self, at: u32, forced: bool) {
        let run = std::mem::take(&mut self.runs.runs[at as usize]);
        for &number in &run.entries {
            self.ring.entry_mut(number).run = NO_RUN;
        }
        if run.count[0] != run.count[1] {
            self.decide(&run, forced);
        }
        // Its memory is used again.
        self.runs.runs[at as usize] = run;
        self.runs.free.push(at);
    }

    fn decide(&mut self, run: &Run, forced: bool) {
        let [copies_in, copies_out] = [0, 1].map(|tap| self.copies(run, tap));
        let more = usize::from(copies_out.len() > copies_in.len());
        let (many, few) = if more == 0 { (copies_in, copies_out) } else { (copies_out, copies_in) };
        let further = many.iter().filter(|copy| copy.further).count();
        let is_meant: Box<dyn Fn(&Copy) -> bool> =
            if few.is_empty() || many.len() - further == few.len() {
                Box::new(|copy| !copy.further)
            } else {
                let left = |copy: &&Copy| !copy.passed_over;
                let rest = many.iter().filter(left).count();
                let rest_first = many.iter().filter(left).filter(|copy| !copy.further).count();
                if rest == few.len() {
                    Box::new(|copy| !copy.passed_over)
                } else if rest_first == few.len() {
                    Box::new(|copy| !copy.passed_over && !copy.further)
                } else {
                    return self.all_ambiguous(run, forced);
                }
            };
        let meant: Vec<&Copy> = many.iter().filter(|copy| is_meant(copy)).collect();
        let fewer = 1 - more;
        for copy in &many {
            let entry = self.ring.entry_mut(copy.entry);
            entry.class[fewer] = Class::Absent;
            let single = !copy.further || is_meant(copy);
            entry.class[more] = if single { Class::Single } else { Class::Duplicate };
        }
        for (meant, partner) in meant.iter().zip(&few) {
            let entry = self.ring.entry_mut(meant.entry);
            entry.time_ns[fewer] = partner.time_ns;
            entry.clock[fewer] = partner.clock;
            let apart_ns = entry.time_ns[0].abs_diff(entry.time_ns[1]);
            let comparable = entry.clock[0] == entry.clock[1];
            entry.class = match apart_ns <= self.rules.window_ns || !comparable {
                true => [Class::Matched; 2],
                false => [Class::OutOfWindow; 2],
            };
        }
    }

    fn copies(&self, run: &Run, tap: usize) -> Vec<Copy> {
        let copy = |&number: &u64| {
            let entry = self.ring.entry(number);
            Copy {
                entry: number,
                time_ns: entry.time_ns[tap],
                clock: entry.clock[tap],
                further: entry.marks & FURTHER << tap != 0,
                passed_over: entry.marks & PASSED_OVER << tap != 0,
            }
        };
        run.entries[..run.count[tap]].iter().map(copy).collect()
    }

    fn all_ambiguous(&mut self, run: &Run, forced: bool) {
        for &number in &run.entries {
            let entry = self.ring.entry_mut(number);
            for class in entry.class.iter_mut().filter(|class| **class != Class::Absent) {
                *class = Class::Ambiguous;
            }
            if forced {
                entry.marks |= HOPELESS;
            }
        }
    }
}

fn mark_passed_over(entry: &mut Entry, count: &mut [usize; 2], tap: usize) {
    let mark = PASSED_OVER << tap;
    if entry.marks & mark == 0 {
        entry.marks |= mark;
        count[tap] += 1;
    }
}
