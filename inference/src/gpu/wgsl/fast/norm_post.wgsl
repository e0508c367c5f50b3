var added_squares = 0.0;
    for (var word = t; word < WORDS; word += $WGu) {
        let value = branch[at + word];
        added_squares += dot(value, value);
    }
    let added_r = inverse_rms(t, added_squares, $Nu);
    for (var word = t; word < WORDS; word += $WGu) {
        states[at + word] = states[at + word] + branch[at + word] * added_r * post_weights[word];
    }
