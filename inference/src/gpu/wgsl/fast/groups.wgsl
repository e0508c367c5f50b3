// What kernels make of a workgroup's sums and maxima.

fn inverse_rms(t: u32, squares: f32, n: u32) -> f32 {
    return inverseSqrt(group_sum(t, squares) / f32(n) + bitcast<f32>($EPSu));
}
