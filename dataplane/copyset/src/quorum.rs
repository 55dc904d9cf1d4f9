//! What a majority has reached.

use crate::limits::VOTERS_MAX;

/// Members of a majority of `voters`.
pub(crate) fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// The largest value that a majority of the values reaches. At least one value, at most
/// [`VOTERS_MAX`].
pub(crate) fn reached_by_majority<T: Copy + Ord>(values: impl Iterator<Item = T>, zero: T) -> T {
    let mut sorted = [zero; VOTERS_MAX];
    let mut count = 0;
    for value in values {
        let mut at = count;
        while at > 0 && sorted[at - 1] < value {
            sorted[at] = sorted[at - 1];
            at -= 1;
        }
        sorted[at] = value;
        count += 1;
    }
    assert!(count > 0, "a group has members");
    sorted[majority(count) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_reaches_the_value_and_none_a_larger_one() {
        let cases: [(&[u64], u64); 7] = [
            (&[7], 7),
            (&[7, 3], 3),
            (&[1, 9, 5], 5),
            (&[9, 9, 0], 9),
            (&[4, 3, 2, 1], 2),
            (&[5, 1, 4, 2, 3], 3),
            (&[9, 8, 7, 6, 5, 4, 3, 2, 1], 5),
        ];
        for (values, expected) in cases {
            assert_eq!(reached_by_majority(values.iter().copied(), 0), expected, "{values:?}");
        }
    }
}
