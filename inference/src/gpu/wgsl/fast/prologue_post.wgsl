let branch_r = inverse_rms(t, squares_of_mine(t), BLOCKS * 32u);
    for (var word = t; word < WORDS; word += $WGu) {
        x_words[word] = states[word] + x_words[word] * branch_r * post_weights[word];
    }
