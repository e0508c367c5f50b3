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

    pub(crate) fn json(&self) -> serde_json::Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { median, min, max } = self;
        write!(f, "{median:.1} ({min:.1} to {max:.1})")
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
}
