for (var word = t; word < WORDS; word += $WGu) {
        states[at + word] = states[at + word] + branch[at + word];
    }
