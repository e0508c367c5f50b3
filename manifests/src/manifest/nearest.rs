//! Which of the known words somebody meant who wrote another.

/// The known word that somebody who wrote `word` meant, if one is near enough.
pub(super) fn nearest(word: &str, known: &[&'static str]) -> Option<&'static str> {
    let lower = word.to_lowercase().replace('-', "_");
    // A long word is nobody's typo, and the distance takes the product of the lengths.
    if lower.len() > 64 {
        return None;
    }
    let ends = |name: &str| {
        let parts = (name.split('_').next(), name.rsplit('_').next());
        (
            parts.0.unwrap_or_default().to_owned(),
            parts.1.unwrap_or_default().to_owned(),
        )
    };
    known
        .iter()
        .map(|name| {
            // `memory_mb_max` means `memory_bytes_max`, the same thing in another unit; `fuel`
            // means `fuel_max`.
            let same_ends = name.contains('_') && ends(name) == ends(&lower);
            let start = name
                .strip_prefix(lower.as_str())
                .is_some_and(|rest| rest.starts_with('_'));
            let distance = if same_ends || start {
                1
            } else {
                distance(&lower, name)
            };
            (distance, *name)
        })
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min()
        .map(|(_, name)| name)
}

/// How many characters to insert, remove or replace to get from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}
