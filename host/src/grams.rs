//! Amounts of money as people write them: `1.25 GRAM`.
//!
//! In: nanograms, or text. Out: text, or nanograms. No float in between, and nothing is rounded:
//! a tenth digit after the point is an error.

use tussah_manifest::Nanograms;

const NANOGRAMS: u64 = 1_000_000_000;

/// The amount with its unit, without zeros at its end.
pub(crate) fn grams(amount: Nanograms) -> String {
    let (whole, rest) = (amount.get() / NANOGRAMS, amount.get() % NANOGRAMS);
    if rest == 0 {
        return format!("{whole} GRAM");
    }
    let rest = format!("{rest:09}");
    format!("{whole}.{} GRAM", rest.trim_end_matches('0'))
}

/// For clap: grams as text, with at most nine digits after the point.
pub(crate) fn parse(text: &str) -> Result<Nanograms, String> {
    let wrong = || format!("`{text}` is no amount in GRAM, such as 2 or 1.25");
    let (whole, rest) = text.split_once('.').unwrap_or((text, "0"));
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !is_digits(whole) || !is_digits(rest) {
        return Err(wrong());
    }
    if rest.len() > 9 {
        return Err(format!(
            "`{text}` has more than nine digits after the point"
        ));
    }
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let rest: u64 = format!("{rest:0<9}").parse().map_err(|_| wrong())?;
    let nanograms = whole
        .checked_mul(NANOGRAMS)
        .and_then(|all| all.checked_add(rest));
    let nanograms = nanograms.and_then(Nanograms::new);
    nanograms.ok_or_else(|| format!("`{text}` is more than there is"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_and_read_the_same() {
        for (nanograms, text) in [
            (0, "0 GRAM"),
            (1, "0.000000001 GRAM"),
            (1_250_000_000, "1.25 GRAM"),
            (2_000_000_000, "2 GRAM"),
            (999_999_999, "0.999999999 GRAM"),
            (5_000_000_000_000_000_000, "5000000000 GRAM"),
        ] {
            let amount = Nanograms::new(nanograms).unwrap();
            assert_eq!(grams(amount), text);
            assert_eq!(parse(text.trim_end_matches(" GRAM")), Ok(amount));
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for (text, words) in [
            ("", "is no amount"),
            (".5", "is no amount"),
            ("5.", "is no amount"),
            ("-1", "is no amount"),
            ("+1", "is no amount"),
            ("1e9", "is no amount"),
            ("1,5", "is no amount"),
            ("0.0000000001", "more than nine digits"),
            ("5000000001", "more than there is"),
            ("99999999999999999999", "is no amount"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
