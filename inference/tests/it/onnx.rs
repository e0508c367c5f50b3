//! ONNX models in the real ONNX Runtime. `TUSSAH_TEST_ONNXRUNTIME` names the library; without it a test
//! says so and returns, and under `REQUIRE_ONNX=1` it fails.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tussah_inference::graph::{
    ElementType, GraphError, GraphTensor, TensorGraph, check_inputs, inference_units,
};
use tussah_inference::onnx::{OnnxError, OnnxGraph, OnnxLibraryError, OnnxRuntime};
use tussah_inference::{CancelToken, OnnxFile};

use crate::onnx_models::{
    BOOL, FLOAT, cast, endless, graph, linear, model, node, tensor as weight, value, zeros,
};

/// What all graphs of this process together may take.
const MEMORY_BYTES_MAX: u64 = 64 << 20;
/// What one computation may give here.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

fn library() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let path = set("TUSSAH_TEST_ONNXRUNTIME").map(PathBuf::from);
    if path.is_none() {
        assert!(
            set("REQUIRE_ONNX").is_none(),
            "REQUIRE_ONNX is set, and TUSSAH_TEST_ONNXRUNTIME names no library"
        );
        println!("skipped: TUSSAH_TEST_ONNXRUNTIME names no ONNX Runtime library");
    }
    path
}

fn runtime() -> Option<Arc<OnnxRuntime>> {
    let path = library()?;
    Some(OnnxRuntime::load(&path, MEMORY_BYTES_MAX).unwrap())
}

fn open(runtime: &Arc<OnnxRuntime>, file: Vec<u8>) -> Result<OnnxGraph, OnnxError> {
    OnnxGraph::open(runtime, &OnnxFile::from_bytes(file).unwrap(), 2)
}

fn tensor(element: ElementType, dimensions: &[u32], data: Vec<u8>) -> GraphTensor {
    GraphTensor {
        dimensions: dimensions.to_vec(),
        element,
        data,
    }
}

fn compute(
    graph: &OnnxGraph,
    inputs: &[(&str, GraphTensor)],
) -> Result<Vec<(String, GraphTensor)>, GraphError> {
    let named = |(name, tensor): &(&str, GraphTensor)| ((*name).to_owned(), tensor.clone());
    let inputs: Vec<_> = inputs.iter().map(named).collect();
    check_inputs(graph.inputs(), &inputs)?;
    graph.compute(inputs, OUTPUT_BYTES_MAX, &CancelToken::new())
}

fn floats(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

#[test]
fn a_layer_computes_what_it_says() {
    let Some(runtime) = runtime() else { return };
    let graph = open(&runtime, linear()).unwrap();
    assert_eq!(graph.parameters(), 8);
    let ports = |ports: &[_]| ports.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(ports(graph.inputs()), ["`x` FP32 [?, 3]"]);
    assert_eq!(ports(graph.outputs()), ["`y` FP32 [?, 2]"]);
    let version = runtime.version();
    assert_eq!(
        graph.engine(),
        format!("onnxruntime {version} cpu, 2 threads")
    );

    let x = tensor(
        ElementType::Fp32,
        &[2, 3],
        floats(&[1.0, 0.0, 0.0, 1.0, 1.0, 1.0]),
    );
    let y = tensor(ElementType::Fp32, &[2, 2], floats(&[1.5, 1.5, 9.5, 11.5]));
    let named = [("x".to_owned(), x.clone())];
    assert_eq!(
        inference_units(graph.inputs(), graph.parameters(), &named),
        2 * 8 + 6
    );
    assert_eq!(compute(&graph, &[("x", x)]).unwrap(), [("y".to_owned(), y)]);
    // No rows in, no rows out.
    let none = |columns| tensor(ElementType::Fp32, &[0, columns], vec![]);
    assert_eq!(
        compute(&graph, &[("x", none(3))]).unwrap(),
        [("y".to_owned(), none(2))]
    );
}

/// 0, 1, 2 and 100 in a type: numbers that each of them has exactly.
fn numbers(element: ElementType) -> Vec<u8> {
    fn bytes<const N: usize>(numbers: [[u8; N]; 4]) -> Vec<u8> {
        numbers.concat()
    }
    match element {
        // IEEE 754 binary16 and the upper half of binary32, by their definitions.
        ElementType::Fp16 => bytes([0, 0x3c00, 0x4000, 0x5640_u16].map(u16::to_le_bytes)),
        ElementType::Bf16 => bytes([0, 0x3f80, 0x4000, 0x42c8_u16].map(u16::to_le_bytes)),
        ElementType::Fp32 => bytes([0.0, 1.0, 2.0, 100.0_f32].map(f32::to_le_bytes)),
        ElementType::Fp64 => bytes([0.0, 1.0, 2.0, 100.0_f64].map(f64::to_le_bytes)),
        ElementType::U8 => vec![0, 1, 2, 100],
        ElementType::I32 => bytes([0, 1, 2, 100_i32].map(i32::to_le_bytes)),
        ElementType::I64 => bytes([0, 1, 2, 100_i64].map(i64::to_le_bytes)),
    }
}

/// `TensorProto.DataType`.
fn onnx_type(element: ElementType) -> u64 {
    match element {
        ElementType::Fp32 => 1,
        ElementType::U8 => 2,
        ElementType::I32 => 6,
        ElementType::I64 => 7,
        ElementType::Fp16 => 10,
        ElementType::Fp64 => 11,
        ElementType::Bf16 => 16,
    }
}

#[test]
fn every_type_goes_in_and_comes_out() {
    let Some(runtime) = runtime() else { return };
    for from in ElementType::ALL {
        for to in ElementType::ALL {
            let graph = open(&runtime, cast(onnx_type(from), onnx_type(to))).unwrap();
            let found = compute(&graph, &[("x", tensor(from, &[4], numbers(from)))]).unwrap();
            let expected = [("y".to_owned(), tensor(to, &[4], numbers(to)))];
            assert_eq!(found, expected, "{from} to {to}");
        }
    }
}

#[test]
fn outputs_and_memory_have_a_ceiling() {
    let Some(runtime) = runtime() else { return };
    let graph = open(&runtime, zeros()).unwrap();
    let shape = |elements: i64| {
        let data = elements.to_le_bytes().to_vec();
        compute(&graph, &[("shape", tensor(ElementType::I64, &[1], data))])
    };
    // At the limit, and one element over it.
    let most = i64::try_from(OUTPUT_BYTES_MAX / 4).unwrap();
    assert_eq!(
        shape(most).unwrap()[0].1.data.len() as u64,
        OUTPUT_BYTES_MAX
    );
    let error = shape(most + 1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the outputs take 1048580 bytes, 1048576 are free"
    );
    // Over what the process gives: 4 TiB are never taken.
    let error = shape(1 << 40).unwrap_err();
    assert!(matches!(error, GraphError::Failed { .. }), "{error}");
    let error = shape(-1).unwrap_err();
    assert!(matches!(error, GraphError::Failed { .. }), "{error}");
    // Where the model says the size of its output, nothing is computed.
    let fixed = graph_with_output(512 * 1024);
    let graph = open(&runtime, fixed).unwrap();
    let error = compute(
        &graph,
        &[("x", tensor(ElementType::Fp32, &[1], floats(&[1.0])))],
    );
    assert_eq!(
        error.unwrap_err().to_string(),
        "the outputs take 2097152 bytes, 1048576 are free"
    );
}

/// `x` [1] repeated to a size that the model fixes.
fn graph_with_output(elements: u64) -> Vec<u8> {
    let size = weight("size", 7, &[1], &elements.to_le_bytes());
    let node = node("Expand", &["x", "size"], &["y"], &[]);
    let (x, y) = (
        value("x", FLOAT, &[Some(1)]),
        value("y", FLOAT, &[Some(elements)]),
    );
    model(&graph(&[node], &[size], &[x], &[y]))
}

#[test]
fn a_computation_without_end_is_cancelled() {
    let Some(runtime) = runtime() else { return };
    let graph = Arc::new(open(&runtime, endless()).unwrap());
    let (cancel, (send, ended)) = (CancelToken::new(), mpsc::channel());
    let x = || vec![("x".to_owned(), tensor(ElementType::I64, &[], vec![0; 8]))];
    let worker = std::thread::spawn({
        let (graph, cancel, x) = (Arc::clone(&graph), cancel.clone(), x());
        move || send.send(graph.compute(x, OUTPUT_BYTES_MAX, &cancel))
    });
    // It is at work, and would be for the next thousand years.
    let early = ended.recv_timeout(Duration::from_millis(50));
    assert_eq!(early, Err(mpsc::RecvTimeoutError::Timeout));
    cancel.cancel();
    assert_eq!(ended.recv().unwrap(), Err(GraphError::Cancelled));
    worker.join().unwrap().unwrap();
    // What was cancelled before is not begun.
    assert_eq!(
        graph.compute(x(), OUTPUT_BYTES_MAX, &cancel),
        Err(GraphError::Cancelled)
    );
}

#[test]
fn models_that_cannot_be_run_are_refused() {
    let Some(runtime) = runtime() else { return };
    let port = |ty| value("x", ty, &[Some(1)]);
    let with = |op: &str, ty| {
        let node = node(op, &["x"], &["y"], &[]);
        let output = value("y", ty, &[Some(1)]);
        open(
            &runtime,
            model(&graph(&[node], &[], &[port(ty)], &[output])),
        )
    };
    let refused = |result: Result<OnnxGraph, OnnxError>| result.unwrap_err().to_string();
    assert_eq!(
        refused(with("Not", BOOL)),
        "`x` is of the type Tensor<bool>(1), wasi-nn has tensors of FP16, FP32, FP64, BF16, U8, I32 and I64"
    );
    let unknown = refused(with("NoSuchOperator", FLOAT));
    assert!(
        unknown.starts_with("ONNX Runtime does not take the model: "),
        "{unknown}"
    );
    assert!(unknown.contains("NoSuchOperator"), "{unknown}");
    // A graph that is none for the library, though its protobuf is right.
    let empty = refused(open(&runtime, model(&[])));
    assert!(
        empty.starts_with("ONNX Runtime does not take the model: "),
        "{empty}"
    );
    // Sizes that do not fit are the computation's error: `x` and `y` of two lengths.
    let add = node("Add", &["x", "y"], &["z"], &[]);
    let ports = [value("x", FLOAT, &[None]), value("y", FLOAT, &[None])];
    let sum = model(&graph(&[add], &[], &ports, &[value("z", FLOAT, &[None])]));
    let sum = open(&runtime, sum).unwrap();
    let row = |elements: u32| {
        tensor(
            ElementType::Fp32,
            &[elements],
            vec![0; elements as usize * 4],
        )
    };
    let error = compute(&sum, &[("x", row(2)), ("y", row(3))]).unwrap_err();
    assert!(matches!(error, GraphError::Failed { .. }), "{error}");
}

#[test]
fn only_the_library_that_was_named_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let load = |name: &str| OnnxRuntime::load(&folder.path().join(name), MEMORY_BYTES_MAX);
    let Some(path) = library() else {
        // Without one in the process, what is no library is found to be none.
        std::fs::write(folder.path().join("text.so"), "not a library").unwrap();
        for name in ["text.so", "missing.so"] {
            let error = load(name).unwrap_err();
            assert!(matches!(error, OnnxLibraryError::Load { .. }), "{error}");
        }
        return;
    };
    let first = OnnxRuntime::load(&path, MEMORY_BYTES_MAX).unwrap();
    let again = OnnxRuntime::load(&path, 1).unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    let error = load("missing.so").unwrap_err();
    assert!(matches!(error, OnnxLibraryError::Second { .. }), "{error}");
    assert!(
        error.to_string().contains("cannot be loaded beside"),
        "{error}"
    );
}

#[test]
fn versions_are_compared_by_their_numbers() {
    for (version, supported) in [
        ("1.17.0", true),
        ("1.17", true),
        ("1.32.0", true),
        ("1.100.1-dev", true),
        ("1.16.3", false),
        ("1.9.0", false),
        // Another major version is another interface.
        ("2.0.0", false),
        ("0.99.0", false),
        ("1", false),
        ("", false),
        ("one.two", false),
    ] {
        assert_eq!(OnnxRuntime::supports(version), supported, "{version}");
    }
}
