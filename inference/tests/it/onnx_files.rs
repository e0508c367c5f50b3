//! ONNX files before any library sees them: what is taken, and what is refused for which reason.

use proptest::prelude::*;
use tussah_inference::{OnnxFile, OnnxFileError};

use crate::onnx_models::{
    FLOAT, bytes, cast, constant, endless, graph, linear, model, node, number, subgraph, tensor,
    text, varint, zeros,
};

/// What is said of a file, or how many weights it has.
fn said(file: Vec<u8>) -> String {
    match OnnxFile::from_bytes(file) {
        Ok(file) => format!("{} parameters", file.parameters()),
        Err(error) => error.to_string(),
    }
}

/// A model whose only weight is this message.
fn with_weight(tensor: Vec<u8>) -> Vec<u8> {
    model(&graph(&[], &[tensor], &[], &[]))
}

/// A tensor whose data lie in a file beside the model.
fn external() -> Vec<u8> {
    let location = [text(1, "location"), text(2, "../../etc/passwd")].concat();
    let place = [bytes(13, &location), number(14, 1)].concat();
    [tensor("secret", FLOAT, &[1], &[]), place].concat()
}

#[test]
fn whole_files_are_taken() {
    assert_eq!(said(linear()), "8 parameters");
    assert_eq!(said(cast(1, 10)), "0 parameters");
    assert_eq!(said(zeros()), "0 parameters");
    assert_eq!(said(endless()), "3 parameters");
    assert_eq!(
        said(with_weight(tensor("none", FLOAT, &[1 << 40, 0], &[]))),
        "0 parameters"
    );
    // Dimensions as exporters pack them, and elements of two bits.
    let packed = [
        bytes(1, &[&varint(2)[..], &varint(300)].concat()),
        bytes(9, &[0; 150]),
    ]
    .concat();
    assert_eq!(said(with_weight(packed)), "600 parameters");
}

#[test]
fn the_committed_model_is_what_the_tests_write() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/onnx/linear.onnx");
    let file = OnnxFile::open(path.as_ref()).unwrap();
    assert_eq!(file.bytes(), linear());
    assert!(OnnxFile::may_be(file.bytes()));
    let error = OnnxFile::open("no/such.onnx".as_ref()).unwrap_err();
    assert!(matches!(error, OnnxFileError::Io { .. }), "{error}");
}

#[test]
fn data_outside_the_file_are_found_wherever_they_are() {
    let outside = "the data of tensor `secret` lie outside the file, and paths are not followed: save the model as one file";
    let empty = || graph(&[], &[], &[], &[]);
    let in_attribute = |attribute| {
        model(&graph(
            &[node("Constant", &[], &["y"], &[attribute])],
            &[],
            &[],
            &[],
        ))
    };
    let inner = graph(&[], &[external()], &[], &[]);
    let of_function = bytes(25, &bytes(7, &node("Add", &[], &[], &[])));
    for (place, file) in [
        ("a weight", with_weight(external())),
        ("an attribute", in_attribute(constant("value", &external()))),
        (
            "a list in an attribute",
            in_attribute(bytes(10, &external())),
        ),
        ("a branch", in_attribute(subgraph("then_branch", &inner))),
        ("a list of branches", in_attribute(bytes(11, &inner))),
        (
            "a branch of a branch",
            in_attribute(subgraph(
                "a",
                &graph(
                    &[node("If", &[], &[], &[subgraph("b", &inner)])],
                    &[],
                    &[],
                    &[],
                ),
            )),
        ),
        (
            "the values of a sparse attribute",
            in_attribute(bytes(22, &bytes(1, &external()))),
        ),
        (
            "the indices of one",
            in_attribute(bytes(23, &bytes(2, &external()))),
        ),
        (
            "a sparse weight",
            model(&[empty(), bytes(15, &bytes(1, &external()))].concat()),
        ),
        (
            "the training graph",
            [model(&empty()), bytes(20, &bytes(1, &inner))].concat(),
        ),
        (
            "only the place is given",
            with_weight([tensor("secret", FLOAT, &[1], &[0; 4]), number(14, 1)].concat()),
        ),
        (
            "only the path is given",
            with_weight([tensor("secret", FLOAT, &[1], &[0; 4]), bytes(13, &[])].concat()),
        ),
        (
            "the place is no number",
            with_weight([tensor("secret", FLOAT, &[1], &[0; 4]), bytes(14, &[1])].concat()),
        ),
    ] {
        assert_eq!(said(file), outside, "{place}");
    }
    assert_eq!(
        said([model(&empty()), of_function].concat()),
        "it has functions of its own: inline them (onnx.inliner) and save it again"
    );
}

#[test]
fn what_is_no_model_is_refused() {
    let whole = linear();
    let mut deep = graph(&[], &[], &[], &[]);
    for _ in 0..30 {
        deep = graph(
            &[node("If", &[], &[], &[subgraph("branch", &deep)])],
            &[],
            &[],
            &[],
        );
    }
    let two_graphs = [model(&graph(&[], &[], &[], &[])), bytes(7, &[])].concat();
    for (what, file, expected) in [
        ("nothing", vec![], "it has no graph"),
        ("another message", text(1, "hello"), "it has no graph"),
        (
            "a page",
            b"<!doctype html>".to_vec(),
            "a field of an unknown kind",
        ),
        (
            "GGUF",
            b"GGUF\x03\0\0\0".to_vec(),
            "a field of an unknown kind",
        ),
        (
            "ONNX Runtime's own format",
            [b"\x20\0\0\0ORTM".as_slice(), &[0; 64]].concat(),
            "the mark of another format",
        ),
        (
            "cut by one byte",
            whole[..whole.len() - 1].to_vec(),
            "past the end of its message",
        ),
        (
            "cut in half",
            whole[..whole.len() / 2].to_vec(),
            "past the end of its message",
        ),
        (
            "a number without end",
            vec![0xff; 16],
            "a number of more than 64 bits",
        ),
        (
            "a length of 2^63",
            [varint(7 << 3 | 2), varint(1 << 63)].concat(),
            "past the end of its message",
        ),
        ("field 0", number(0, 1), "a field without a number"),
        ("a group", vec![7 << 3 | 3], "a field of an unknown kind"),
        (
            "a graph that is a number",
            number(7, 1),
            "a message that is none",
        ),
        (
            "two graphs in one",
            two_graphs,
            "a message that is there twice",
        ),
        (
            "branches 30 deep",
            model(&deep),
            "messages nested too deeply",
        ),
        (
            "more elements than bytes",
            with_weight(tensor("w", FLOAT, &[1 << 40], &[0; 4])),
            "tensor `w` has the dimensions [1099511627776] and 18 bytes",
        ),
        (
            "elements past 64 bits",
            with_weight(tensor("w", FLOAT, &[1 << 40, 1 << 40], &[])),
            "tensor `w` has the dimensions [1099511627776, 1099511627776]",
        ),
        (
            "a size of -1",
            with_weight(tensor("w", FLOAT, &[u64::MAX], &[0; 4])),
            "tensor `w` has the dimensions [18446744073709551615]",
        ),
    ] {
        let found = said(file);
        assert!(found.contains(expected), "{what}: {found}");
    }
}

proptest! {
    /// Whatever the bytes are, the answer is an error or a file, and comes at once.
    #[test]
    fn no_bytes_can_do_harm(at in 0_usize..200, byte: u8, cut in 0_usize..300) {
        let mut file = linear();
        let at = at % file.len();
        file[at] = byte;
        file.truncate(cut.max(1));
        let _ = OnnxFile::from_bytes(file);
    }

    #[test]
    fn noise_is_no_model(noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = OnnxFile::from_bytes(noise);
    }
}
