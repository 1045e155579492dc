//! The floor: what the memory takes for one random line a packet, when somebody asks early enough.

use dataplane::flow::table::buckets_for;
use dataplane::memory;

use crate::traffic::Random;

/// Lines that are asked for together.
const BATCH: usize = 32;

#[derive(Clone)]
#[repr(align(64))]
struct Line([u64; 8]);

/// As many cache lines as a flow table of this size has.
pub(super) struct Floor {
    lines: Vec<Line>,
    random: Random,
}

impl Floor {
    pub(super) fn new(flows: usize) -> Self {
        let lines = memory::vec_on_huge_pages(buckets_for(flows), || Line([0; 8]));
        Floor { lines, random: Random::new(1) }
    }

    /// Reads and writes a random line for each packet, asked for a batch before.
    pub(super) fn touch(&mut self, packets: usize) {
        let length = self.lines.len() as u64;
        let mut batch = [0_usize; BATCH];
        for _ in 0..packets / BATCH {
            for line in &mut batch {
                *line = self.random.below(length) as usize;
                memory::prefetch(&self.lines[*line]);
            }
            for line in batch {
                self.lines[line].0[0] += 1;
            }
        }
    }
}
