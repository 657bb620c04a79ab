//! The Huffman codes of a JPEG's scan, read for their lengths alone.

use super::Failure;

/// For each 16 bits that may come: the length of the code at their front, 0 for none, and its symbol.
#[derive(Debug)]
pub(super) struct Table(Vec<(u8, u8)>);

impl Table {
    pub(super) fn new(lengths: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        let mut entries = vec![(0, 0); 1 << 16];
        let mut symbols = symbols.iter();
        let mut start = 0;
        for (length, &count) in (1u8..).zip(lengths) {
            for _ in 0..count {
                let covered = 1 << (16 - length);
                let place = entries.get_mut(start..start + covered)?;
                place.fill((length, *symbols.next()?));
                start += covered;
            }
        }
        Some(Self(entries))
    }
}

/// The bits of a scan, without stuffed bytes. Behind a marker or the end of the file come zeros.
pub(super) struct Codes<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The next bits, at the top.
    buffer: u64,
    /// How many of them there are, and how many of those are made up.
    held: u32,
    made_up: u32,
}

impl<'a> Codes<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at, buffer: 0, held: 0, made_up: 0 }
    }

    fn refill(&mut self) {
        while self.held <= 56 {
            let byte = match self.bytes.get(self.at..) {
                Some([0xFF, 0, ..]) => {
                    self.at += 2;
                    0xFF
                }
                Some([byte, ..]) if *byte != 0xFF => {
                    self.at += 1;
                    *byte
                }
                _ => {
                    self.made_up += 8;
                    0
                }
            };
            self.buffer |= u64::from(byte) << (56 - self.held);
            self.held += 8;
        }
    }

    pub(super) fn symbol(&mut self, table: &Table) -> Result<u8, Failure> {
        if self.held < 16 {
            self.refill();
        }
        let (length, symbol) = table.0[(self.buffer >> 48) as usize];
        if length == 0 {
            // Made-up zeros are a code in nearly every table; where not, the caller tells them apart.
            if self.made_up > 0 {
                self.drop_bits(16);
                return Ok(0);
            }
            return Err(Failure::Damaged("a code that is in no Huffman table".into()));
        }
        self.drop_bits(u32::from(length));
        Ok(symbol)
    }

    fn drop_bits(&mut self, count: u32) {
        self.buffer <<= count;
        self.held = self.held.saturating_sub(count);
    }

    pub(super) fn skip(&mut self, mut count: u32) {
        while count > 0 {
            let step = count.min(16);
            if self.held < step {
                self.refill();
            }
            self.drop_bits(step);
            count -= step;
        }
    }

    /// At most 15.
    pub(super) fn bits(&mut self, count: u32) -> u32 {
        if count == 0 {
            return 0;
        }
        if self.held < count {
            self.refill();
        }
        let bits = (self.buffer >> (64 - count)) as u32;
        self.drop_bits(count);
        bits
    }

    /// Whether a made-up bit was used.
    pub(super) fn is_overrun(&self) -> bool {
        self.made_up > self.held
    }

    /// Goes behind the next marker, which must be one of restarting.
    pub(super) fn restart(&mut self) -> bool {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let mut pairs = rest.windows(2).enumerate();
        let marker = pairs.find(|(_, pair)| pair[0] == 0xFF && !matches!(pair[1], 0 | 0xFF));
        match marker {
            Some((at, &[_, 0xD0..=0xD7])) => {
                *self = Self::new(self.bytes, self.at + at + 2);
                true
            }
            _ => false,
        }
    }

    /// Where the scan ends, if the last bits that it needs were read.
    pub(super) fn end(&self) -> usize {
        let mut unread = self.held.saturating_sub(self.made_up) / 8;
        let mut at = self.at;
        while unread > 0 && at > 0 {
            let is_stuffed = at > 1 && self.bytes[at - 2..at] == [0xFF, 0];
            at -= if is_stuffed { 2 } else { 1 };
            unread -= 1;
        }
        at
    }
}
