var most_added = 0u;
    for (var unit = t; unit < N / 16u; unit += $WGu) {
        for (var i = unit * 16u; i < unit * 16u + 16u; i++) {
            most_added = max(most_added, branch[at + i] & MAGNITUDE);
        }
    }
    most_added = group_max(t, most_added);
    if t == 0u && most_added >= NOT_FINITE {
        atomicMin(&status[row], stage.x);
    }
    let added_exponent = q16_exponent(most_added);
    var added_squares = vec2<u32>(0u);
    for (var unit = t; unit < N / 16u; unit += $WGu) {
        for (var i = unit * 16u; i < unit * 16u + 16u; i++) {
            added_squares = add64(added_squares, square(rnd(branch[at + i], added_exponent)));
        }
    }
    let added_r = inverse_rms(group_sum(t, added_squares), added_exponent, $N, $EPSu);
    for (var unit = t; unit < N / 16u; unit += $WGu) {
        for (var i = unit * 16u; i < unit * 16u + 16u; i++) {
            states[at + i] = f_add(states[at + i], f_mul(f_mul(branch[at + i], added_r), post_weights[i]));
        }
    }
