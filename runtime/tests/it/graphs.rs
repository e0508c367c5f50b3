//! Graphs of tensors: their inputs, their limits, and what a receipt says of them.
//!
//! Most tests have a graph that answers by script; with the feature `onnx` the last one has a
//! real model in the library that `TUSSAH_TEST_ONNXRUNTIME` names.

use std::sync::Arc;

use tussah_inference::{
    CancelToken,
    graph::{ElementType, GraphError, GraphTensor, NamedTensors, Port, TensorGraph},
};
use tussah_manifest::{Abi, DeterminismRequest, Digest, Limits, ModelFormat, ModelName, ModelRef};
use tussah_runtime::{
    Events, LoadedModel, ModelSource, ModelSourceError, NoEvents, Run, SignedRun, run_job,
};

use crate::fixture::{self, LIMITS};

/// `x` is FP32 [2, 3]: 1, 0, 0 and 1, 1, 1; its sizes are at 200, its values at 208.
const TENSOR: &str = r#"
    (data (i32.const 200) "\02\00\00\00\03\00\00\00")
    (data (i32.const 208) "\00\00\80\3f\00\00\00\00\00\00\00\00\00\00\80\3f\00\00\80\3f\00\00\80\3f")
    (data (i32.const 232) "\c8\00\00\00\02\00\00\00\01\00\00\00\d0\00\00\00\18\00\00\00")"#;
/// Loads the model and opens a context, both of handle 0.
const OPEN: &str = "(drop (call $nn-load (i32.const 102) (i32.const 4) (i32.const 40)))
     (drop (call $nn-context (i32.load (i32.const 40)) (i32.const 44)))";
const INPUT: &str = "(drop (call $nn-input (i32.const 0) (i32.const 0) (i32.const 232)))";
const COMPUTE: &str = "(call $nn-compute (i32.const 0))";
/// Prints output 0.
const PRINT: &str =
    "(drop (call $nn-output (i32.const 0) (i32.const 0) (i32.const 1024) (i32.const 64) (i32.const 40)))
     (call $print (i32.const 1024) (i32.load (i32.const 40)))";

/// Answers by script; has the ports and weights of a layer from 3 to 2.
#[derive(Debug)]
struct Scripted {
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    answer: Result<NamedTensors, GraphError>,
}

impl Scripted {
    fn new(answer: Result<NamedTensors, GraphError>) -> Self {
        let port = |name: &str, columns| Port {
            name: name.into(),
            element: ElementType::Fp32,
            dimensions: vec![None, Some(columns)],
        };
        Self {
            inputs: vec![port("x", 3)],
            outputs: vec![port("y", 2)],
            answer,
        }
    }
}

impl TensorGraph for Scripted {
    fn engine(&self) -> &str {
        "scripted 1 cpu, 1 threads"
    }

    fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    fn parameters(&self) -> u64 {
        8
    }

    fn compute(
        &self,
        inputs: NamedTensors,
        _: u64,
        _: &CancelToken,
    ) -> Result<NamedTensors, GraphError> {
        assert_eq!(inputs[0].1.data.len(), 24, "the inputs were checked");
        self.answer.clone()
    }
}

/// A host with one graph.
struct OneGraph(Arc<dyn TensorGraph>, String);

impl ModelSource for OneGraph {
    fn check(&self, _: &ModelRef) -> Result<(), ModelSourceError> {
        Ok(())
    }

    fn threads(&self) -> u32 {
        1
    }

    fn graph_arithmetic(&self) -> Option<String> {
        Some(self.1.clone())
    }

    fn load(&self, _: &ModelRef, _: &dyn Events) -> Result<LoadedModel, ModelSourceError> {
        Ok(LoadedModel::Graph(Arc::clone(&self.0)))
    }
}

/// What `y` is for `x` in a layer of weights 1 to 6 and the bias 0.5, -0.5.
fn outputs() -> NamedTensors {
    let values = [1.5, 1.5, 9.5, 11.5_f32];
    let tensor = GraphTensor {
        dimensions: vec![2, 2],
        element: ElementType::Fp32,
        data: values.into_iter().flat_map(f32::to_le_bytes).collect(),
    };
    vec![("y".into(), tensor)]
}

/// Runs a command whose model `tiny` is a graph.
fn run(main: &str, limits: Limits, source: OneGraph) -> SignedRun {
    let guest = format!("{TENSOR} (func $main (result i32) {main})");
    let text = include_str!("command.wat").replace(";; GUEST", &guest);
    let module = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}"));
    let mut job = fixture::submit_as(Abi::Preview1, module, limits, b"");
    let model = ModelRef {
        digest: Digest::of(b"a graph"),
        format: ModelFormat::Onnx,
    };
    let name = ModelName::new("tiny").expect("a name");
    job.manifest.job.models.insert(name, model);
    job.manifest.job.determinism = DeterminismRequest::Tolerant;
    job.request = fixture::request(&job.manifest, &job.input);
    let run = Run {
        models: Arc::new(source),
        ..fixture::run_with(Arc::new(NoEvents))
    };
    fixture::block_on(run_job(&fixture::runtime(), job, run, &fixture::key(2))).expect("it runs")
}

fn scripted(answer: Result<NamedTensors, GraphError>) -> OneGraph {
    OneGraph(Arc::new(Scripted::new(answer)), "scripted 1".into())
}

#[test]
fn a_graph_is_computed_and_its_receipt_is_tolerant() {
    let main = format!("{OPEN} {INPUT} (drop {COMPUTE}) {PRINT} (i32.const 0)");
    let signed = run(&main, LIMITS, scripted(Ok(outputs())));
    assert_eq!(signed.outcome.output[..16], outputs()[0].1.data);
    assert_eq!(signed.receipt.consensus.determinism.name(), "tolerant");
    // Two rows meet eight weights, and six numbers go in.
    assert_eq!(signed.receipt.consensus.inference_units_used, 2 * 8 + 6);
    assert_eq!(
        signed.opening.profile.arithmetic.to_string(),
        "exact/0, scripted 1"
    );
    let engine = signed.receipt.evidence.inference_engine.to_string();
    assert_eq!(engine, "scripted 1 cpu, 1 threads");
    // A job that could have loaded it and did not is of the same class.
    let signed = run("(i32.const 0)", LIMITS, scripted(Ok(outputs())));
    assert_eq!(fixture::ended(Ok(signed)), r#"done [tolerant] "00""#);
}

#[test]
fn units_are_charged_before_a_graph_computes() {
    let main = format!("{OPEN} {INPUT} {COMPUTE}");
    let limits = |inference_units_max| Limits {
        inference_units_max,
        ..LIMITS
    };
    let signed = run(&main, limits(22), scripted(Ok(outputs())));
    assert_eq!(fixture::ended(Ok(signed)), r#"done [tolerant] "00""#);
    // The graph would answer; it is not asked.
    let signed = run(&main, limits(21), scripted(Ok(outputs())));
    assert_eq!(signed.receipt.consensus.inference_units_used, 0);
    let ended = fixture::ended(Ok(signed));
    assert!(
        ended.starts_with("limit-hit (inference_units_max) [tolerant]"),
        "{ended}"
    );
}

#[test]
fn what_goes_wrong_has_its_number_and_its_message() {
    let input = |index, change: &str| {
        format!(
            "{OPEN} {change} (call $nn-input (i32.const 0) (i32.const {index}) (i32.const 232))"
        )
    };
    let compute = |change: &str| format!("{OPEN} {change} {INPUT} {COMPUTE}");
    let failed = |reason: &str| GraphError::Failed {
        reason: reason.into(),
    };
    let memory = GraphError::Memory {
        bytes: 100,
        free: 10,
    };
    for (main, answer, expected, said) in [
        (
            input(1, ""),
            Ok(vec![]),
            r#"done [tolerant] "01""#,
            "this model has no input 1; it has 0 to 0",
        ),
        (
            format!("{OPEN} {COMPUTE}"),
            Ok(vec![]),
            r#"done [tolerant] "01""#,
            "the input `x` FP32 [?, 3] was not passed",
        ),
        (
            compute("(i32.store (i32.const 240) (i32.const 4))"),
            Ok(vec![]),
            r#"done [tolerant] "01""#,
            "the input `x` FP32 [?, 3] got a tensor of I32",
        ),
        (
            compute(
                "(i32.store (i32.const 200) (i32.const 3)) (i32.store (i32.const 204) (i32.const 2))",
            ),
            Ok(vec![]),
            r#"done [tolerant] "01""#,
            "the input `x` FP32 [?, 3] got a tensor of [3, 2]",
        ),
        (
            compute("(i32.store (i32.const 200) (i32.const 4))"),
            Ok(vec![]),
            r#"done [tolerant] "01""#,
            "tensor `x` has 24 bytes of data, its dimensions [4, 3] of FP32 call for 48",
        ),
        (
            compute(""),
            Err(memory),
            r#"done [tolerant] "07""#,
            "the outputs take 100 bytes, 10 are left of limits.model_memory_bytes_max",
        ),
        (
            compute(""),
            Err(failed("axes differ")),
            r#"done [tolerant] "05""#,
            "the graph failed: axes differ",
        ),
        (
            compute(""),
            Err(GraphError::Cancelled),
            r#"cancelled [not-rerunnable] "": the job was cancelled"#,
            "",
        ),
    ] {
        let signed = run(&main, LIMITS, scripted(answer));
        let log = String::from_utf8_lossy(&signed.outcome.log).into_owned();
        assert_eq!(fixture::ended(Ok(signed)), expected, "{main}");
        assert!(log.contains(said), "{main}: {log}");
    }
}

#[cfg(feature = "onnx")]
#[test]
fn an_onnx_model_is_run_in_the_real_library() {
    use tussah_inference::{
        OnnxFile,
        onnx::{OnnxGraph, OnnxRuntime},
    };
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let Some(library) = set("TUSSAH_TEST_ONNXRUNTIME") else {
        assert!(
            set("REQUIRE_ONNX").is_none(),
            "REQUIRE_ONNX is set, and TUSSAH_TEST_ONNXRUNTIME names no library"
        );
        println!("skipped: TUSSAH_TEST_ONNXRUNTIME names no ONNX Runtime library");
        return;
    };
    let runtime = OnnxRuntime::load(library.as_ref(), 64 << 20).expect("a library");
    let model = include_bytes!("../../../inference/tests/onnx/linear.onnx");
    let file = OnnxFile::from_bytes(model.to_vec()).expect("a file");
    let graph = OnnxGraph::open(&runtime, &file, 1).expect("a graph");
    let arithmetic = format!("onnxruntime {}", runtime.version());
    let main = format!("{OPEN} {INPUT} (drop {COMPUTE}) {PRINT} (i32.const 0)");
    let signed = run(&main, LIMITS, OneGraph(Arc::new(graph), arithmetic.clone()));
    assert_eq!(signed.outcome.output[..16], outputs()[0].1.data);
    assert_eq!(signed.receipt.consensus.determinism.name(), "tolerant");
    assert_eq!(signed.receipt.consensus.inference_units_used, 2 * 8 + 6);
    let profile = &signed.opening.profile;
    assert_eq!(
        profile.arithmetic.to_string(),
        format!("exact/0, {arithmetic}")
    );
    let engine = signed.receipt.evidence.inference_engine.to_string();
    assert_eq!(engine, format!("{arithmetic} cpu, 1 threads"));
}
