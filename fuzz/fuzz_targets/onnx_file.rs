//! Any bytes as an ONNX file, and a small model with any bytes put into it: no panic, no memory
//! without bound, and an answer at once.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tussah_inference::OnnxFile;

const MODEL: &[u8] = include_bytes!("../../inference/tests/onnx/linear.onnx");

fn check(bytes: Vec<u8>) {
    let _ = OnnxFile::from_bytes(bytes);
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes.to_vec());
    let Some((at, patch)) = bytes.split_first() else {
        return;
    };
    let at = usize::from(*at) % MODEL.len();
    check([&MODEL[..at], patch, &MODEL[at..]].concat());
    let end = MODEL.len().min(at + patch.len());
    check([&MODEL[..at], &patch[..end - at], &MODEL[end..]].concat());
});
