//! `tussah bench`: figures of this machine, and prices that follow from them.

use crate::fixture::Sandbox;

fn nanograms(value: &serde_json::Value) -> u64 {
    value.as_str().unwrap().parse().unwrap()
}

#[test]
fn figures_are_measured_and_prices_follow_from_what_an_hour_is_to_bring() {
    let sandbox = Sandbox::new();
    let measured = sandbox
        .run(&["bench", "--json", "--per-hour", "3.6GRAM"])
        .expect(0)
        .json();
    let rate = |name: &str| measured[name].as_f64().unwrap();
    for name in [
        "disk_syncs_per_second",
        "memory_bytes_per_second",
        "null_jobs_per_second",
        "fuel_per_second",
    ] {
        assert!(rate(name) > 0.0, "{name}: {measured}");
    }
    assert_eq!(measured["models"].as_array().unwrap().len(), 0);
    let prices = &measured["prices"];
    assert_eq!(nanograms(&prices["per_hour_nanograms"]), 3_600_000_000);
    assert!(prices["nanograms_per_trillion_inference_units"].is_null());
    // A second brings 1,000,000 nanograms, whatever fills it; the price is rounded up.
    let base = nanograms(&prices["base_nanograms"]);
    let of_a_second = f64::from(u32::try_from(base).unwrap()) * rate("null_jobs_per_second");
    let most = 1e6 + rate("null_jobs_per_second") * 1.01;
    assert!((0.99e6..=most).contains(&of_a_second), "{measured}");

    // Power is paid on top, and needs both of its numbers.
    let more = ["--electricity", "1GRAM", "--watts", "400"];
    let with_power = [&["bench", "--json", "--per-hour", "3.6"], &more[..]].concat();
    let measured = sandbox.run(&with_power).expect(0).json();
    let total = &measured["prices"]["per_hour_nanograms"];
    assert_eq!(nanograms(total), 4_000_000_000);
    for wrong in [
        &["bench", "--per-hour", "1", "--watts", "400"][..],
        &["bench", "--electricity", "1", "--watts", "400"],
        &["bench", "--per-hour", "much"],
        &["bench", "--model", "no-such-model"],
    ] {
        sandbox.run(wrong).expect(2);
    }
}

#[test]
fn a_model_is_measured_in_tokens_and_gives_inference_its_price() {
    let sandbox = Sandbox::new();
    sandbox.run(&["model", "random", "tiny"]).expect(0);
    let measured = sandbox
        .run(&["bench", "--device", "cpu", "--per-hour", "1", "--json"])
        .expect(0)
        .json();
    let model = &measured["models"][0];
    assert_eq!(model["name"], "tiny");
    for rate in [
        "prompt_tokens_per_second",
        "generated_tokens_per_second",
        "inference_units_per_second",
    ] {
        assert!(model[rate].as_f64().unwrap() > 0.0, "{measured}");
    }
    let price = &measured["prices"]["nanograms_per_trillion_inference_units"];
    assert!(nanograms(price) > 0, "{measured}");
    // For people, it ends with what goes into serve.toml.
    let shown = sandbox
        .run(&["bench", "--device", "cpu", "--per-hour", "1"])
        .expect(0);
    let (_, toml) = shown.stdout.split_once("[prices]").unwrap();
    assert!(toml.contains("nanograms_per_trillion_inference_units = "));
}
