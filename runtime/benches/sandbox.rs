//! What the sandbox costs over bare wasmtime, in interleaved rounds.
//!
//! In: `--json` for machines. Out: the null job by bare wasmtime and by the hot sandbox
//! (verified and compiled before, async, fuel on, no receipt), both on one engine with the
//! same settings; then the whole road with a signed receipt. Medians of rounds, and the
//! ratio pair by pair.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[path = "../tests/it/fixture.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod fixture;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tussah_runtime::{NoEvents, Runtime, run_job, verify};
use wasmtime::{
    Store,
    component::{Component, ComponentType, Lift, Linker},
};

const ROUNDS: usize = 41;
const CALLS: u32 = 2000;
const ROADS: u32 = 200;
const NULL: &str = "(func $run (param i32 i32) (result i32) (i32.const 0))";

/// What a job returns where it fails; the null job never does.
#[derive(Debug, ComponentType, Lift)]
#[component(record)]
#[expect(dead_code, reason = "it is only lifted")]
struct JobError {
    code: u32,
    message: String,
}

/// Minimum, median and maximum.
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self {
            min: values[0],
            median: values[values.len() / 2],
            max: values[values.len() - 1],
        }
    }

    fn json(&self) -> String {
        format!(
            r#"{{"min":{:.3},"median":{:.3},"max":{:.3}}}"#,
            self.min, self.median, self.max
        )
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{:8.3} {:8.3} {:8.3}",
            self.min, self.median, self.max
        )
    }
}

fn main() {
    let json = std::env::args().any(|argument| argument == "--json");
    let runtime = fixture::runtime();
    let (bare, hot, road) = fixture::block_on(measure(&runtime));
    let ratio = Spread::of(
        hot.iter()
            .zip(&bare)
            .map(|(hot, bare)| hot / bare)
            .collect(),
    );
    let [bare, hot, road] = [bare, hot, road].map(Spread::of);
    if json {
        println!(
            r#"{{"unit":"microseconds","bare":{},"sandbox":{},"road":{},"ratio":{}}}"#,
            bare.json(),
            hot.json(),
            road.json(),
            ratio.json()
        );
        return;
    }
    println!("null job, {ROUNDS} interleaved rounds, microseconds a job    min   median      max");
    println!("bare wasmtime, same engine and settings     {bare}");
    println!("sandbox, hot, without receipt               {hot}");
    println!("whole road: verify, run, sign a receipt     {road}");
    println!("sandbox / bare, round by round              {ratio}");
}

async fn measure(runtime: &Runtime) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let module = fixture::component(NULL);
    let component = Component::from_binary(runtime.engine(), &module).expect("it compiles");
    let mut linker = Linker::<()>::new(runtime.engine());
    linker
        .define_unknown_imports_as_traps(&component)
        .expect("its imports are known");
    let pre = linker.instantiate_pre(&component).expect("it links");

    let run = fixture::run_with(Arc::new(NoEvents));
    let submit = || fixture::submit(module.clone(), fixture::LIMITS, b"");
    let verified = verify(submit(), runtime).expect("it is good");
    let job = runtime
        .prepare(verified, &run)
        .await
        .expect("it can be run");
    let key = fixture::key(2);

    let (mut bare, mut hot, mut road) = (vec![], vec![], vec![]);
    for round in 0..=ROUNDS {
        let started = Instant::now();
        for _ in 0..CALLS {
            let mut store = Store::new(runtime.engine(), ());
            store
                .set_fuel(fixture::LIMITS.fuel_max)
                .expect("the engine has fuel");
            store
                .fuel_async_yield_interval(Some(20_000))
                .expect("the engine has fuel");
            let instance = pre.instantiate_async(&mut store).await.expect("it starts");
            let run = instance
                .get_typed_func::<(&[u8],), (Result<(), JobError>,)>(&mut store, "run")
                .expect("it is a job");
            run.call_async(&mut store, (b"",))
                .await
                .expect("it returns")
                .0
                .expect("it is done");
        }
        let bare_took = started.elapsed();

        let started = Instant::now();
        for _ in 0..CALLS {
            let run = fixture::run_with(Arc::clone(&run.events));
            let outcome = job.run(runtime, run).await;
            assert_eq!(outcome.exit, tussah_manifest::ExitStatus::Done);
        }
        let hot_took = started.elapsed();

        let submitted: Vec<_> = (0..ROADS).map(|_| submit()).collect();
        let started = Instant::now();
        for job in submitted {
            let run = fixture::run_with(Arc::clone(&run.events));
            run_job(runtime, job, run, &key)
                .await
                .expect("it has a receipt");
        }
        let road_took = started.elapsed();
        if round > 0 {
            // The first round warms caches up.
            bare.push(micros(bare_took, CALLS));
            hot.push(micros(hot_took, CALLS));
            road.push(micros(road_took, ROADS));
        }
    }
    (bare, hot, road)
}

fn micros(took: Duration, calls: u32) -> f64 {
    took.as_secs_f64() * 1e6 / f64::from(calls)
}
