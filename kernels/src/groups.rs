//! Output channels cut into pieces of at most a block, none of which has channels of two groups.
//!
//! What a group computes must be the same bits whatever the other groups hold, and a zero weight times an infinity is a NaN: so
//! no kernel may sum over the channels of one group for the outputs of another one. Where the output is blocked and groups begin
//! inside its blocks, pieces end where groups and where blocks do, and are stored channel by channel:
//!
//! ```text
//! 3 groups of 20        |------------------20|------------------40|------------------60|
//! blocks                |--------------16|--------------32|--------------48|-----------|
//! pieces                |---------0------|-1-|-----2------|---3---|----4---|-----5-----|     two of each group
//! ```

use core::ops::Range;

use crate::layout::{BLOCK, Layout, blocks};
use crate::shape::ConvShape;

/// The pieces of all groups, as many of each; those that a group does not fill are empty.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pieces {
    groups: usize,
    ocg: usize,
    per_group: usize,
    /// Groups start inside output blocks, at which their pieces end, too.
    ragged: bool,
}

impl Pieces {
    /// Of a convolution with output in that layout.
    pub fn new(s: &ConvShape, output: Layout) -> Self {
        let ragged = output == Layout::Blocked && s.groups > 1 && !s.ocg().is_multiple_of(BLOCK);
        let all = Self { groups: s.groups, ocg: s.ocg(), per_group: blocks(s.ocg()), ragged };
        // Where groups start in a block repeats after at most a block of them.
        let per_group = (0..s.groups.min(BLOCK)).map(|g| all.count(g)).max().unwrap_or(1);
        Self { per_group, ..all }
    }

    /// Pieces of each group, empty ones included.
    pub fn per_group(&self) -> usize {
        self.per_group
    }

    /// Pieces of all groups.
    pub fn total(&self) -> usize {
        self.groups * self.per_group
    }

    /// Whether a piece may be less than a block that has other channels before or behind it.
    pub fn ragged(&self) -> bool {
        self.ragged
    }

    /// The pieces of group `g` that have channels: the first ones.
    pub fn count(&self, g: usize) -> usize {
        let before = if self.ragged { g * self.ocg % BLOCK } else { 0 };
        blocks(before + self.ocg)
    }

    /// The group of a piece.
    pub fn group(&self, piece: usize) -> usize {
        piece / self.per_group
    }

    /// Output channels of a piece.
    pub fn channels(&self, piece: usize) -> Range<usize> {
        let (g, j) = (piece / self.per_group, piece % self.per_group);
        let (first, end) = (g * self.ocg, (g + 1) * self.ocg);
        let base = if self.ragged { first / BLOCK * BLOCK } else { first };
        (base + j * BLOCK).max(first).min(end)..(base + (j + 1) * BLOCK).min(end)
    }

    /// Multiply-adds done per multiply-add that counts: more than 1 where pieces are less than a block.
    pub fn waste(&self) -> f64 {
        let groups = self.groups.min(BLOCK);
        let pieces: usize = (0..groups).map(|g| self.count(g)).sum();
        (pieces as f64 * BLOCK as f64) / (groups as f64 * self.ocg as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_once_and_keep_groups_and_blocks_apart() {
        for (groups, ocg) in (1..20).flat_map(|g| (1..50).map(move |o| (g, o))) {
            let shape = ConvShape::builder([1, groups, 1, 1], [groups * ocg, 1, 1, 1]).groups(groups).build().unwrap();
            for layout in Layout::ALL {
                let pieces = Pieces::new(&shape, layout);
                let (mut end, mut filled) = (0, 0);
                for piece in 0..pieces.total() {
                    let c = pieces.channels(piece);
                    assert_eq!(c.is_empty(), piece % pieces.per_group() >= pieces.count(pieces.group(piece)));
                    if c.is_empty() {
                        continue;
                    }
                    assert_eq!(c.start, end);
                    assert_eq!([c.start, c.end - 1].map(|c| c / ocg), [pieces.group(piece); 2]);
                    assert!(c.len() <= BLOCK && (layout != Layout::Blocked || c.start / BLOCK == (c.end - 1) / BLOCK));
                    assert!(pieces.ragged() || groups == 1 || layout != Layout::Blocked || c.len() == BLOCK);
                    (end, filled) = (c.end, filled + 1);
                }
                assert_eq!(end, groups * ocg);
                let waste = (filled * BLOCK) as f64 / (groups * ocg) as f64;
                assert!(groups > BLOCK || (pieces.waste() - waste).abs() < 1e-12);
            }
        }
    }
}
