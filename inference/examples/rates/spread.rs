//! What several runs came to.
//! In: one figure a run. Out: their median, the least and the most.

use serde_json::json;

/// The median, the least and the most.
#[derive(Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    /// `None` of no figures.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (low, high) = (values.len().checked_sub(1)? / 2, values.len() / 2);
        Some(Self {
            median: f64::midpoint(values[low], values[high]),
            min: values[0],
            max: values[values.len() - 1],
        })
    }

    /// Of what was measured in the same rounds: each round's ratio by itself, so that what the machine did in
    /// one meets both.
    pub(crate) fn of_ratios(ours: &[f64], theirs: &[f64]) -> Option<Self> {
        let ratio = |(ours, theirs): (&f64, &f64)| ours / theirs;
        Self::of(ours.iter().zip(theirs).map(ratio).collect())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { median, min, max } = self;
        let digits = f.precision().unwrap_or(1);
        write!(f, "{median:.digits$} ({min:.digits$} to {max:.digits$})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two() {
        let table: [(&[f64], &str); 3] = [
            (&[3.0], "3.0 (3.0 to 3.0)"),
            (&[9.0, 1.0, 2.0], "2.0 (1.0 to 9.0)"),
            (&[4.0, 1.0, 2.0, 9.0], "3.0 (1.0 to 9.0)"),
        ];
        for (values, wanted) in table {
            assert_eq!(Spread::of(values.to_vec()).unwrap().to_string(), wanted);
        }
        assert!(Spread::of(Vec::new()).is_none());
    }

    #[test]
    fn ratios_are_of_rounds_not_of_medians() {
        // The second round met a busy machine, and both were half as fast.
        let ratio = Spread::of_ratios(&[10.0, 5.0, 12.0], &[5.0, 2.5, 5.0]).unwrap();
        assert_eq!(format!("{ratio:.2}"), "2.00 (2.00 to 2.40)");
        assert!(Spread::of_ratios(&[1.0], &[]).is_none());
    }
}
