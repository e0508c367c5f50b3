//! `--dry-run`: which limits a job needs.
//!
//! In: a job's own limits; a run under generous ones. Out: a `[limits]` table with what the
//! run used and room for other inputs.

use tussah_manifest::{LimitField, Limits};
use tussah_runtime::SignedRun;

use crate::{
    exit_code::Exit,
    failure::Failure,
    road,
    ui::{self, Ui},
};

/// Room for other inputs than the one that was measured.
const MARGIN_PERCENT: u64 = 25;

/// The job's limits with room for whatever it does. What decides how large a session gets,
/// and how long the run may take, stays.
pub(super) fn generous(limits: &Limits) -> Limits {
    let mut generous = *limits;
    for field in &Limits::FIELDS {
        match field.name {
            "model_memory_bytes_max" | "wall_ms_max" => {}
            "memory_bytes_max" => {
                *(field.get_mut)(&mut generous) = field.max.min(road::MEMORY_BYTES_MAX);
            }
            // Their storage is allocated up front, or kept: stay with the developer's choice.
            "table_elements_max" | "log_bytes_max" => {}
            _ => *(field.get_mut)(&mut generous) = field.max,
        }
    }
    generous
}

/// Prints the table.
///
/// # Errors
/// A failure if the run did not end by itself, or standard output is closed.
pub(super) fn show(
    ui: &Ui,
    run: &SignedRun,
    input_bytes: usize,
    limits: &Limits,
) -> Result<Exit, Failure> {
    if let Some(error) = &run.outcome.error {
        let exit = road::exit_of(&run.receipt.consensus.exit);
        return Err(Failure::new(exit, error.clone())
            .context("the job did not come to its end, so that its limits are not known"));
    }
    let (mut table, mut measured) = (serde_json::Map::new(), serde_json::Map::new());
    let mut lines = vec![
        format!(
            "# Measured with an input of {input_bytes} bytes: what it used and {MARGIN_PERCENT} % more, rounded up."
        ),
        "[limits]".to_owned(),
    ];
    for field in &Limits::FIELDS {
        let used = used(run, field, input_bytes);
        let value = match used {
            Some(used) => with_room(used.max(least(field))).clamp(field.min, field.max),
            None => (field.get)(limits),
        };
        let remark = match used {
            Some(used) => format!("used {}", ui::count(used)),
            None => "as it was: it depends on the machine".to_owned(),
        };
        lines.push(format!("{} = {value}  # {remark}", field.name));
        table.insert(field.name.to_owned(), value.into());
        measured.extend(used.map(|used| (field.name.to_owned(), used.into())));
    }
    if ui.json() {
        ui.document(&serde_json::json!({
            "limits": table,
            "used": measured,
            "margin_percent": MARGIN_PERCENT,
            "input_bytes": input_bytes,
        }))?;
    } else {
        ui.line(&lines.join("\n"))?;
        ui.note("put this into the job's tussah.toml; try your longest input first");
    }
    Ok(Exit::DONE)
}

fn used(run: &SignedRun, field: &LimitField, input_bytes: usize) -> Option<u64> {
    let used = &run.outcome.used;
    match field.name {
        "fuel_max" => Some(used.fuel),
        "memory_bytes_max" => Some(used.memory_bytes),
        "table_elements_max" => Some(used.table_elements),
        "model_memory_bytes_max" => Some(used.model_memory_bytes),
        "input_bytes_max" => u64::try_from(input_bytes).ok(),
        "output_bytes_max" => Some(used.output_bytes),
        "log_bytes_max" => u64::try_from(run.outcome.log.len()).ok(),
        "inference_units_max" => Some(used.inference_units),
        "host_calls_max" => Some(used.host_calls),
        _ => None,
    }
}

/// What a job gets however little it used: one that logs nothing on this input may log on
/// another, and a log over its limit is cut without a word.
fn least(field: &LimitField) -> u64 {
    match field.name {
        "log_bytes_max" => 4096,
        _ => 0,
    }
}

/// That much more, rounded up to two digits.
fn with_room(used: u64) -> u64 {
    let wanted =
        used.saturating_add(used / 100 * MARGIN_PERCENT + used % 100 * MARGIN_PERCENT / 100);
    let mut unit = 1u64;
    while wanted / unit >= 100 {
        unit = unit.saturating_mul(10);
    }
    wanted.div_ceil(unit).saturating_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_a_quarter_and_round() {
        for (used, expected) in [(0, 0), (1, 1), (80, 100), (81, 110), (1_234_567, 1_600_000)] {
            assert_eq!(with_room(used), expected, "{used}");
        }
        assert_eq!(with_room(u64::MAX), u64::MAX);
    }

    #[test]
    fn generous_limits_are_good_limits() {
        let limits = generous(&Limits::DEFAULT);
        limits.check().unwrap();
        assert!(limits.fuel_max > Limits::DEFAULT.fuel_max);
        assert_eq!(limits.wall_ms_max, Limits::DEFAULT.wall_ms_max);
    }
}
