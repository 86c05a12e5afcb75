//! The order of rows in the files of families whose heads turn in part (partial rotary). Files turn the first elements of a
//! head, i with i + turning/2, and leave the others alone; slmc turns i with i + width/2, of which some stand still
//! ([`crate::model::spec::RotarySpec`]). With h = turning/2 and r = (width − turning)/2 the rows of a head are
//!
//! ```text
//! here     turn, first half   still, first half   turn, second half   still, second half
//! stored   [0, h)             [2h, 2h + r)        [h, 2h)             [2h + r, width)
//! ```
//!
//! The same order for queries, keys, their biases and their norms leaves every product q·k as it is. GPT-NeoX's files hold,
//! head by head, the rows of its queries, of its keys and of its values; here all queries come first.

use crate::model::spec::AttentionSpec;

/// How the rows of a stored tensor are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadOrder {
    /// Rows of a head.
    width: usize,
    /// Those that turn.
    turning: usize,
    /// Rows, from the first on, that belong to heads of queries and keys; the others stay.
    rows: usize,
    /// Whether each head's queries, keys and values follow one another in the file.
    interleaved: bool,
}

impl HeadOrder {
    /// Of a tensor whose first `rows` rows are heads that turn; `None` where whole heads turn, or nothing does.
    pub(super) fn of(attention: &AttentionSpec, rows: usize) -> Option<Self> {
        let turning = attention.rotary?.turning?;
        Some(HeadOrder { width: attention.head_dim, turning, rows, interleaved: false })
    }

    /// Of a tensor with the queries, keys and values of every head after one another.
    pub(super) fn interleaved(attention: &AttentionSpec) -> Self {
        let width = attention.head_dim;
        let turning = attention.rotary.and_then(|rotary| rotary.turning).unwrap_or(width);
        HeadOrder { width, turning, rows: attention.query_width() + attention.key_width(), interleaved: true }
    }

    /// The row of the stored tensor, of `whole` rows, that slmc uses as row `row`.
    pub fn stored_row(&self, row: usize, whole: usize) -> usize {
        let (head, element) = (row / self.width, row % self.width);
        let heads = (whole / self.width / 3).max(1);
        let head = if self.interleaved { head % heads * 3 + head / heads } else { head };
        if row >= self.rows.min(whole) {
            return head * self.width + element;
        }
        let (half, still) = (self.turning / 2, (self.width - self.turning) / 2);
        let element = match element {
            first if first < half => first,
            first if first < half + still => first + half,
            second if second < 2 * half + still => second - still,
            last => last,
        };
        head * self.width + element
    }

    /// The rows of slmc's order in the order of the file.
    pub fn as_stored(&self, whole: usize) -> Vec<u32> {
        let mut order = vec![0; whole];
        (0..whole).for_each(|row| order[self.stored_row(row, whole)] = row as u32);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_heads_go_there_and_back() {
        let order = HeadOrder { width: 10, turning: 4, rows: 20, interleaved: false };
        let there: Vec<usize> = (0..23).map(|row| order.stored_row(row, 23)).collect();
        assert_eq!(there[..10], [0, 1, 4, 5, 6, 2, 3, 7, 8, 9]);
        assert_eq!(there[10..], [10, 11, 14, 15, 16, 12, 13, 17, 18, 19, 20, 21, 22]);
        let back = order.as_stored(23);
        assert!((0..23).all(|row| back[there[row]] as usize == row));
    }

    #[test]
    fn queries_keys_and_values_of_a_head_are_taken_apart() {
        let order = HeadOrder { width: 4, turning: 2, rows: 16, interleaved: true };
        let there: Vec<usize> = (0..24).map(|row| order.stored_row(row, 24)).collect();
        // Queries of head 0 and 1, keys, values; of the first two kinds with their halves in order.
        assert_eq!(there[..8], [0, 2, 1, 3, 12, 14, 13, 15]);
        assert_eq!(there[8..16], [4, 6, 5, 7, 16, 18, 17, 19]);
        assert_eq!(there[16..], [8, 9, 10, 11, 20, 21, 22, 23]);
        let back = order.as_stored(24);
        assert!((0..24).all(|row| back[there[row]] as usize == row));
    }
}
