//! The class of fragmented datagrams, learnt from their first fragments.
//!
//! A ring of the datagrams in the order they came, and chains through it from hashed heads. When the ring is
//! full, the oldest datagram makes room for the newest. There is no time limit: forgetting is by count alone.

use super::key::DatagramKey;
use super::secret::Secret;
use crate::verdict::Class;

/// End of a chain.
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Entry {
    key: DatagramKey,
    class: Class,
    next: u32,
}

/// Bounded memory of fragmented datagrams. Nothing is allocated after it is made.
#[derive(Debug)]
pub struct Fragments {
    secret: Secret,
    heads: Vec<u32>,
    ring: Vec<Entry>,
    datagrams_max: usize,
    oldest: usize,
}

impl Fragments {
    /// Room for `datagrams_max` datagrams, at least one.
    pub fn new(datagrams_max: usize, secret: Secret) -> Self {
        assert!((1..NONE as usize).contains(&datagrams_max));
        Fragments {
            secret,
            heads: vec![NONE; datagrams_max],
            ring: Vec::with_capacity(datagrams_max),
            datagrams_max,
            oldest: 0,
        }
    }

    /// The class of a datagram whose first fragment was seen.
    pub fn find(&self, key: &DatagramKey) -> Option<Class> {
        self.position(key).map(|position| self.ring[position].class)
    }

    /// Remembers the class of a datagram. A datagram that is known keeps its place in the order.
    pub fn remember(&mut self, key: DatagramKey, class: Class) {
        if let Some(position) = self.position(&key) {
            self.ring[position].class = class;
            return;
        }
        let position = if self.ring.len() < self.datagrams_max {
            self.ring.push(Entry { key, class, next: NONE });
            self.ring.len() - 1
        } else {
            let position = self.oldest;
            self.oldest = (self.oldest + 1) % self.datagrams_max;
            self.unlink(position);
            position
        };
        let head = self.head(&key);
        self.ring[position] = Entry { key, class, next: self.heads[head] };
        self.heads[head] = position as u32;
    }

    fn head(&self, key: &DatagramKey) -> usize {
        (self.secret.hash(key) % self.heads.len() as u64) as usize
    }

    fn position(&self, key: &DatagramKey) -> Option<usize> {
        let mut position = self.heads[self.head(key)];
        while position != NONE {
            let entry = &self.ring[position as usize];
            if entry.key == *key {
                return Some(position as usize);
            }
            position = entry.next;
        }
        None
    }

    fn unlink(&mut self, position: usize) {
        let Entry { key, next, .. } = self.ring[position];
        let head = self.head(&key);
        if self.heads[head] as usize == position {
            self.heads[head] = next;
            return;
        }
        let mut before = self.heads[head] as usize;
        while self.ring[before].next as usize != position {
            before = self.ring[before].next as usize;
        }
        self.ring[before].next = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::key::Key;

    fn key(number: u64) -> DatagramKey {
        Key([1, 2, 3, 4, 5, number])
    }

    #[test]
    fn the_oldest_datagram_makes_room() {
        let mut fragments = Fragments::new(3, Secret::from_seed(1));
        for number in 0..3 {
            fragments.remember(key(number), Class::Short);
        }
        fragments.remember(key(0), Class::Long);
        fragments.remember(key(3), Class::Long);
        assert_eq!(fragments.find(&key(0)), None, "known again, and still the oldest");
        assert_eq!(fragments.find(&key(1)), Some(Class::Short));
        assert_eq!(fragments.find(&key(3)), Some(Class::Long));
    }

    #[test]
    fn a_long_run_agrees_with_a_queue() {
        let mut fragments = Fragments::new(50, Secret::from_seed(2));
        let mut queue: Vec<(u64, Class)> = Vec::new();
        let mut state = 1_u64;
        for _ in 0..100_000 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let number = (state >> 33) % 80;
            let class = if state >> 63 == 0 { Class::Short } else { Class::Long };
            if let Some(known) = queue.iter_mut().find(|(known, _)| *known == number) {
                known.1 = class;
            } else {
                if queue.len() == 50 {
                    queue.remove(0);
                }
                queue.push((number, class));
            }
            fragments.remember(key(number), class);
            let asked = (state >> 20) % 80;
            let expected = queue.iter().find(|(known, _)| *known == asked).map(|(_, class)| *class);
            assert_eq!(fragments.find(&key(asked)), expected);
        }
    }
}
