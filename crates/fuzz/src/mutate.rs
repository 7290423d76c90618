//! Changes of inputs.

use super::MAX_INPUT;

/// Changes of one input at most.
const CHANGES: u64 = 6;
/// Repetitions of a piece at most: nesting and long lists.
const REPEATS: u64 = 2000;
/// Numbers at the edges of types, and what looks like one.
const NUMBERS: &[&str] = &[
    "0",
    "-0",
    "-1",
    "0x10",
    "0o17",
    "1e400",
    "1.5",
    ".5",
    "NaN",
    "127",
    "255",
    "65536",
    "2147483648",
    "-9223372036854775809",
    "9223372036854775807",
    "18446744073709551616",
    "340282366920938463463374607431768211456",
];

/// Makes inputs from examples, the same ones from the same seed.
pub(crate) struct Mutator<'a> {
    state: u64,
    examples: &'a [&'a [u8]],
    words: &'a [&'a str],
}

impl<'a> Mutator<'a> {
    pub(crate) fn new(seed: u64, examples: &'a [&'a [u8]], words: &'a [&'a str]) -> Self {
        Self { state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1, examples, words }
    }

    /// A number below a bound (xorshift64*).
    fn below(&mut self, bound: u64) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound.max(1)
    }

    fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    fn example(&mut self) -> &'a [u8] {
        let at = self.index(self.examples.len());
        self.examples.get(at).copied().unwrap_or_default()
    }

    /// The next input.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        let mut input = self.example().to_vec();
        for _ in 0..=self.below(CHANGES) {
            self.change(&mut input);
        }
        input.truncate(MAX_INPUT);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let piece = self.piece(input);
        let at = piece.start;
        match self.below(10) {
            0 => drop(input.drain(piece)),
            1 => input.truncate(at),
            2 => {
                // One bit.
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << self.below(8);
                }
            }
            3 => {
                let byte = self.below(256) as u8;
                input.insert(at, byte);
            }
            4 => self.put(input, at..at, |mutator| mutator.word().as_bytes().to_vec()),
            5 => self.put(input, piece, |mutator| mutator.word().as_bytes().to_vec()),
            6 => {
                let number = self.index(NUMBERS.len());
                self.put(input, piece, |_| NUMBERS[number].as_bytes().to_vec());
            }
            7 => {
                // A piece of another example.
                let other = self.example();
                let range = self.piece(other);
                self.put(input, at..at, |_| other[range].to_vec());
            }
            8 => {
                // A piece, moved.
                let moved = input[piece].to_vec();
                let to = self.index(input.len() + 1);
                self.put(input, to..to, |_| moved);
            }
            _ => {
                let times = 1 + self.below(REPEATS) as usize;
                let repeated = input[piece].to_vec();
                let times = times.min(MAX_INPUT / repeated.len().max(1));
                self.put(input, at..at, |_| repeated.repeat(times));
            }
        }
    }

    fn put(&mut self, input: &mut Vec<u8>, range: std::ops::Range<usize>, with: impl FnOnce(&mut Self) -> Vec<u8>) {
        let with = with(self);
        input.splice(range, with);
    }

    fn word(&mut self) -> &'a str {
        let at = self.index(self.words.len());
        self.words.get(at).copied().unwrap_or("\u{0}")
    }

    /// Some bytes of an input: mostly few, or what stands between two marks, such as a value of JSON.
    fn piece(&mut self, input: &[u8]) -> std::ops::Range<usize> {
        let start = self.index(input.len() + 1);
        if self.below(2) == 0 {
            let is_mark = |byte: &u8| byte.is_ascii_punctuation() || byte.is_ascii_whitespace();
            let length = input[start..].iter().skip(1).position(is_mark).map_or(input.len() - start, |length| length + 1);
            return start..start + length;
        }
        let length = self.index(1 + (input.len() - start).min(16));
        start..start + length
    }
}
