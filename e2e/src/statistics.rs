//! Medians and percentiles of small samples.

/// The `per_cent`th percentile by nearest rank; `None` of nothing.
#[must_use]
pub fn percentile(values: &[f64], per_cent: usize) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * per_cent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// The middle value; `None` of nothing.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    percentile(values, 50)
}

/// Milliseconds as a float, for figures.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    reason = "milliseconds since 1970 fit into 52 bits"
)]
pub fn float_ms(milliseconds: i64) -> f64 {
    milliseconds as f64
}

/// A count as a float, for ratios.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    reason = "bytes and counts of a test fit into 52 bits"
)]
pub fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let check =
            |values: &[f64], per_cent, expect| assert_eq!(percentile(values, per_cent), expect);
        check(&[], 50, None);
        check(&[7.0], 95, Some(7.0));
        check(&[3.0, 1.0, 2.0], 50, Some(2.0));
        check(&[4.0, 1.0, 3.0, 2.0], 50, Some(2.0));
        check(&[4.0, 1.0, 3.0, 2.0], 100, Some(4.0));
        check(&[4.0, 1.0, 3.0, 2.0], 0, Some(1.0));
    }
}
