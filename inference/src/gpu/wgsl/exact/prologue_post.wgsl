wrong = largest_of_mine(t);
    let branch_exponent = q16_exponent(wrong);
    let branch_r = inverse_rms(squares_of_mine(t, branch_exponent), branch_exponent, i32(BLOCKS * 32u), $EPSu);
    at = 0u;
    for (var word = t; word < WORDS; word += $WGu) {
        for (var i = 0u; i < 4u; i++) {
            let added = f_mul(f_mul(mine[at + i], branch_r), post_weights[word * 4u + i]);
            mine[at + i] = f_add(states[word * 4u + i], added);
        }
        at += 4u;
    }
