//! Figures with their names, as text and as JSON.

use std::{fmt, time::Duration};

use serde_json::{Map, Value, json};

use super::micros;

/// Where most of many times lie, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

impl Spread {
    /// Of these times, which are sorted for it; zeros of none.
    pub(crate) fn of(times: &mut [Duration]) -> Self {
        times.sort_unstable();
        let at = |percent: usize| {
            let index = times.len().saturating_sub(1) * percent / 100;
            times.get(index).copied().map_or(0.0, micros)
        };
        Self {
            median: at(50),
            p90: at(90),
            p99: at(99),
            max: at(100),
        }
    }
}

/// All that was measured, in order.
#[derive(Debug, Default)]
pub(crate) struct Figures(Vec<(String, Value)>);

impl Figures {
    pub(crate) fn add(&mut self, name: &str, value: Value) {
        self.0.push((name.to_owned(), value));
    }

    pub(crate) fn spread(&mut self, name: &str, spread: &Spread) {
        let value = json!({
            "p50": spread.median, "p90": spread.p90, "p99": spread.p99, "max": spread.max,
        });
        self.add(name, value);
    }

    pub(crate) fn to_json(&self) -> Value {
        Value::Object(Map::from_iter(self.0.iter().cloned()))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.0 {
            let shown = match value {
                Value::Object(parts) => {
                    let parts = parts.iter().map(|(name, value)| (name.as_str(), value));
                    let parts: Vec<_> = parts
                        .map(|(name, value)| format!("{name} {}", number(value)))
                        .collect();
                    parts.join(", ")
                }
                value => number(value),
            };
            writeln!(f, "{name:<52} {shown}")?;
        }
        Ok(())
    }
}

fn number(value: &Value) -> String {
    match value.as_f64() {
        Some(number) if value.is_f64() => format!("{number:.3}"),
        _ => value.to_string(),
    }
}
