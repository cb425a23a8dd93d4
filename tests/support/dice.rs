//! Chance that can be repeated: what is thrown follows from a seed, which a failing test prints.
//! Not here: what is done with it.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

/// Set to a seed that was printed, it repeats that run, as far as the machine does.
const VARIABLE: &str = "SEED";

/// The generator is SplitMix64 (Steele, Lea and Flood, 2014).
pub struct Dice {
    state: u64,
}

impl Dice {
    /// From the variable `SEED`, or from chance. Says so on stderr, which a test shows only when it fails.
    pub fn new() -> Dice {
        let given = std::env::var(VARIABLE).ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| RandomState::new().hash_one(0) >> 32);
        eprintln!("to repeat: {VARIABLE}={seed}");
        Dice { state: seed }
    }

    fn throw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number in the range; a range of a few thousand is hit evenly enough.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.throw() % (range.end - range.start)
    }

    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.within(0..choices.len() as u64) as usize]
    }
}
