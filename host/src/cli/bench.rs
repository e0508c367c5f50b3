//! `tussah bench`: what this machine does in a second, and what to ask for it.

mod measure;
mod suggest;

use clap::Args;
use serde::Serialize;
use tussah_manifest::{ModelFormat, ModelName, Nanograms};

use self::{
    measure::{Sandbox, Tokens},
    suggest::{Hour, Rate, Sheet},
};
use super::model::model_name;
use crate::{
    blobs::Blobs,
    device::{Caches, DeviceArgument, Devices, Need},
    exit_code::Exit,
    failure::Failure,
    grams::{self, grams},
    home::Home,
    interrupt::Interrupt,
    models::{ModelRecord, Models},
    ui::Ui,
};

const EXAMPLES: &str = "\
Examples:
  tussah bench
  tussah bench --model smollm2 --per-hour 0.5GRAM
  tussah bench --per-hour 0.5GRAM --electricity 0.1GRAM --watts 350
  tussah bench --per-hour 0.5GRAM --json | jq .prices

It takes some seconds a model. Measure while nothing else runs. With --per-hour it says at
which prices a machine that works all the time earns that much; docs/serve.md has the formula.";

/// Measure this machine, and suggest prices for `tussah serve`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// A model of the store; again for more. All of them if left out.
    #[arg(long, value_name = "NAME", value_parser = model_name)]
    model: Vec<ModelName>,
    /// Where inference runs: auto (a GPU, else the CPU), cpu, gpu, or a part of an adapter's name.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceArgument,
    /// CPU threads; 0 is one a CPU.
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// What an hour of this machine is to bring, after its power is paid.
    #[arg(long, value_name = "GRAM", value_parser = amount)]
    per_hour: Option<Nanograms>,
    /// What a kWh costs.
    #[arg(long, value_name = "GRAM", value_parser = amount, requires_all = ["watts", "per_hour"])]
    electricity: Option<Nanograms>,
    /// What this machine draws while it works.
    #[arg(long, value_name = "W", requires = "electricity")]
    watts: Option<u32>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// For clap: `0.5GRAM`, or `0.5`.
fn amount(text: &str) -> Result<Nanograms, String> {
    grams::parse(text.trim_end_matches("GRAM").trim_end())
}

#[derive(Serialize)]
struct View {
    threads: usize,
    disk_syncs_per_second: f64,
    memory_bytes_per_second: f64,
    null_jobs_per_second: f64,
    /// Of one core.
    fuel_per_second: f64,
    models: Vec<ModelView>,
    prices: Option<PricesView>,
}

#[derive(Serialize)]
struct ModelView {
    name: String,
    engine: String,
    prompt_tokens_per_second: f64,
    generated_tokens_per_second: f64,
    inference_units_per_second: f64,
}

/// As `serve.toml` has them; amounts are text, since they may be larger than JSON's numbers.
#[derive(Serialize)]
struct PricesView {
    per_hour_nanograms: String,
    base_nanograms: String,
    nanograms_per_billion_fuel: String,
    nanograms_per_trillion_inference_units: Option<String>,
}

impl Arguments {
    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        let interrupt = Interrupt::install()?;
        let home = Home::open()?;
        let blobs = Blobs::open(&home)?;
        let chosen = self.chosen(&Models::open(&home)?)?;
        let threads = match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let step = |what: &'static str| {
            if interrupt.requested() {
                return Err(Failure::interrupted());
            }
            Ok(ui.spinner(what))
        };
        let measuring = step("syncing to the disk")?;
        let syncs = measure::syncs(&home, &interrupt)?;
        drop(measuring);
        let measuring = step("reading memory")?;
        let memory = measure::memory(threads, &interrupt)?;
        drop(measuring);
        let measuring = step("running jobs that do nothing")?;
        let sandbox = Sandbox::new(&blobs)?;
        let jobs = sandbox.jobs(&interrupt)?;
        drop(measuring);
        let measuring = step("running wasm")?;
        let fuel = sandbox.fuel(&interrupt)?;
        drop(measuring);

        let placement = match chosen.is_empty() {
            true => None,
            false => {
                let devices = Devices::new(self.device.clone(), Caches::Home(home));
                Some(devices.place(Need::anywhere(true), ui)?)
            }
        };
        let mut models = Vec::new();
        for (name, record) in &chosen {
            if interrupt.requested() {
                return Err(Failure::interrupted());
            }
            let Some(placement) = &placement else { break };
            let tokens = measure::tokens(&blobs, record, placement, threads, ui)
                .map_err(|failure| failure.context(format!("cannot measure the model `{name}`")))?;
            models.push((name.to_string(), tokens));
        }
        let prices = self.per_hour.map(|wished| {
            let hour = Hour {
                wished,
                electricity: self.electricity.unwrap_or(Nanograms::ZERO),
                watts: self.watts.unwrap_or_default(),
            };
            (hour, sheet(hour, jobs, fuel, threads, &models))
        });
        let view = View {
            threads,
            disk_syncs_per_second: syncs.per_second(),
            memory_bytes_per_second: memory.per_second(),
            null_jobs_per_second: jobs.per_second(),
            fuel_per_second: fuel.per_second(),
            models: models.iter().map(model_view).collect(),
            prices: prices.map(|(hour, sheet)| prices_view(hour, sheet)),
        };
        match ui.json() {
            true => ui.document(&view)?,
            false => show(&view, prices, ui)?,
        }
        Ok(Exit::DONE)
    }

    /// The models to measure: decoders, whose tokens are counted.
    fn chosen(&self, models: &Models) -> Result<Vec<(ModelName, ModelRecord)>, Failure> {
        let is_text = |record: &ModelRecord| record.model_format() == Some(ModelFormat::Gguf);
        if self.model.is_empty() {
            let mut all = models.list()?;
            all.retain(|(_, record)| is_text(record));
            return Ok(all);
        }
        let mut chosen = Vec::new();
        for name in &self.model {
            let record = models.get(name)?;
            if !is_text(&record) {
                let message = format!("`{name}` generates no tokens: it is not a GGUF model");
                return Err(Failure::usage(message).help("leave it out"));
            }
            chosen.push((name.clone(), record));
        }
        Ok(chosen)
    }
}

/// Fuel is that of all cores together; of the models the one that takes longest for a unit counts.
fn sheet(hour: Hour, jobs: Rate, fuel: Rate, threads: usize, models: &[(String, Tokens)]) -> Sheet {
    let threads = u64::try_from(threads).unwrap_or(u64::MAX);
    let all_cores = Rate {
        count: fuel.count.saturating_mul(threads),
        ..fuel
    };
    let units = models.iter().map(|(_, tokens)| tokens.units);
    let slowest = units.min_by(|a, b| a.per_second().total_cmp(&b.per_second()));
    suggest::prices(hour, jobs, all_cores, slowest)
}

fn model_view((name, tokens): &(String, Tokens)) -> ModelView {
    ModelView {
        name: name.clone(),
        engine: tokens.engine.clone(),
        prompt_tokens_per_second: tokens.prompt.per_second(),
        generated_tokens_per_second: tokens.generated.per_second(),
        inference_units_per_second: tokens.units.per_second(),
    }
}

fn prices_view(hour: Hour, sheet: Sheet) -> PricesView {
    let text = |amount: Nanograms| amount.get().to_string();
    PricesView {
        per_hour_nanograms: text(hour.total()),
        base_nanograms: text(sheet.base),
        nanograms_per_billion_fuel: text(sheet.fuel),
        nanograms_per_trillion_inference_units: sheet.inference.map(text),
    }
}

fn show(view: &View, prices: Option<(Hour, Sheet)>, ui: &Ui) -> Result<(), Failure> {
    let whole = |rate: f64| format!("{rate:.0}");
    for (what, found) in [
        ("disk", whole(view.disk_syncs_per_second) + " syncs/s"),
        (
            "memory",
            format!("{:.1} GB/s", view.memory_bytes_per_second / 1e9),
        ),
        ("null jobs", whole(view.null_jobs_per_second) + "/s"),
        (
            "wasm",
            format!("{:.2} · 10^9 fuel/s a core", view.fuel_per_second / 1e9),
        ),
    ] {
        ui.line(&format!("{what:<12}{found}"))?;
    }
    for model in &view.models {
        ui.line(&format!(
            "{:<12}prompt {:.0} tokens/s, generated {:.1} tokens/s, {:.3} · 10^12 units/s; {}",
            model.name,
            model.prompt_tokens_per_second,
            model.generated_tokens_per_second,
            model.inference_units_per_second / 1e12,
            model.engine
        ))?;
    }
    if view.models.is_empty() {
        ui.note("there is no GGUF model to measure; `tussah model add` brings one");
    }
    let Some((hour, sheet)) = prices else {
        ui.note("name what an hour is to bring for prices: `--per-hour 0.5GRAM`");
        return Ok(());
    };
    ui.line(&format!(
        "\n# serve.toml: {} an hour, of a machine that works all the time",
        grams(hour.total())
    ))?;
    ui.line("[prices]")?;
    let count = |amount: Nanograms| amount.get();
    ui.line(&format!("base_nanograms = {}", count(sheet.base)))?;
    ui.line(&format!(
        "nanograms_per_billion_fuel = {}",
        count(sheet.fuel)
    ))?;
    match sheet.inference {
        Some(price) => ui.line(&format!(
            "nanograms_per_trillion_inference_units = {}",
            count(price)
        )),
        None => {
            ui.note("without a model there is no price of inference");
            Ok(())
        }
    }
}
