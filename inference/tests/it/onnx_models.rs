//! ONNX models written by hand, field by field, so that each test says what is in its file.
//! Source of the numbers: `onnx/onnx.proto` of the ONNX project.

/// Numbers of `TensorProto.DataType`.
pub(crate) const FLOAT: u64 = 1;
pub(crate) const INT64: u64 = 7;
pub(crate) const BOOL: u64 = 9;

/// Protobuf's varint.
pub(crate) fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
    bytes
}

/// A field that is a number.
pub(crate) fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

/// A field that is bytes, a text or a message.
pub(crate) fn bytes(field: u64, content: &[u8]) -> Vec<u8> {
    let length = varint(content.len() as u64);
    [varint(field << 3 | 2), length, content.to_vec()].concat()
}

pub(crate) fn text(field: u64, content: &str) -> Vec<u8> {
    bytes(field, content.as_bytes())
}

/// `TensorProto` with its data in it.
pub(crate) fn tensor(name: &str, ty: u64, dimensions: &[u64], raw: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    for size in dimensions {
        message.extend(number(1, *size));
    }
    message.extend(number(2, ty));
    message.extend(text(8, name));
    message.extend(bytes(9, raw));
    message
}

/// `ValueInfoProto` of a tensor; `None` is a size that is left open.
pub(crate) fn value(name: &str, ty: u64, dimensions: &[Option<u64>]) -> Vec<u8> {
    let mut shape = Vec::new();
    for (at, size) in dimensions.iter().enumerate() {
        let size = match size {
            Some(size) => number(1, *size),
            None => text(2, &format!("d{at}")),
        };
        shape.extend(bytes(1, &size));
    }
    let tensor = [number(1, ty), bytes(2, &shape)].concat();
    [text(1, name), bytes(2, &bytes(1, &tensor))].concat()
}

/// `NodeProto`.
pub(crate) fn node(op: &str, inputs: &[&str], outputs: &[&str], attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut message = Vec::new();
    for name in inputs {
        message.extend(text(1, name));
    }
    for name in outputs {
        message.extend(text(2, name));
    }
    message.extend(text(4, op));
    for attribute in attributes {
        message.extend(bytes(5, attribute));
    }
    message
}

/// `AttributeProto` of a whole number.
pub(crate) fn integer(name: &str, value: u64) -> Vec<u8> {
    [text(1, name), number(3, value), number(20, 2)].concat()
}

/// `AttributeProto` of a graph.
pub(crate) fn subgraph(name: &str, graph: &[u8]) -> Vec<u8> {
    [text(1, name), bytes(6, graph), number(20, 5)].concat()
}

/// `AttributeProto` of a tensor.
pub(crate) fn constant(name: &str, tensor: &[u8]) -> Vec<u8> {
    [text(1, name), bytes(5, tensor), number(20, 4)].concat()
}

/// `GraphProto`.
pub(crate) fn graph(
    nodes: &[Vec<u8>],
    weights: &[Vec<u8>],
    inputs: &[Vec<u8>],
    outputs: &[Vec<u8>],
) -> Vec<u8> {
    let mut message = Vec::new();
    let mut put = |field, messages: &[Vec<u8>]| {
        for part in messages {
            message.extend(bytes(field, part));
        }
    };
    put(1, nodes);
    put(2, &[b"graph".to_vec()]);
    put(5, weights);
    put(11, inputs);
    put(12, outputs);
    message
}

/// `ModelProto`: version 8 of the format, version 17 of the operators.
pub(crate) fn model(graph: &[u8]) -> Vec<u8> {
    let operators = [text(1, ""), number(2, 17)].concat();
    [number(1, 8), bytes(8, &operators), bytes(7, graph)].concat()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

/// `y = x · w + b`, with `x` [rows, 3] and `y` [rows, 2].
pub(crate) fn linear() -> Vec<u8> {
    let weights = [
        tensor(
            "w",
            FLOAT,
            &[3, 2],
            &floats(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        ),
        tensor("b", FLOAT, &[2], &floats(&[0.5, -0.5])),
    ];
    let nodes = [
        node("MatMul", &["x", "w"], &["xw"], &[]),
        node("Add", &["xw", "b"], &["y"], &[]),
    ];
    let (x, y) = (
        value("x", FLOAT, &[None, Some(3)]),
        value("y", FLOAT, &[None, Some(2)]),
    );
    model(&graph(&nodes, &weights, &[x], &[y]))
}

/// `y` is `x` as another type.
pub(crate) fn cast(from: u64, to: u64) -> Vec<u8> {
    let node = node("Cast", &["x"], &["y"], &[integer("to", to)]);
    let (x, y) = (value("x", from, &[None]), value("y", to, &[None]));
    model(&graph(&[node], &[], &[x], &[y]))
}

/// `y` is as many zeros as `shape` says: eight bytes go in, any number come out.
pub(crate) fn zeros() -> Vec<u8> {
    let node = node("ConstantOfShape", &["shape"], &["y"], &[]);
    let (shape, y) = (
        value("shape", INT64, &[Some(1)]),
        value("y", FLOAT, &[None]),
    );
    model(&graph(&[node], &[], &[shape], &[y]))
}

/// Counts to 2^63 - 1, one step a turn.
pub(crate) fn endless() -> Vec<u8> {
    let one = tensor("one", INT64, &[], &1_i64.to_le_bytes());
    let body = graph(
        &[
            node("Identity", &["go_in"], &["go_out"], &[]),
            node("Constant", &[], &["one"], &[constant("value", &one)]),
            node("Add", &["sum_in", "one"], &["sum_out"], &[]),
        ],
        &[],
        &[
            value("turn", INT64, &[]),
            value("go_in", BOOL, &[]),
            value("sum_in", INT64, &[]),
        ],
        &[value("go_out", BOOL, &[]), value("sum_out", INT64, &[])],
    );
    let weights = [
        tensor("turns", INT64, &[], &i64::MAX.to_le_bytes()),
        tensor("go", BOOL, &[], &[1]),
    ];
    let turns = node(
        "Loop",
        &["turns", "go", "x"],
        &["y"],
        &[subgraph("body", &body)],
    );
    let (x, y) = (value("x", INT64, &[]), value("y", INT64, &[]));
    model(&graph(&[turns], &weights, &[x], &[y]))
}
