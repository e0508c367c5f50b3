//! Whether an adapter keeps the exact arithmetic.
//! In: a device that was just opened. Out: nothing, or the first operation whose result is not the CPU's.
//! Every operation of the kernels runs on pairs of numbers at the edges of their range and all over it, and
//! each result is compared with that of `arithmetic.rs`.

use wgpu::{
    BindGroupDescriptor, BindGroupEntry, BufferUsages, CommandEncoderDescriptor,
    ComputePassDescriptor,
};

use crate::arithmetic::{
    NOT_FINITE, add, div, exp, flush, gelu_gate, int_to_float, mul, scale2, silu_gate, sqrt, sub,
};
use crate::backend::BackendError;

use super::device::Gpu;
use super::kernels::{Profile, substitute, with_subgroups};
use super::product::sums;

/// Pairs of operands, a whole number of workgroups of 64.
const PAIRS: usize = 4096;
/// Threads of a workgroup that adds up, and words that each of them leaves.
const GROUP: usize = 256;
const GROUP_RESULTS: usize = 4;
/// Names of the operations, in the order of the kernel.
const OPERATIONS: [&str; 15] = [
    "add",
    "sub",
    "mul",
    "div",
    "sqrt",
    "exp",
    "the SiLU gate",
    "the GELU gate",
    "scale2",
    "the rounding of a 64-bit integer",
    "the dot product of bytes",
    "the 64-bit product",
    // What a compiler may have fused, or left out.
    "a product less a product",
    "a sum with a product",
    "whether a product is finite",
];

/// What the kernel is to give.
fn expected(a: u32, b: u32) -> [u32; OPERATIONS.len()] {
    let (x, y) = (f32::from_bits(a), f32::from_bits(b));
    let power = (b & 255).cast_signed() - 128;
    let wide = (u64::from(b) << 32 | u64::from(a)).cast_signed();
    let bytes = a.to_le_bytes().into_iter().zip(b.to_le_bytes());
    let dot: i32 = bytes
        .map(|(a, b)| i32::from(a.cast_signed()) * i32::from(b.cast_signed()))
        .sum();
    let product = i64::from(a.cast_signed() >> 9) * i64::from(b.cast_signed() >> 4);
    let floats = [
        add(x, y),
        sub(x, y),
        mul(x, y),
        div(x, y),
        sqrt(x.abs()),
        exp(x),
        silu_gate(x, y),
        gelu_gate(x, y),
        scale2(x, power),
        int_to_float(wide),
    ];
    let mut all = [0; OPERATIONS.len()];
    for (all, value) in all.iter_mut().zip(floats) {
        *all = value.to_bits();
    }
    all[10] = dot.cast_unsigned();
    all[11] = int_to_float(product).to_bits();
    all[12] = sub(mul(x, x), mul(y, y)).to_bits();
    all[13] = add(y, mul(mul(x, 1.2), x)).to_bits();
    all[14] = u32::from(!mul(x, y).is_finite());
    all
}

/// Edges with edges, then numbers of all magnitudes, then pairs whose exponents are near each other, where
/// sums round and cancel.
fn operands() -> Vec<u32> {
    let edges = [
        0x0000_0000,
        0x0080_0001,
        0x8080_0001,
        0x00ff_ffff,
        0x3f80_0000,
        0xbf80_0000,
        0x3f7f_ffff,
        0x3f80_0001,
        0x4b7f_ffff,
        0x4b80_0001,
        0x42ae_0000,
        0xc2ae_0000,
        0x7f80_0000,
        0xff80_0000,
        0x7f7f_ffff,
        0xff7f_ffff,
        0x5f80_0000,
        0x1f80_0000,
    ];
    let mut out = Vec::with_capacity(2 * PAIRS);
    for a in edges {
        for b in edges {
            out.extend([a, b]);
        }
    }
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state
    };
    while out.len() < 2 * PAIRS {
        let (a, b) = (next(), next());
        // Every fourth pair has exponents near 127, where models live.
        let near = |bits: u32| bits & 0x807f_ffff | (120 + (bits >> 23) % 16) << 23;
        let pair = match out.len() / 2 % 4 {
            0 => [near(a), near(b)],
            1 => [near(a), near(a) ^ 0x8000_0000 ^ (b % 8)],
            _ => [a, b],
        };
        let value = |bits: u32| flush(f32::from_bits(bits));
        if pair.iter().all(|bits| value(*bits).is_finite()) {
            out.extend(pair.map(|bits| value(bits).to_bits()));
        }
    }
    out
}

/// Runs the operations and compares them; `Ok(Some(_))` names one that differs, with its operands.
pub(super) fn run(gpu: &Gpu, profile: Profile) -> Result<Option<String>, BackendError> {
    let operands = operands();
    let size = (PAIRS / 64, PAIRS * OPERATIONS.len());
    let results = compute(gpu, source(gpu, profile), &operands, size)?;
    let pairs = operands.as_chunks::<2>().0;
    for (pair, found) in pairs
        .iter()
        .zip(results.as_chunks::<{ OPERATIONS.len() }>().0)
    {
        let wanted = expected(pair[0], pair[1]);
        let places = found.iter().zip(wanted).zip(OPERATIONS);
        for ((found, wanted), name) in places {
            // What is not a number on a CPU is infinite here.
            let float = name != "the dot product of bytes";
            let fine = match f32::from_bits(wanted).is_nan() && float {
                true => *found & 0x7fff_ffff >= NOT_FINITE,
                false => *found == wanted,
            };
            if !fine {
                let [a, b] = pair;
                return Ok(Some(format!(
                    "{name} of {a:08x} and {b:08x} is {found:08x}, wanted {wanted:08x}"
                )));
            }
        }
    }
    Ok(None)
}

fn source(gpu: &Gpu, profile: Profile) -> String {
    let kernel = substitute(
        include_str!("wgsl/exact/self_test.wgsl"),
        &[
            ("WIDE", sums(gpu.int64()).to_owned()),
            ("OPERATIONS", OPERATIONS.len().to_string()),
        ],
    );
    profile.floats() + &kernel
}

/// Whether a workgroup's sums and maxima by subgroups are what they are to be.
pub(super) fn subgroups(gpu: &Gpu) -> Result<bool, BackendError> {
    let operands = operands();
    let profile = Profile::Exact {
        native: false,
        subgroups: true,
    };
    let kernel = profile.groups() + include_str!("wgsl/exact/self_test_groups.wgsl");
    let values = [("WG", GROUP.to_string()), ("EPS", "0".to_owned())];
    let source = with_subgroups(profile.floats() + &substitute(&kernel, &values));
    let results = compute(
        gpu,
        source,
        &operands,
        (PAIRS / GROUP, GROUP_RESULTS * PAIRS),
    )?;
    let pairs = operands.as_chunks::<2>().0;
    let groups = pairs
        .chunks(GROUP)
        .zip(results.chunks(GROUP * GROUP_RESULTS));
    Ok(groups.into_iter().all(|(pairs, results)| {
        let wide = |[low, high]: &[u32; 2]| u64::from(high & 0xff_ffff) << 32 | u64::from(*low);
        let sum: u64 = pairs.iter().map(wide).sum();
        let most = pairs.iter().map(|pair| pair[0]).max();
        let [low, high] =
            [sum & 0xffff_ffff, sum >> 32].map(|half| u32::try_from(half).unwrap_or(0));
        let mut of_threads = results.as_chunks::<GROUP_RESULTS>().0.iter();
        of_threads.all(|found| *found == [low, high, most.unwrap_or(0), 0])
    }))
}

/// Runs a kernel with the operands: so many workgroups, which give so many words.
fn compute(
    gpu: &Gpu,
    source: String,
    operands: &[u32],
    (groups, words): (usize, usize),
) -> Result<Vec<u32>, BackendError> {
    let bytes = (words * size_of::<u32>()) as u64;
    let input = gpu.filled("operands of the self-test", operands)?;
    let output = gpu.buffer("results of the self-test", bytes)?;
    let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
    let readback = gpu.buffer_for("results of the self-test", bytes, usage)?;
    let pipeline = gpu.pipeline("self-test", source, None)?;
    let bindings = gpu.scoped("bindings of the self-test", 0, || {
        gpu.device().create_bind_group(&BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[
                BindGroupEntry {
                    binding: 0,
                    resource: input.as_entire_binding(),
                },
                BindGroupEntry {
                    binding: 1,
                    resource: output.as_entire_binding(),
                },
            ],
        })
    })?;
    let descriptor = CommandEncoderDescriptor::default();
    let mut encoder = gpu.device().create_command_encoder(&descriptor);
    {
        let mut pass = encoder.begin_compute_pass(&ComputePassDescriptor::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &bindings, &[]);
        pass.dispatch_workgroups(u32::try_from(groups).unwrap_or(0), 1, 1);
    }
    encoder.copy_buffer_to_buffer(&output, 0, &readback, 0, Some(bytes));
    gpu.queue().submit([encoder.finish()]);
    gpu.read(&readback, bytes)
}
