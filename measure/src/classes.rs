//! Size classes of flows, by number of packets.

/// The classes of the paper's figures.
pub const DEFAULT: &str = "5,10,20,40,100,1000";

/// The name of the last class, whatever is larger than the others.
pub const MORE: &str = "more";

/// Classes by the largest number of packets in each; one more for what is larger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SizeClasses {
    largest: Vec<u64>,
}

impl Default for SizeClasses {
    fn default() -> Self {
        SizeClasses::parse(DEFAULT).expect("the default is valid")
    }
}

impl SizeClasses {
    /// From the largest numbers of packets: `5,10,20` is 1-5, 6-10, 11-20, more.
    ///
    /// # Errors
    ///
    /// When they are no numbers, not all at least 1, or do not rise.
    pub fn parse(text: &str) -> Result<SizeClasses, String> {
        let remedy = "give the largest number of packets of each class in rising order, as 5,10,20";
        let mut largest: Vec<u64> = Vec::new();
        for word in text.split(',') {
            let number = word
                .trim()
                .parse()
                .map_err(|_| format!("'{word}' is not a number of packets; {remedy}"))?;
            if number <= largest.last().copied().unwrap_or(0) {
                return Err(format!("{number} is not more than what is before it; {remedy}"));
            }
            largest.push(number);
        }
        Ok(SizeClasses { largest })
    }

    /// From the names that [`SizeClasses::names`] gave.
    pub fn from_names(names: &[String]) -> Option<SizeClasses> {
        let last = |name: &String| name.rsplit_once('-')?.1.parse().ok();
        let (_, bounded) = names.split_last()?;
        let largest: Option<Vec<u64>> = bounded.iter().map(last).collect();
        let classes = SizeClasses { largest: largest? };
        (classes.names() == names).then_some(classes)
    }

    /// The names, from small to large: `1-5`, `6-10`, ..., `more`.
    pub fn names(&self) -> Vec<String> {
        (0..=self.largest.len()).map(|place| self.name(place)).collect()
    }

    /// The name of the class of a flow with so many packets.
    pub fn name_of(&self, packets: u64) -> String {
        self.name(self.largest.partition_point(|&largest| largest < packets))
    }

    fn name(&self, place: usize) -> String {
        let least = if place == 0 { 1 } else { self.largest[place - 1] + 1 };
        match self.largest.get(place) {
            Some(largest) => format!("{least}-{largest}"),
            None => MORE.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_packets_has_the_class_that_names_it() {
        let classes = SizeClasses::default();
        let names = ["1-5", "6-10", "11-20", "21-40", "41-100", "101-1000", "more"];
        assert_eq!(classes.names(), names);
        let expected =
            [(1, 0), (5, 0), (6, 1), (20, 2), (40, 3), (41, 4), (1000, 5), (1001, 6), (1 << 40, 6)];
        for (packets, place) in expected {
            assert_eq!(classes.name_of(packets), names[place], "{packets}");
        }
        assert_eq!(SizeClasses::from_names(&classes.names()), Some(classes));
    }

    #[test]
    fn classes_that_do_not_rise_are_refused() {
        for text in ["", "5,5", "10,5", "0,5", "5,x"] {
            assert!(SizeClasses::parse(text).is_err(), "{text}");
        }
    }
}
