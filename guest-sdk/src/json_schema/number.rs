//! Numbers between bounds, digit by digit.
//!
//! In: bounds, and the digits so far. Out: whether some number in the bounds still begins
//! so, and the shortest way to one. A number is held as a magnitude scaled by a power of
//! ten, so that all is exact arithmetic on integers; exponents are never written.

/// Larger than any bound in use, with room for a factor of ten.
pub(super) const FAR: i128 = 1 << 100;

/// Which numbers are allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Numbers {
    /// Lowest and highest, in units of 10^-`fraction_digits_max`.
    pub(super) low: i128,
    pub(super) high: i128,
    /// Only multiples of it; 1 where there are fraction digits.
    pub(super) multiple_of: i128,
    /// 0 means integers.
    pub(super) fraction_digits_max: u32,
}

/// What has been written of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Digits {
    negative: bool,
    /// All digits so far, as one integer.
    digits: i128,
    whole: u32,
    /// Digits behind the point, once there is a point.
    fraction: Option<u32>,
}

impl Numbers {
    fn scale(&self) -> i128 {
        10_i128.pow(self.fraction_digits_max)
    }

    /// Allowed magnitudes of one sign. `-0` is never written.
    fn magnitudes(&self, negative: bool) -> (i128, i128) {
        if negative {
            ((-self.high).max(1), -self.low)
        } else {
            (self.low.max(0), self.high)
        }
    }

    /// The lowest multiple of `step` that is allowed and between `low` and `high`.
    fn lowest(&self, negative: bool, low: i128, high: i128, step: i128) -> Option<i128> {
        let (least, most) = self.magnitudes(negative);
        let (low, high) = (low.max(least), high.min(most));
        if low > high {
            return None;
        }
        let found = (low + step - 1).div_euclid(step) * step;
        (found <= high).then_some(found)
    }

    /// Whether any number is allowed.
    pub(super) fn any(&self) -> bool {
        self.alive(&Digits::default())
            || self.alive(&Digits {
                negative: true,
                ..Digits::default()
            })
    }

    fn alive(&self, state: &Digits) -> bool {
        self.end_of(state).is_some()
    }

    /// Whether what is written is an allowed number.
    pub(super) fn complete(&self, state: &Digits) -> bool {
        let written = match state.fraction {
            None => state.digits * self.scale(),
            Some(digits) => state.digits * 10_i128.pow(self.fraction_digits_max - digits),
        };
        state.whole > 0
            && state.fraction != Some(0)
            && self
                .lowest(state.negative, written, written, self.multiple_of)
                .is_some()
    }

    /// One more byte; `None` where no allowed number goes on so.
    pub(super) fn step(&self, state: &Digits, byte: u8) -> Option<Digits> {
        let mut next = *state;
        match (byte, state.fraction) {
            (b'-', None) if state.whole == 0 && !state.negative => next.negative = true,
            (b'.', None) if state.whole > 0 && self.fraction_digits_max > 0 => {
                next.fraction = Some(0);
            }
            (b'0'..=b'9', None) if state.whole == 0 || state.digits > 0 => next.whole += 1,
            (b'0'..=b'9', Some(digits)) if digits < self.fraction_digits_max => {
                next.fraction = Some(digits + 1);
            }
            _ => return None,
        }
        if byte.is_ascii_digit() {
            next.digits = state.digits * 10 + i128::from(byte - b'0');
        }
        (next.digits < FAR && self.alive(&next)).then_some(next)
    }

    /// The shortest rest that makes an allowed number; before the first digit, of any sign.
    pub(super) fn rest(&self, state: &Digits) -> Vec<u8> {
        let signs: &[bool] = if state.whole == 0 && !state.negative {
            &[false, true]
        } else {
            &[state.negative]
        };
        for negative in signs {
            let signed = Digits {
                negative: *negative,
                ..*state
            };
            if let Some((magnitude, fraction)) = self.end_of(&signed) {
                let written = usize::from(state.negative)
                    + state.whole as usize
                    + state.fraction.map_or(0, |digits| digits as usize + 1);
                return self.text(*negative, magnitude, fraction).split_off(written);
            }
        }
        Vec::new()
    }

    /// The number with the fewest digits that begins as written: its magnitude, and its
    /// digits behind the point.
    fn end_of(&self, state: &Digits) -> Option<(i128, u32)> {
        let most = self.fraction_digits_max;
        let unit = |fraction: u32| {
            if most == 0 {
                self.multiple_of
            } else {
                10_i128.pow(most - fraction)
            }
        };
        if let Some(digits) = state.fraction {
            let width = 10_i128.pow(most - digits);
            let low = state.digits * width;
            return (digits.max(1)..=most).find_map(|fraction| {
                let found = self.lowest(state.negative, low, low + width - 1, unit(fraction))?;
                Some((found, fraction))
            });
        }
        let mut best: Option<(u32, i128, u32)> = None;
        for (more, low, high) in self.whole_parts(state) {
            for fraction in 0..=most {
                let length = more + if fraction == 0 { 0 } else { fraction + 1 };
                if best.is_some_and(|(shortest, ..)| shortest <= length) {
                    break;
                }
                if let Some(found) = self.lowest(state.negative, low, high, unit(fraction)) {
                    best = Some((length, found, fraction));
                    break;
                }
            }
        }
        best.map(|(_, magnitude, fraction)| (magnitude, fraction))
    }

    /// For each number of digits that may follow before the point: the magnitudes reached.
    fn whole_parts(&self, state: &Digits) -> impl Iterator<Item = (u32, i128, i128)> {
        let scale = self.scale();
        let most = self.magnitudes(state.negative).1;
        let (digits, whole) = (state.digits, state.whole);
        (0_u32..32)
            .map_while(move |more| {
                let width = 10_i128.pow(more.min(30)) * scale;
                let (low, high) = match (whole, digits) {
                    (0, _) if more == 0 => return Some(None),
                    // One digit may be 0; more begin with another one.
                    (0, _) if more == 1 => (0, 10 * scale - 1),
                    (0, _) => (width / 10, width - 1),
                    (_, 0) if more > 0 => return None,
                    (_, digits) => {
                        let low = digits.checked_mul(width)?;
                        (low, low.checked_add(width - 1)?)
                    }
                };
                (low <= most).then_some(Some((more, low, high)))
            })
            .flatten()
    }

    fn text(&self, negative: bool, magnitude: i128, fraction: u32) -> Vec<u8> {
        let scale = self.scale();
        let mut text = format!("{}{}", if negative { "-" } else { "" }, magnitude / scale);
        if fraction > 0 {
            let digits = magnitude % scale / 10_i128.pow(self.fraction_digits_max - fraction);
            text.push_str(&format!(".{digits:0width$}", width = fraction as usize));
        }
        text.into_bytes()
    }
}

/// A number as written in a schema, times 10^`digits`, rounded towards the inside of a bound.
pub(super) fn scaled(number: &serde_json::Number, digits: u32, round_up: bool) -> i128 {
    let text = number.to_string();
    let (sign, text) = text
        .strip_prefix('-')
        .map_or((1, text.as_str()), |rest| (-1, rest));
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all: i128 = format!("{whole}{fraction}").parse().unwrap_or(FAR);
    let exponent: i64 = exponent.parse().unwrap_or(0);
    let shift = exponent - fraction.len() as i64 + i64::from(digits);
    let value = sign * all;
    match u32::try_from(shift.unsigned_abs().min(40)).unwrap_or(40) {
        _ if all == 0 => 0,
        power if shift >= 0 => {
            let factor = 10_i128.checked_pow(power).unwrap_or(FAR);
            value
                .checked_mul(factor)
                .unwrap_or(sign * FAR)
                .clamp(-FAR, FAR)
        }
        power => {
            let divisor = 10_i128.checked_pow(power).unwrap_or(i128::MAX);
            let floor = value.div_euclid(divisor);
            let exact = value.rem_euclid(divisor) == 0;
            floor + i128::from(round_up && !exact)
        }
    }
    .clamp(-FAR, FAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn integers(low: i128, high: i128, multiple_of: i128) -> Numbers {
        Numbers {
            low,
            high,
            multiple_of,
            fraction_digits_max: 0,
        }
    }

    fn read(numbers: &Numbers, text: &str) -> Option<(bool, String)> {
        let mut state = Digits::default();
        for byte in text.bytes() {
            state = numbers.step(&state, byte)?;
        }
        let rest = String::from_utf8(numbers.rest(&state)).unwrap();
        Some((numbers.complete(&state), format!("{text}{rest}")))
    }

    #[test]
    fn digits_go_on_only_where_a_number_is_left() {
        let numbers = integers(-5, 120, 1);
        for (text, expected) in [
            ("", Some((false, "0"))),
            ("1", Some((true, "1"))),
            ("12", Some((true, "12"))),
            ("13", Some((true, "13"))),
            ("130", None),
            ("121", None),
            ("0", Some((true, "0"))),
            ("00", None),
            ("-", Some((false, "-1"))),
            ("-0", None),
            ("-6", None),
            ("1.", None),
            ("1e", None),
        ] {
            let expected = expected.map(|(complete, text)| (complete, text.to_owned()));
            assert_eq!(read(&numbers, text), expected, "{text:?}");
        }
        assert_eq!(
            read(&integers(100, 120, 7), "1"),
            Some((false, "105".into()))
        );
        assert_eq!(
            read(&integers(100, 120, 7), "10"),
            Some((false, "105".into()))
        );
        assert_eq!(
            read(&integers(100, 120, 7), "11"),
            Some((false, "112".into()))
        );
        assert_eq!(read(&integers(-9, -3, 1), ""), Some((false, "-3".into())));
        assert!(!integers(101, 104, 7).any());
        assert!(!integers(3, 2, 1).any());
    }

    #[test]
    fn fractions_stay_between_their_bounds() {
        let numbers = Numbers {
            low: 1_250_000,
            high: 1_300_000,
            multiple_of: 1,
            fraction_digits_max: 6,
        };
        assert_eq!(read(&numbers, ""), Some((false, "1.3".into())));
        assert_eq!(read(&numbers, "1."), Some((false, "1.3".into())));
        assert_eq!(read(&numbers, "1.2"), Some((false, "1.25".into())));
        assert_eq!(read(&numbers, "1.24"), None);
        assert_eq!(read(&numbers, "1.3000"), Some((true, "1.3000".into())));
        assert_eq!(read(&numbers, "1.30001"), None);
        assert_eq!(read(&numbers, "1.2500000"), None);
        let small = Numbers {
            low: -1,
            high: -1,
            multiple_of: 1,
            fraction_digits_max: 6,
        };
        assert_eq!(read(&small, "-0"), Some((false, "-0.000001".into())));
    }

    #[test]
    fn bounds_are_rounded_inwards() {
        let number = |text: &str| serde_json::from_str::<serde_json::Number>(text).unwrap();
        assert_eq!(scaled(&number("0.1"), 6, true), 100_000);
        assert_eq!(scaled(&number("-1.5"), 0, true), -1);
        assert_eq!(scaled(&number("-1.5"), 0, false), -2);
        assert_eq!(scaled(&number("1e-9"), 6, true), 1);
        assert_eq!(scaled(&number("1e-9"), 6, false), 0);
        assert_eq!(scaled(&number("1e300"), 6, false), FAR);
        assert_eq!(scaled(&number("-1e300"), 6, false), -FAR);
        assert_eq!(
            scaled(&number("9007199254740993"), 0, true),
            9_007_199_254_740_993
        );
    }
}
